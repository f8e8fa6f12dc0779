"""One simulated study in memory: what `python -m experiments.main backend=simulated <overrides> seed=<n>` would do, without its folder."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from experiments.code import commit
from experiments.resolved import resolved
from experiments.runtime import machine
from schedulers.types import Benchmark, Event, Job, Recording

EVENTS = pa.schema(
    [
        ("kind", pa.string()),  # job, report or retry
        ("time", pa.float64()),
        ("trial", pa.int32()),
        ("bracket", pa.int32()),
        ("worker", pa.int32()),
        ("r", pa.int32()),  # of a job: where it starts
        ("metric", pa.float64()),  # minimised; null: a job, or a trial that failed
        ("seconds", pa.float64()),
        ("decision", pa.string()),
        ("final", pa.float64()),  # of a report that became the incumbent: what its configuration reaches at r_max
        ("test", pa.float64()),  # and its test metric, where the benchmark has one
        ("decide_seconds", pa.float64()),  # what the answer took, as the simulated clock has it
    ]
)


class Nothing:
    """A log that keeps nothing: a simulated study can be repeated."""

    def append(self, event: Event) -> None:
        pass


def simulate(cfg: Any, seed: int, answer: Callable[[Any], Any] | None = None, together: int = 1) -> pa.Table:
    """The events of the study that the composed configuration `cfg` describes; its metadata say how they came about.

    `answer`: who answers the model-based searcher's requests (`GPSearcher.answer_with`) if not the searcher itself.
    `together`: how many studies share the time that this one takes.
    """
    from experiments.build import build, table_of
    from schedulers.run import run

    cfg = cfg.copy()
    cfg.seed = seed
    began = time.perf_counter()
    parts = build(cfg, Path(), Recording([]), answer)
    if not parts.is_simulated:
        raise ValueError("a grid simulates its studies: backend must be simulated")
    built = time.perf_counter()
    fold, backend, num_reports = _Fold(parts.benchmark), parts.backend(), 0
    for event in run(parts.scheduler, backend, Nothing(), retries=parts.retries):
        fold.event(event)
        num_reports += event.kind == "report"
        if parts.budget.reports is not None and num_reports >= parts.budget.reports:
            break
    backend.close()
    done = time.perf_counter()
    meta = {
        "seed": seed,
        "commit": commit(),
        "settings": resolved(cfg),
        "r_max": parts.benchmark.r_max,
        "levels": list(parts.levels),
        "workers": parts.num_workers,
        **table_of(parts.benchmark),
        "seconds": parts.budget.seconds,
        "host_seconds": {"build": built - began, "run": done - built},
        "together": together,
        "versions": {name: version(name) for name in ("jax", "numpy")},
        **machine(),
    }
    return fold.table().replace_schema_metadata({"study": json.dumps(meta)})


class _Fold:
    """Events as rows of EVENTS."""

    def __init__(self, benchmark: Benchmark) -> None:
        self._rows: list[tuple[Any, ...]] = []
        self._benchmark, self._best = benchmark, math.inf
        self._finals: dict[int, float] = {}

    def table(self) -> pa.Table:
        columns = zip(*self._rows, strict=True) if self._rows else [()] * len(EVENTS)
        return pa.table([pa.array(column, field.type) for column, field in zip(columns, EVENTS, strict=True)], schema=EVENTS)

    def event(self, event: Event) -> None:
        report, job, verdict = event.report, event.job, event.verdict
        r, seconds = (job.r_from, None) if report is None else (report.r, report.seconds)
        metric = report.metric if report is not None and math.isfinite(report.metric) else None
        final = test = None
        if metric is not None and metric < self._best:
            self._best = metric
            final = self._final(job)
            test = self._benchmark.test_metric(job.config) if hasattr(self._benchmark, "test_metric") else None
        decision = None if verdict is None else verdict.decision.value
        row = (event.kind, event.time, job.trial_id, job.bracket, event.worker, r, metric, seconds, decision, final, test)
        self._rows.append((*row, event.decide_seconds))

    def _final(self, job: Job) -> float | None:
        """The minimised metric that a trial's configuration reaches at r_max; a table knows it whether or not the study got there."""
        if job.trial_id not in self._finals:
            last = self._benchmark.r_max
            *_, progress = self._benchmark.train(Job(job.trial_id, job.config, last - 1, last), None)
            self._finals[job.trial_id] = progress.metric * (1 if self._benchmark.mode == "min" else -1)
        return self._finals[job.trial_id]


def has_model(cfg: Any) -> bool:
    """Whether a study's searcher asks for suggestions in the way that lock step answers (searcher=gp and its relatives)."""
    return "num_fantasies" in cfg.searcher and "acquisition" in cfg.searcher
