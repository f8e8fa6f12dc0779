"""Tables in the blackbox-repository format are read as their authors wrote them, survive a round trip, and are checked before use."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from ConfigSpace import EqualsCondition

from experiments.benchmarks import blackbox_format
from experiments.benchmarks.blackbox import Blackbox
from experiments.benchmarks.blackbox_format import Table
from experiments.benchmarks.space import build_space, plain_values
from schedulers.types import Benchmark, Job

METADATA = {
    "objectives_names": ["error", "time"],
    "task_names": ["cats", "dogs"],
    "default_metric": "error",
    "metric_elapsed_time": "time",
    "resource_attr": "hp_epoch",
}
SPACE = {
    "hyperparameters": [
        {"type": "uniform_float", "name": "rate", "lower": 1e-4, "upper": 1.0, "log": True},
        {"type": "uniform_int", "name": "layers", "lower": 1, "upper": 5},
        {"type": "categorical", "name": "act", "choices": ["relu", "tanh"]},
        {"type": "ordinal", "name": "width", "sequence": [16, 64, 256]},
    ]
}


def small_table() -> Table:
    """12 configurations, 2 seeds, 3 epochs; epochs take 2 seconds."""
    rng = np.random.default_rng(0)
    space = build_space(SPACE)
    space.seed(0)
    configs = [plain_values(config) for config in space.sample_configuration(12)]
    values = np.empty((2, 12, 2, 3, 2), np.float32)
    values[..., 0] = rng.random((2, 12, 2, 3))
    values[..., 1] = 2.0 * np.arange(1, 4)
    return Table(space, configs, values, dict(METADATA))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    blackbox_format.write(tmp_path / "table", small_table())
    return tmp_path / "table"


def curve(benchmark: Blackbox, config: Any, r_from: int = 0) -> list[Any]:
    return list(benchmark.train(Job(0, config, r_from, benchmark.r_max)))


def test_a_table_survives_the_round_trip(folder: Path) -> None:
    written, read = small_table(), blackbox_format.read(folder)
    assert read.space == written.space
    assert read.configs == written.configs
    assert read.metadata == written.metadata
    np.testing.assert_array_equal(read.values, written.values)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["table"]


def test_each_configuration_gets_a_curve_of_its_own_row_and_task(folder: Path) -> None:
    table, benchmark = small_table(), Blackbox(str(folder), task="dogs")
    assert isinstance(benchmark, Benchmark)
    assert (benchmark.r_max, benchmark.mode, benchmark.metric) == (3, "min", "error")
    for row, config in enumerate(table.configs):
        items = curve(benchmark, config)
        assert [item.metric for item in items] in [table.values[1, row, seed, :, 0].tolist() for seed in range(2)]
        assert [(item.r, item.seconds) for item in items] == [(1, 2.0), (2, 2.0), (3, 2.0)]
        assert curve(benchmark, config, r_from=1) == items[1:]
    assert benchmark.optimum == pytest.approx(table.values[1, :, :, -1, 0].mean(1).min())
    assert Blackbox(str(folder), task="dogs", mode="max").optimum == pytest.approx(table.values[1, :, :, -1, 0].mean(1).max())


def test_the_seed_draws_among_the_seeds_of_the_table(folder: Path) -> None:
    config = small_table().configs[0]
    finals = {curve(Blackbox(str(folder), task="cats", seed=seed), config)[-1].metric for seed in range(20)}
    assert finals == {float(v) for v in small_table().values[0, 0, :, -1, 0]}
    again = [curve(Blackbox(str(folder), task="cats", seed=3), config) for _ in range(2)]
    assert again[0] == again[1]


def test_a_folder_below_data_dir_is_found(folder: Path) -> None:
    assert Blackbox("table", task="cats", data_dir=str(folder.parent)).r_max == 3


def test_off_the_grid_is_an_error_or_the_nearest_row_by_declaration(folder: Path) -> None:
    table = small_table()
    config = {**table.configs[4], "rate": table.configs[4]["rate"] * 1.01}
    with pytest.raises(ValueError, match=r"is not in the table .*off_grid=nearest"):
        curve(Blackbox(str(folder), task="cats"), config)
    nearest = Blackbox(str(folder), task="cats", off_grid="nearest")
    assert curve(nearest, config) == curve(nearest, table.configs[4])
    # A value that a float32 column rounded is still on the grid.
    rounded = {**table.configs[4], "rate": float(np.float32(table.configs[4]["rate"]))}
    assert Blackbox(str(folder), task="cats").row(rounded) == 4


def test_all_domains_of_the_format_are_understood(folder: Path) -> None:
    domains = json.loads((folder / "configspace.json").read_text())
    domains["width"] = {
        "domain_cls": "FiniteRange",
        "domain_kwargs": {"lower": 16, "upper": 256, "size": 3, "log_scale": True, "cast_int": True},
    }
    domains["layers"] = {"domain_cls": "OrdinalNearestNeighbor", "domain_kwargs": {"categories": [1, 2, 3, 4, 5], "log_scale": True}}
    (folder / "configspace.json").write_text(json.dumps(domains))
    table = blackbox_format.read(folder)
    assert tuple(table.space["width"].sequence) == (16, 64, 256)
    assert tuple(table.space["layers"].sequence) == (1, 2, 3, 4, 5)
    assert table.configs == small_table().configs


def test_a_seed_that_was_not_run_is_not_drawn(tmp_path: Path) -> None:
    table = small_table()
    table.values[0, 7, 0] = np.nan
    blackbox_format.write(tmp_path / "table", table)
    finals = {curve(Blackbox(str(tmp_path / "table"), task="cats", seed=s), table.configs[7])[-1].metric for s in range(9)}
    assert finals == {float(table.values[0, 7, 1, -1, 0])}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"task": "birds"}, "has no task 'birds'; valid are cats, dogs"),
        ({"task": None}, "has no task None; valid are cats, dogs"),
        ({"metric": "loss"}, "has no metric 'loss'; valid are error, time"),
        ({"mode": "up"}, "mode='up' is unknown"),
        ({"off_grid": "guess"}, "off_grid='guess' is unknown"),
        ({"folder": "nowhere"}, "folder='nowhere' does not exist"),
    ],
)
def test_bad_settings_are_one_sentence(folder: Path, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Blackbox(**{"folder": str(folder), "task": "cats", **settings})


def damaged(folder: Path, how: str) -> None:
    """Damage one file of the table."""
    values = np.load(folder / "objectives_evaluations.npy")
    if how == "nan":
        values[0, 2, 1, 1, 0] = np.nan
    elif how == "empty":
        values[0, 2] = np.nan
    elif how == "time":
        values[0, 2, 1, 1, 1] = 0.5
    elif how == "shape":
        values = values[:, :-1]
    np.save(folder / "objectives_evaluations.npy", values)
    if how == "epochs":
        np.save(folder / "fidelities_values.npy", np.array([1, 3, 4]))
    elif how == "cut":
        content = (folder / "objectives_evaluations.npy").read_bytes()
        (folder / "objectives_evaluations.npy").write_bytes(content[:200])
    elif how == "parquet":
        (folder / "hyperparameters.parquet").write_bytes(b"PAR1")
    elif how == "missing":
        (folder / "configspace.json").unlink()
    elif how == "category":
        text = (folder / "configspace.json").read_text()
        (folder / "configspace.json").write_text(text.replace('"tanh"', '"sine"'))
    elif how == "tasks":
        metadata = json.loads((folder / "metadata.json").read_text())
        (folder / "metadata.json").write_text(json.dumps({**metadata, "task_names": ["cats"]}))
    elif how == "twice":
        metadata = json.loads((folder / "metadata.json").read_text())
        (folder / "metadata.json").write_text(json.dumps({**metadata, "task_names": ["cats", "cats"]}))
    elif how == "list":
        (folder / "metadata.json").write_text("[]")
    elif how == "bounds":
        (folder / "configspace.json").write_text((folder / "configspace.json").read_text().replace('"lower"', '"least"'))
    elif how == "words":
        np.save(folder / "fidelities_values.npy", np.array(["one", "two", "three"]))
    elif how == "domain":
        text = (folder / "configspace.json").read_text()
        (folder / "configspace.json").write_text(text.replace('"LogUniform"', '"ReverseLogUniform"'))


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("nan", "1 configurations have a curve with cells that are no finite number, the first in row 2"),
        ("empty", "1 configurations have no curve at all, the first in row 2"),
        ("time", "the elapsed time must start at 0 or above and never fall"),
        ("shape", r"has shape \(2, 11, 2, 3, 2\), the other files say \(2 tasks, 12 configurations, seeds, 3 resources, 2 objectives\)"),
        ("tasks", r"has shape \(2, 12, 2, 3, 2\), the other files say \(1 tasks"),
        ("epochs", r"must be 1, 2, ..., r_max, but \[2\] are missing"),
        ("cut", "a file is damaged"),
        ("parquet", "a file is damaged"),
        ("missing", "the file configspace.json is missing"),
        ("category", "act='tanh' in hyperparameters.parquet lies outside configspace.json"),
        ("domain", "the domain Float with sampler ReverseLogUniform of 'rate' is not supported"),
        ("list", "does not have the form that the format asks for"),
        ("bounds", "does not have the form that the format asks for"),
        ("twice", "lists one of the task_names twice"),
        ("words", "its resources must be 1, 2, ..., r_max, but they are"),
    ],
)
def test_a_damaged_table_is_one_sentence(folder: Path, how: str, sentence: str) -> None:
    damaged(folder, how)
    with pytest.raises(ValueError, match=sentence) as caught:
        Blackbox(str(folder), task="cats")
    assert "\n" not in str(caught.value)


@pytest.fixture
def ragged(tmp_path: Path) -> Path:
    """As syne-tune's script for pd1 writes it: tasks with files of their own, and curves that end early filled up with nan."""
    table, folder = small_table(), tmp_path / "pd1"
    blackbox_format.write(tmp_path / "whole", table)
    folder.mkdir()
    for name in blackbox_format.FILES[:2]:
        shutil.copy(tmp_path / "whole" / name, folder)
    for number, (task, count) in enumerate((("cats", 12), ("dogs", 7))):
        values = np.array(table.values[number, :count, :1])
        values[3, :, 1:] = np.nan
        values[5] = np.nan
        names = blackbox_format.files_of(task)
        shutil.copy(tmp_path / "whole" / "fidelityspace.json", folder / names[2])
        pq.write_table(pq.read_table(tmp_path / "whole" / "hyperparameters.parquet").slice(0, count), folder / names[3])
        np.save(folder / names[4], np.arange(1, 4))
        np.save(folder / names[5], values)
    return folder


