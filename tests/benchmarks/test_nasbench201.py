"""The stand-in for NAS-Bench-201 keeps what is real in it, and its borrowed curves rank cells as real curves do."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.benchmarks.nasbench201 import EDGES, TASKS, NASBench201, validate
from schedulers.types import Benchmark, Job

DATA = os.environ.get("MFGP_DATA_DIR")
real_files = pytest.mark.skipif(DATA is None or not Path(DATA, "nasbench201").is_dir(), reason="needs MFGP_DATA_DIR/nasbench201")
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


def parsed(architecture: str) -> dict[str, str]:
    """The benchmark's own notation, |op~from|+|op~from|op~from|+..., read independently of the table's codes."""
    cell = {}
    for target, node in enumerate(architecture.split("+"), 1):
        for edge in node.strip("|").split("|"):
            operation, source = edge.split("~")
            cell[f"edge_{source}_{target}"] = operation
    return cell


@real_files
@pytest.mark.parametrize(
    ("task", "column", "published_best"), [("cifar10", 0, 91.61), ("cifar100", 1, 73.49), ("ImageNet16-120", 2, 46.73)]
)
def test_final_errors_and_times_are_the_real_ones(task: str, column: int, published_best: float) -> None:
    benchmark = NASBench201(task, seed=3, data_dir=DATA)
    assert isinstance(benchmark, Benchmark)
    assert 100 * (1 - benchmark.optimum) == pytest.approx(published_best, abs=0.01)
    with np.load(Path(str(DATA), "nasbench201", "nasbench201.npz")) as file:
        key = {"cifar10": "cifar10", "cifar100": "cifar100", "ImageNet16-120": "imagenet16"}[task]
        finals, seconds = file[f"val_acc_e200_{key}_seeds"], file["train_seconds_e200"][:, column]
        for row in (0, 17, 15624):
            errors, elapsed = benchmark.curve(parsed(str(file["arch_str"][row])))
            assert np.min(np.abs(finals[row][np.isfinite(finals[row])] - 100 * (1 - errors[-1]))) < 1e-5
            assert elapsed[-1] == pytest.approx(seconds[row])
            assert np.all((errors >= 0) & (errors <= 1))


@real_files
def test_the_whole_grid_is_there() -> None:
    benchmark = NASBench201(data_dir=DATA)
    assert list(benchmark.space) == sorted(f"edge_{edge}" for edge in EDGES)
    assert all(set(parameter.choices) == set(OPERATIONS) for parameter in benchmark.space.values())
    benchmark.space.seed(0)
    rows = {benchmark.row(config) for config in benchmark.space.sample_configuration(300)}
    assert 250 < len(rows) <= 300 and max(rows) < 5**6


@real_files
@pytest.mark.parametrize(("task", "published_best"), [("cifar10", 94.37), ("cifar100", 73.51), ("ImageNet16-120", 47.31)])
def test_test_errors_are_the_published_ones(task: str, published_best: float) -> None:
    benchmark = NASBench201(task, data_dir=DATA)
    with np.load(Path(str(DATA), "nasbench201", "nasbench201.npz")) as file:
        errors = [benchmark.test_metric(parsed(str(name))) for name in file["arch_str"]]
    assert 100 * (1 - min(errors)) == pytest.approx(published_best, abs=0.01)


@real_files
def test_a_space_of_the_best_cells_of_another_task_has_these_and_no_others() -> None:
    few, everything = NASBench201("cifar10", best_on="cifar100", number=10, data_dir=DATA), NASBench201("cifar10", data_dir=DATA)
    (cell,) = few.space.values()
    assert len(cell.choices) == 10 and few.pool_size == everything.pool_size
    with np.load(Path(str(DATA), "nasbench201", "nasbench201.npz")) as file:
        best = set(np.argsort(-np.nanmean(file["val_acc_e200_cifar100_seeds"], axis=1))[:10].tolist())
    assert {few.row({"cell": name}) for name in cell.choices} == best
    with pytest.raises(ValueError, match="benchmark.number=1 must be from 2 to 15625"):
        NASBench201(best_on="cifar100", number=1, data_dir=DATA)
    spelt = dict(zip((f"edge_{edge}" for edge in EDGES), str(cell.choices[0]).split("|"), strict=True))
    assert np.array_equal(few.curve({"cell": cell.choices[0]})[0], everything.curve(spelt)[0])


@real_files
def test_borrowed_curves_rank_unseen_cells_about_as_their_real_curves_do() -> None:
    found = validate(str(DATA))
    for epoch, real in found["rank, real"].items():
        assert found["rank, model"][epoch] == pytest.approx(real, abs=0.15)
        assert 0.7 < found["spread, model"][epoch] / found["spread, real"][epoch] < 1.4


@real_files
def test_a_seed_chooses_the_repetition_and_nothing_else() -> None:
    first, again, other = (NASBench201(seed=seed, data_dir=DATA) for seed in (0, 0, 1))
    config = first.space.get_default_configuration()
    assert np.array_equal(first.curve(config), again.curve(config))
    first.space.seed(0)
    configs = first.space.sample_configuration(20)
    assert not all(first.curve(c)[0][-1] == other.curve(c)[0][-1] for c in configs)
    pieces = [p.metric for start, stop in ((0, 3), (3, 200)) for p in first.train(Job(0, config, start, stop))]
    assert pieces == list(first.curve(config)[0])


def test_an_unknown_task_and_a_missing_or_damaged_file_are_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"benchmark.task='svhn' is unknown; valid are {', '.join(TASKS)}"):
        NASBench201("svhn")
    with pytest.raises(ValueError, match=f"benchmark.best_on='svhn' is unknown; valid are {', '.join(TASKS)}"):
        NASBench201(best_on="svhn")
    with pytest.raises(ValueError, match="set data_dir or benchmark.folder, or read the table with real curves"):
        NASBench201(data_dir=str(tmp_path))
    (tmp_path / "nasbench201").mkdir()
    (tmp_path / "nasbench201" / "nasbench201.npz").write_bytes(b"PK\x03\x04 not a table")
    with pytest.raises(ValueError, match=r"nasbench201.npz is damaged or another table"):
        NASBench201(data_dir=str(tmp_path))


@real_files
@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("lc_cifar10_val_acc", lambda a: np.where(np.arange(200) == 49, np.nan, a), "lc_cifar10_val_acc has cells that are no number"),
        ("lc_cifar10_val_acc", lambda a: a[:, :150], r"lc_cifar10_val_acc has shape \(200, 150\); \(200, 200\) is expected"),
        ("val_acc_e200_cifar100_seeds", lambda a: a[5:], r"val_acc_e200_cifar100_seeds has shape \(15620, 3\); \(15625, 3\) is expected"),
        ("train_seconds_e200", lambda a: a[:, :2], r"train_seconds_e200 has shape \(15625, 2\); \(15625, 3\) is expected"),
        ("test_acc_e200_seedmean", lambda a: a * np.nan, "test_acc_e200_seedmean has cells that are no number"),
        ("lc_arch_index", lambda a: a + 15500, "lc_arch_index must number some of the 15625 cells, each once"),
        ("op_names", lambda a: a[:4], "does not hold all 4096 cells"),
    ],
)
def test_a_table_that_does_not_fit_together_is_said_in_one_sentence(tmp_path: Path, name: str, damage: Any, message: str) -> None:
    with np.load(Path(str(DATA), "nasbench201", "nasbench201.npz"), allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    np.savez(tmp_path / "nasbench201.npz", **arrays | {name: damage(arrays[name])})
    with pytest.raises(ValueError, match=message) as caught:
        NASBench201(folder=str(tmp_path))
    assert "\n" not in str(caught.value)
