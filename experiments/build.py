"""From a composed configuration to the plain objects of a study; every mistake of the user's is found here, before anything runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from experiments.deadline import Deadline
from experiments.programs import keep_programs
from experiments.runtime import place_surrogate, trial_environment
from schedulers.asha import AsyncHyperband
from schedulers.encoding import Encoding
from schedulers.searchers.random import RandomSearcher
from schedulers.searchers.wrappers import PoolLimit, Recorded, TrialLimit, fifth
from schedulers.types import Backend, Benchmark, Recording, Scheduler, Searcher, Slot


@dataclass(frozen=True)
class Budget:
    """Limits of a study; None: none."""

    seconds: float | None
    trials: int | None
    reports: int | None


@dataclass(frozen=True)
class Parts:
    """A study, ready to run but for its backend, whose workers start when `backend` is called."""

    benchmark: Benchmark
    scheduler: Scheduler
    levels: tuple[int, ...]
    num_workers: int
    budget: Budget
    retries: int
    is_simulated: bool
    backend: Callable[..., Backend]
    deadline: Deadline | None = None  # where suggestions are made in advance

    def look_ahead(self) -> None:
        """Begin with the next suggestion while the workers train; to be called when a job has begun."""
        if self.deadline is None or not hasattr(self.scheduler, "next_slot"):
            return
        slot: Slot = self.scheduler.next_slot()
        if self.budget.trials is None or slot.trial_id < self.budget.trials:
            self.deadline.prepare(self.scheduler.history, slot)

    def finish(self) -> None:
        if self.deadline is not None:
            self.deadline.finish()


def build(cfg: DictConfig, folder: Path, recording: Recording, answer: Callable[[Any], Any] | None = None) -> Parts:
    """The parts of the study that `cfg` describes, which repeats `recording` first.

    `answer`: who answers a model-based searcher's requests, if not the searcher itself.

    Raises ValueError with one sentence that names the setting, its value and what would be valid.
    """
    place_surrogate(cfg.get("surrogate_device", "cpu"))  # studies of before this setting have none
    check_complete(cfg)
    budget = _budget(cfg)
    _whole("seed", cfg.seed, 0)
    benchmark: Benchmark = _call(_make(cfg, "benchmark"), "benchmark")
    # A table knows its own r_max; what refers to it in the configuration is to see the same.
    cfg = cfg.copy()
    OmegaConf.update(cfg, "benchmark.r_max", benchmark.r_max, force_add=True)
    backend = _make(cfg, "backend")
    is_simulated = bool(backend.func.is_simulated)
    environment = trial_environment()
    asked = None if cfg.workers is None else _whole("workers", cfg.workers, 1)
    num_workers = _call(partial(backend.func.num_workers, asked, environment), "backend", **backend.keywords)
    searcher = _searcher(cfg, benchmark, is_simulated)
    if is_simulated and isinstance(searcher, RandomSearcher) and hasattr(benchmark, "expect"):
        searcher.announce_to(benchmark.expect)  # a surrogate benchmark evaluates many configurations at once
    if answer is not None and hasattr(searcher, "answer_with"):
        searcher.answer_with(answer)
    # A guide (of hypertune, say) may also be asked to weigh brackets at any time, which would be two threads at once.
    is_ahead = _flag("suggest_ahead", cfg.get("suggest_ahead", False)) and "guide" not in cfg.searcher
    deadline = searcher if is_ahead and isinstance(searcher, Deadline) else None
    pool_size = getattr(benchmark, "pool_size", None)
    if pool_size is not None:
        _check_grid(benchmark, pool_size)
        if budget.trials is not None and budget.trials > fifth(pool_size):
            raise ValueError(
                f"budget.trials={budget.trials} is more than a fifth of the table's {pool_size} configurations: "
                f"it must be at most {fifth(pool_size)}"
            )
        searcher = PoolLimit(searcher, pool_size)
    if budget.trials is not None:
        searcher = TrialLimit(searcher, budget.trials)
    scheduler = _scheduler(cfg, benchmark, Recorded(searcher, recording))
    levels = scheduler.history.levels
    if budget.reports is not None and budget.reports < levels[0]:
        raise ValueError(f"budget.reports={budget.reports} ends before the first milestone: it must be at least r_min={levels[0]}")
    settings: dict[str, Any] = {"deadline": budget.seconds}
    if is_simulated:
        settings["recorded_decisions"] = [event.decide_seconds for event in recording.events if event.kind != "retry"]
    else:
        settings |= {"folder": folder, "environment": environment}
    bound = _bound(backend, benchmark, num_workers, settings)
    if is_simulated:
        _call(bound, "backend")  # its settings are checked before anything begins
    return Parts(benchmark, scheduler, levels, num_workers, budget, _whole("retries", cfg.retries, 0), is_simulated, bound, deadline)


def check_complete(cfg: DictConfig) -> None:
    """Raise for a setting of the benchmark that has to be given and was not."""
    for name in sorted(OmegaConf.missing_keys(cfg.benchmark)):
        raise ValueError(f"{name} is missing: give it as {name}=... (see conf/benchmark/ for what it means)")


def _check_grid(benchmark: Any, pool_size: int) -> None:
    if getattr(benchmark, "off_grid", None) == "error" and Encoding(benchmark.space).size > pool_size:
        raise ValueError(
            f"benchmark.off_grid=error: the table's {pool_size} configurations are not all of its space, and others would be proposed; "
            "nearest gives these the curve of the nearest one, pool makes searchers propose the table's only"
        )


def table_of(benchmark: Any) -> dict[str, Any]:
    """For the records of a study on a table: how many configurations there are, what became of others, and a digest of what it holds."""
    return {name: getattr(benchmark, name) for name in ("pool_size", "off_grid", "digest") if hasattr(benchmark, name)}


def _bound(backend: Any, benchmark: Benchmark, num_workers: int, settings: Mapping[str, Any]) -> Callable[..., Backend]:
    return lambda **more: backend(benchmark=benchmark, num_workers=num_workers, **settings, **more)


def _searcher(cfg: DictConfig, benchmark: Benchmark, is_simulated: bool) -> Searcher:
    searcher: Searcher = _call(_make(cfg, "searcher"), "searcher", space=benchmark.space)
    if "mfgp" in sys.modules:  # the searcher has a model
        keep_programs()
    if is_simulated:  # a watchdog would make the outcome depend on the host's speed
        return searcher
    fallback = RandomSearcher(benchmark.space, seed=cfg.seed, default_first=False)
    return Deadline(searcher, fallback, _positive("suggest_timeout", cfg.suggest_timeout))


def scheduler_of(cfg: DictConfig, benchmark: Benchmark, searcher: Searcher) -> Scheduler:
    """The scheduler of the study that `cfg` describes, with another searcher (for `experiments.explain`)."""
    cfg = cfg.copy()
    OmegaConf.update(cfg, "benchmark.r_max", benchmark.r_max, force_add=True)
    return _scheduler(cfg, benchmark, searcher)


def _scheduler(cfg: DictConfig, benchmark: Benchmark, searcher: Searcher) -> Scheduler:
    make = _make(cfg, "scheduler")
    if getattr(benchmark, "full_fidelity", False):  # one number per trial: there is nothing to judge before r_max
        return AsyncHyperband(searcher, r_min=benchmark.r_max, r_max=benchmark.r_max, seed=cfg.seed)
    scheduler: Scheduler = _call(make, "scheduler", searcher=searcher)
    return scheduler


def _make(cfg: DictConfig, group: str) -> Any:
    """The constructor of the object that `group` describes, with its settings bound."""
    try:
        return instantiate(cfg[group], _partial_=True)
    except InstantiationException as error:
        cause = error.__cause__ or error
        raise ValueError(f"{group}: {cause}") from error


def _call(make: Any, group: str, **runtime: Any) -> Any:
    try:
        return make(**runtime)
    except TypeError as error:
        raise ValueError(f"{group}: {error}; see conf/{group}/ for the settings it takes") from error


def _budget(cfg: DictConfig) -> Budget:
    limits = OmegaConf.to_container(cfg.budget, resolve=True)
    assert isinstance(limits, dict)
    if limits["seconds"] is not None:
        _positive("budget.seconds", limits["seconds"])
    for name in ("trials", "reports"):
        if limits[name] is not None:
            _whole(f"budget.{name}", limits[name], 1)
    return Budget(limits["seconds"], limits["trials"], limits["reports"])


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value} must be true or false")
    return value


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value} must be a whole number of at least {least}")
    return value


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"{name}={value} must be a positive number of seconds")
    return float(value)