def test_tasks_with_files_of_their_own_are_read_and_their_short_curves_fail(ragged: Path) -> None:
    table, benchmark = small_table(), Blackbox(str(ragged), "dogs", short_curves="fail")
    assert benchmark.pool_size == 7 and benchmark.r_max == 3
    for row in (0, 6):
        assert [item.metric for item in curve(benchmark, table.configs[row])] == table.values[1, row, 0, :, 0].tolist()
    whole = [row for row in range(7) if row not in (3, 5)]
    assert benchmark.optimum == pytest.approx(table.values[1, whole, 0, -1, 0].min())
    short, none = (curve(benchmark, table.configs[row]) for row in (3, 5))
    assert np.isfinite([item.metric for item in short]).tolist() == [True, False, False]
    assert [item.seconds for item in short] == [2.0, 0.0, 0.0]
    assert np.isnan([item.metric for item in none]).all() and all(item.seconds == 0 for item in none)


def test_a_ragged_table_says_what_it_needs(ragged: Path) -> None:
    with pytest.raises(ValueError, match=r"its tasks have files of their own: choose benchmark.task of cats, dogs"):
        Blackbox(str(ragged))
    with pytest.raises(ValueError, match=r"its tasks have files of their own: choose benchmark.task of cats, dogs"):
        Blackbox(str(ragged), "birds")
    with pytest.raises(ValueError, match=r"finite number, the first in row 3 \(benchmark.short_curves=fail lets trials fail where their"):
        Blackbox(str(ragged), "cats")
    values = np.load(ragged / "cats-objectives_evaluations.npy")
    values[2, 0, 1, 0] = np.nan
    np.save(ragged / "cats-objectives_evaluations.npy", values)
    with pytest.raises(ValueError, match=r"1 configurations have a curve with cells that are no finite number, the first in row 2$"):
        Blackbox(str(ragged), "cats", short_curves="fail")


