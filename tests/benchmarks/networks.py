"""What must hold of every network that trains, as functions that the tests of each of them call."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from schedulers.types import Benchmark, Job

CONF = Path(__file__).parents[2] / "conf" / "benchmark"


def space_of(name: str, **constants: Any) -> dict[str, Any]:
    """The space of conf/benchmark/NAME.yaml with some of its parameters constant."""
    space: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml").space)
    fixed = {key: {"type": "constant", "value": value} for key, value in constants.items()}
    return {**space, "hyperparameters": {**space["hyperparameters"], **fixed}}


def curve(benchmark: Benchmark, config: dict[str, Any], r_from: int = 0, r_to: int = 3, folder: Path | None = None) -> list[float]:
    items = list(benchmark.train(Job(0, config, r_from, r_to), None if folder is None else str(folder)))
    assert [item.r for item in items] == list(range(r_from + 1, r_to + 1))
    assert all(item.seconds > 0 for item in items)
    return [item.metric for item in items]


def check_contract(make: Any, config: dict[str, Any], tmp_path: Path) -> list[float]:
    """`make(seed=...)` is a benchmark; its curve repeats, differs by seed, and resumes exactly. Returns the curve of 3 epochs."""
    benchmark = make()
    assert isinstance(benchmark, Benchmark)
    assert len(pickle.dumps(benchmark)) < 50_000
    whole = curve(pickle.loads(pickle.dumps(benchmark)), config)
    assert np.isfinite(whole).all()
    numpy_config = {name: np.asarray(value)[()] for name, value in config.items()}
    assert curve(benchmark, numpy_config, 0, 1, tmp_path) + curve(benchmark, config, 1, 3, tmp_path) == whole
    assert curve(make(seed=1), config) != whole
    return whole
