"""A user's script is found, its yields are passed on, and what cannot be imported is said in one sentence."""

import functools
import math
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.benchmarks.function import Function
from schedulers.types import Benchmark, Job

SPACE = {"hyperparameters": {"x": {"type": "uniform_float", "lower": 0, "upper": 1}, "n": {"type": "uniform_int", "lower": 1, "upper": 9}}}
EXAMPLES = Path(__file__).parents[2] / "examples"
HERE = __name__


def training(config: dict[str, Any], r_from: int, r_to: int, checkpoint_dir: str | None) -> Iterator[tuple[int, float]]:
    for r in range(r_from + 1, r_to + 1):
        yield r, config["x"] / r


def odd_training(config: dict[str, Any], r_from: int, r_to: int, checkpoint_dir: str | None) -> Iterator[Any]:
    yield from ((1, None), (2, math.nan), (1, 0.5), 0.25, None)


def number(config: dict[str, Any]) -> float:
    assert {type(value) for value in config.values()} == {float, int}
    return config["x"] * config["n"]


def number_of_epochs(config: dict[str, Any], r_from: int, r_to: int, checkpoint_dir: str | None) -> float:
    return float(r_to)


def two_arguments(config: dict[str, Any], r_to: int) -> Iterator[tuple[int, float]]:
    yield r_to, 0.0


@functools.wraps(training)
def decorated(*arguments: Any) -> Any:
    return training(*arguments)


class Trainer:
    def __call__(self, config: dict[str, Any], r_from: int, r_to: int, checkpoint_dir: str | None) -> Iterator[tuple[int, float]]:
        yield from training(config, r_from, r_to, checkpoint_dir)


trainer = Trainer()
not_callable = 3


def items(benchmark: Function, r_from: int = 0, r_to: int = 3, checkpoint_dir: str | None = None) -> list[Any]:
    return list(benchmark.train(Job(0, {"x": np.float64(0.5), "n": np.int64(4)}, r_from, r_to), checkpoint_dir))


@pytest.mark.parametrize("name", ["training", "decorated", "trainer", "Trainer.__call__"])
def test_what_yields_is_passed_on_with_its_seconds(name: str) -> None:
    if name == "Trainer.__call__":
        with pytest.raises(ValueError, match="must accept the arguments"):
            Function(f"{HERE}:{name}", SPACE)  # an unbound method wants one argument more
        return
    benchmark = pickle.loads(pickle.dumps(Function(f"{HERE}:{name}", SPACE)))
    assert isinstance(benchmark, Benchmark)
    assert not benchmark.full_fidelity
    assert [(item.r, item.metric) for item in items(benchmark, 1, 3)] == [(2, 0.25), (3, 0.5 / 3)]
    assert all(item.seconds >= 0 for item in items(benchmark))


def test_odd_yields_are_left_for_the_backend_to_judge() -> None:
    first, second, third, *others = items(Function(f"{HERE}:odd_training", SPACE))
    assert (first.r, first.metric) == (1, None)
    assert second.r == 2 and math.isnan(second.metric)
    assert third[:2] == (1, 0.5)
    assert others == [0.25, None]


def test_a_plain_function_is_reported_once_at_r_max_with_plain_values() -> None:
    benchmark = Function(f"{HERE}:number", SPACE, r_max=9, mode="max")
    assert benchmark.full_fidelity
    (item,) = items(benchmark, r_to=9)
    assert (item.r, item.metric) == (9, 2.0)
    (item,) = items(Function(f"{HERE}:number_of_epochs", SPACE, r_max=5), r_to=5)
    assert (item.r, item.metric) == (5, 5.0)
    with pytest.raises(ValueError, match="cannot stop at 3 of 9; use scheduler=fifo"):
        items(benchmark, r_to=3)


def test_the_working_directory_is_searched_and_travels_to_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "found_here.py").write_text("def f(config):\n    return 7.5\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    pickled = pickle.dumps(Function("found_here:f", SPACE, r_max=1))
    program = (
        "import pickle, sys; from schedulers.types import Job\n"
        "print(next(pickle.load(sys.stdin.buffer).train(Job(0, {'x': .5, 'n': 1}, 0, 1), None)).metric)"
    )
    root = Path(__file__).parents[2]
    answer = subprocess.run([sys.executable, "-c", program], input=pickled, cwd=root, capture_output=True, check=True, timeout=60)
    assert float(answer.stdout) == 7.5


def test_a_file_is_a_target_and_finds_its_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my-script.py").write_text("from its_neighbour import VALUE\n\ndef f(config):\n    return VALUE\n")
    (tmp_path / "its_neighbour.py").write_text("VALUE = 2.5\n")
    benchmark = Function(f"{tmp_path / 'my-script.py'}:f", SPACE, r_max=1)
    assert [item.metric for item in items(benchmark, r_to=1)] == [2.5]


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("no_colon", "must read package.module:name or file.py:name"),
        ("no_such_package.module:f", "there is no module 'no_such_package'"),
        ("experiments.no_such_module:f", "there is no module 'experiments.no_such_module'"),
        (f"{HERE}:nothing", "has no attribute 'nothing'"),
        (f"{HERE}:not_callable", "is no function but a int"),
        (f"{HERE}:two_arguments", r"must accept the arguments \(config, r_from, r_to, checkpoint_dir\), but it is two_arguments\(config"),
        ("nowhere.py:f", "nowhere.py does not exist"),
    ],
)
def test_a_target_that_cannot_be_had_is_one_sentence(target: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        Function(target, SPACE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("import no_such_library\n", "failed: ModuleNotFoundError: No module named 'no_such_library'"),
        ("1 / 0\n", "failed: ZeroDivisionError: division by zero"),
        ("def f(:\n", "failed: SyntaxError"),
        ("raise SystemExit('usage')\n", "failed: SystemExit: usage"),
    ],
)
@pytest.mark.parametrize("as_file", [True, False])
def test_an_import_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, sentence: str, as_file: bool) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"broken_{abs(hash(content))}"
    (tmp_path / f"{name}.py").write_text(content)
    with pytest.raises(ValueError, match=sentence) as caught:
        Function(f"{name}.py:f" if as_file else f"{name}:f", SPACE)
    assert "\n" not in str(caught.value)
    assert name not in sys.modules


def test_bad_settings_are_one_sentence() -> None:
    with pytest.raises(ValueError, match="mode='maximum' is unknown; valid are min and max"):
        Function(f"{HERE}:number", SPACE, mode="maximum")
    with pytest.raises(ValueError, match="r_max=0 must be at least 1"):
        Function(f"{HERE}:number", SPACE, r_max=0)


def test_the_example_learns_and_resumes_its_curve_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    benchmark = Function(f"{EXAMPLES / 'train_sgd.py'}:train", EXAMPLES / "space.yaml", r_max=9)
    config = dict(benchmark.space.get_default_configuration())
    curve = [[item.metric for item in benchmark.train(Job(0, config, *part), str(tmp_path))] for part in ((0, 5), (0, 2), (2, 5))]
    assert curve[0] == curve[1] + curve[2]
    assert min(curve[0]) < 0.15