def test_a_space_that_the_format_cannot_say_is_refused(tmp_path: Path) -> None:
    table = small_table()
    space = build_space(SPACE)
    space.add(EqualsCondition(space["width"], space["act"], "relu"))
    with pytest.raises(ValueError, match=r"a benchmark table cannot hold this space: the format has no word for width \| act == 'relu'"):
        blackbox_format.write(tmp_path / "table", table._replace(space=space))


def test_writing_over_a_folder_or_a_contradiction_is_refused_and_leaves_nothing(folder: Path) -> None:
    with pytest.raises(ValueError, match="exists already"):
        blackbox_format.write(folder, small_table())
    with pytest.raises(ValueError, match="the other files say"):
        blackbox_format.write(folder.parent / "other", small_table()._replace(configs=small_table().configs[:3]))
    with pytest.raises(ValueError, match="metric_elapsed_time=None is none of"):
        timeless = {name: value for name, value in METADATA.items() if name != "metric_elapsed_time"}
        blackbox_format.write(folder.parent / "other", small_table()._replace(metadata=timeless))
    with pytest.raises(ValueError, match="not one of its values is a number"):
        blackbox_format.write(folder.parent / "other", small_table()._replace(values=np.full_like(small_table().values, np.nan)))
    assert [path.name for path in folder.parent.iterdir()] == ["table"]


@pytest.mark.skipif("MFGP_DATA_DIR" not in os.environ, reason="MFGP_DATA_DIR names no folder with the real table")
def test_a_table_written_by_the_original_library_is_read(tmp_path: Path) -> None:
    source = Path(os.environ["MFGP_DATA_DIR"]) / "blackbox_nasbench201_200"
    benchmark = Blackbox("blackbox_nasbench201_200", data_dir=os.environ["MFGP_DATA_DIR"])
    table = blackbox_format.read(source)
    raw = np.load(source / "objectives_evaluations.npy")
    assert (benchmark.r_max, benchmark.task, benchmark.metric, len(benchmark.space)) == (200, "cifar10", "metric_valid_error", 6)
    for row in (0, 57, 199):
        items = curve(benchmark, table.configs[row])
        np.testing.assert_array_equal([item.metric for item in items], raw[0, row, 0, :, 0])
        np.testing.assert_allclose(np.cumsum([item.seconds for item in items]), raw[0, row, 0, :, 1], rtol=1e-6)
    assert raw[..., 0].min() == pytest.approx(0.0863, abs=5e-5)  # as its authors' note states
    blackbox_format.write(tmp_path / "copy", table)
    shutil.copy(source / "SOURCE.txt", tmp_path / "copy")
    assert Blackbox(str(tmp_path / "copy")).optimum == benchmark.optimum
