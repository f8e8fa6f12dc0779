"""A design is trained once, slice by slice, and its table is the benchmark's own curves."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from experiments import tabulate
from experiments.benchmarks import blackbox_format
from experiments.benchmarks.blackbox import Blackbox
from experiments.overrides import composed
from schedulers.types import Job

CURVES = ["benchmark=curves", "benchmark.r_max=5", "benchmark.noise=0"]


def arguments(tmp_path: Path, **changes: object) -> list[str]:
    return [f"{k}={v}" for k, v in ({"out": tmp_path / "table", "configs": 7, "slice": 3, "processes": 1} | changes).items()]


def test_the_table_is_the_benchmarks_own_curves(tmp_path: Path) -> None:
    assert tabulate.main([*CURVES, *arguments(tmp_path)]) == 0
    table = blackbox_format.read(tmp_path / "table")
    original = tabulate.make_benchmark(composed(CURVES))
    tabulated = Blackbox(str(tmp_path / "table"))
    assert table.values.shape == (1, 7, 1, 5, 2) and tabulated.r_max == 5
    for config in table.configs:
        pairs = zip(original.train(Job(0, config, 0, 5), None), tabulated.train(Job(0, config, 0, 5)), strict=True)
        for expected, found in pairs:
            assert found.metric == pytest.approx(expected.metric, rel=1e-5)
            assert found.seconds == pytest.approx(expected.seconds, rel=1e-4)


def test_an_interrupted_design_goes_on_and_ends_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tabulate.main([*CURVES, *arguments(tmp_path, out=tmp_path / "whole")])
    whole = np.load(tmp_path / "whole" / "objectives_evaluations.npy")
    tabulate.main([*CURVES, *arguments(tmp_path)])
    finished = sorted((tmp_path / "table.parts").glob("*.npy"))
    assert len(finished) == 3
    finished[1].unlink()
    before = {path: path.stat().st_mtime_ns for path in (finished[0], finished[2])}
    (tmp_path / "table").rename(tmp_path / "gone")
    tabulate.main([*CURVES, *arguments(tmp_path)])
    assert np.array_equal(np.load(tmp_path / "table" / "objectives_evaluations.npy"), whole)
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker ends with its slice")
def test_no_worker_outlives_the_command(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import os, time\n\n\ndef train(config, r_from, r_to, checkpoint_dir):\n"
        "    open(os.path.join(os.environ['WHERE'], str(os.getpid())), 'w').close()\n    time.sleep(600)\n    yield 1, 0.0\n"
    )
    (tmp_path / "space.yaml").write_text("hyperparameters: {x: {type: uniform_float, lower: 0.0, upper: 1.0}}\n")
    slow = [f"benchmark.target={tmp_path / 'slow.py'}:train", f"benchmark.space={tmp_path / 'space.yaml'}", "benchmark.r_max=1"]
    command = [sys.executable, "-m", "experiments.tabulate", "benchmark=function", *slow, *arguments(tmp_path, processes=2)]
    (tmp_path / "pids").mkdir()
    with subprocess.Popen(command, env=os.environ | {"WHERE": str(tmp_path / "pids")}, cwd=Path(__file__).parents[2]) as running:
        try:
            assert becomes(lambda: len(list((tmp_path / "pids").iterdir())) == 2, seconds=60)
        finally:
            running.kill()
    workers = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    assert becomes(lambda: not any(map(runs, workers)), seconds=10)


def runs(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"  # one that nobody has waited for yet
    except OSError:
        return False


def becomes(true: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return true()


def test_networks_trained_together_make_the_table_that_they_make_alone(tmp_path: Path) -> None:
    # Learning rates at which float32's rounding does not grow into another curve.
    tame = "benchmark.space.hyperparameters.learning_rate={type: uniform_float, lower: 1e-4, upper: 1e-3, log: true}"
    narrow = [f"benchmark.space.hyperparameters.units_{i}.upper=24" for i in (1, 2)]
    overrides = ["benchmark=mlp", "benchmark.dataset=wine", "benchmark.r_max=2", tame, *narrow]
    assert tabulate.main([*overrides, *arguments(tmp_path, configs=3, together=3)]) == 0
    table = blackbox_format.read(tmp_path / "table")
    benchmark = tabulate.make_benchmark(composed(overrides))
    alone = np.array([[p.metric for p in benchmark.train(Job(0, config, 0, 2), None)] for config in table.configs])
    np.testing.assert_allclose(table.values[0, :, 0, :, 0], alone, atol=1e-5)
    assert len(np.unique(alone)) > 2 and (np.diff(table.values[..., 1], axis=3, prepend=0) > 0).all()


def test_a_longer_design_begins_with_a_shorter_one() -> None:
    benchmark = tabulate.make_benchmark(composed(CURVES))
    assert tabulate.design(benchmark, 0, 70)[:5] == tabulate.design(benchmark, 0, 5)
    assert tabulate.design(benchmark, 1, 5) != tabulate.design(benchmark, 0, 5)


def test_a_shorter_table_of_the_design_is_made_longer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["benchmark=mlp", "benchmark.dataset=wine", "benchmark.r_max=2"]
    # Rates at which some networks diverge, and not only in the first half.
    wild = "benchmark.space.hyperparameters.learning_rate={type: uniform_float, lower: 1e-3, upper: 1e18, log: true}"
    assert tabulate.main([*overrides, wild, *arguments(tmp_path, out=tmp_path / "whole", configs=8)]) == 0
    assert tabulate.main([*overrides, wild, *arguments(tmp_path, configs=4)]) == 0
    for path in (tmp_path / "table.parts").glob("*.npy"):
        path.unlink()  # the table is all that is left
    assert tabulate.main([*overrides, wild, *arguments(tmp_path, configs=8)]) == 0
    whole, longer = (blackbox_format.read(tmp_path / name) for name in ("whole", "table"))
    assert longer.configs == whole.configs and longer.metadata == whole.metadata
    assert np.array_equal(longer.values[..., 0], whole.values[..., 0])
    rows = [row for row, _ in longer.metadata["design"]["diverged"]]
    assert min(rows) < 4 <= max(rows) and len(rows) < 8
    (tmp_path / "table").rename(tmp_path / "table.longer")  # killed before the longer one was in place
    capsys.readouterr()
    assert tabulate.main([*overrides, wild, *arguments(tmp_path, configs=8)]) == 2
    assert "has 8 configurations already" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table", "table.parts", "whole", "whole.parts"]
    (tmp_path / "table.longer").mkdir()  # whosever it is, nothing is removed
    assert tabulate.main([*overrides, wild, *arguments(tmp_path, configs=9)]) == 2
    assert "table.longer is where a longer table would be written" in capsys.readouterr().err
    (tmp_path / "table.longer").rmdir()
    assert blackbox_format.read(tmp_path / "table").configs == whole.configs
    for given, message in (
        ([*overrides, wild], "has 8 configurations already: ask for more than that"),
        ([*overrides, wild, "seed=1"], "is no shorter table of this design"),
        (overrides, "is no shorter table of this design"),
    ):
        assert tabulate.main([*given, *arguments(tmp_path, configs=8)]) == 2
        assert message in capsys.readouterr().err


def test_a_diverged_curve_holds_the_worst_value() -> None:
    values = np.array([[[0.5, 1], [0.3, 2]], [[0.9, 1], [np.nan, 2]]], np.float32)
    assert tabulate._fill(values, "min") == [[1, 2]]
    assert values[1, 1, 0] == np.float32(0.9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"configs": 0}, "configs=0 must be a whole number of at least 1"),
        (
            {"out": "."},
            "out=. exists already and is no table that could be made longer (benchmark table .: the file metadata.json is missing)",
        ),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, changes: dict[str, object], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert tabulate.main([*CURVES, *arguments(tmp_path, **changes)]) == 2
    assert message in capsys.readouterr().err


def test_what_no_table_can_hold_is_said_before_anything_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    momentum = {"type": "uniform_float", "name": "momentum", "lower": 0, "upper": 1}
    optimiser = {"type": "categorical", "name": "optimiser", "choices": ["adam", "sgd"]}
    condition = {"type": "EQ", "child": "momentum", "parent": "optimiser", "value": "sgd"}
    space = tmp_path / "space.json"
    space.write_text(json.dumps({"hyperparameters": [optimiser, momentum], "conditions": [condition]}))
    function = ["benchmark=function", "benchmark.target=examples/train_sgd.py:train", f"benchmark.space={space}", "benchmark.r_max=3"]
    assert tabulate.main([*function, *arguments(tmp_path)]) == 2
    assert "a benchmark table cannot hold this space: the format has no word for momentum | optimiser ==" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [space]


def test_a_missing_setting_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tabulate.main(["benchmark=blackbox", *arguments(tmp_path)]) == 2
    assert "error: benchmark.folder is missing: give it as benchmark.folder=..." in capsys.readouterr().err


def test_slices_of_other_settings_are_not_mixed_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tabulate.main([*CURVES, *arguments(tmp_path)])
    (tmp_path / "table").rename(tmp_path / "gone")
    assert tabulate.main([*CURVES, "seed=1", *arguments(tmp_path)]) == 2
    assert "holds slices of other settings" in capsys.readouterr().err
