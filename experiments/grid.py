"""Many simulated studies: a grid of settings x seeds in memory, over processes, each stored once and never computed again.

A study is what `python -m experiments.main backend=simulated <overrides> seed=<n>` would do, without its folder. Its events become one
parquet file, named after the overrides, so that figures which share a study share its file, and an interrupted grid goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from experiments.code import commit
from experiments.runtime import machine
from schedulers.backends.process import end_with_parent
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


class Study(NamedTuple):
    """A study of the grid: the overrides of conf/main.yaml that describe it, and its seed."""

    overrides: tuple[str, ...]
    seed: int

    @property
    def path(self) -> Path:
        digest = hashlib.blake2b(json.dumps(sorted(self.overrides)).encode(), digest_size=10).hexdigest()
        return Path(digest, f"seed-{self.seed}.parquet")


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


def run_grid(
    studies: Iterable[Study],
    store: Path,
    compose: Callable[[Sequence[str]], Any],
    processes: int = 1,
    say: Callable[[str], None] = print,
    together: int = 1,
) -> dict[Study, pa.Table]:
    """The events of every study, from the store where they are there already. `compose` makes a configuration of overrides.

    Studies of one set of overrides are handed out together, so that a process compiles its programs once. Of those with a model, as many
    seeds as `together` says advance in lock step in this process (see `experiments.lockstep`), for accelerators.
    """
    wanted = list(dict.fromkeys(studies))
    todo = [study for study in wanted if not is_stored(study, store)]
    say(f"{len(wanted)} studies, {len(wanted) - len(todo)} of them stored in {store}")
    configs = {overrides: compose(overrides) for overrides in dict.fromkeys(study.overrides for study in todo)}
    began = time.perf_counter()
    if together > 1:
        groups = _groups(todo, configs, together)
        for number, group in enumerate(groups, 1):
            _simulate_group(group, store, configs[group[0].overrides])
            _progress(say, number, len(groups), began)
    elif processes == 1:
        for number, study in enumerate(todo, 1):
            _simulate_and_store(study, store, configs[study.overrides])
            _progress(say, number, len(todo), began)
    else:
        with ProcessPoolExecutor(processes, get_context("spawn"), initializer=prepare_worker) as pool:
            futures = [pool.submit(_simulate_and_store, study, store, configs[study.overrides]) for study in todo]
            for number, future in enumerate(as_completed(futures), 1):
                future.result()
                _progress(say, number, len(todo), began)
    tables = {study: load(study, store) for study in wanted}
    _check_data({study: table for study, table in tables.items() if study not in set(todo)}, store, compose)
    others = sorted({made_by(table) for table in tables.values()} - {commit()})
    if others:
        say(f"some of these studies were made by other code ({', '.join(others)}; this is {commit()}): remove {store} to compute them anew")
    return tables


def _check_data(stored: Mapping[Study, pa.Table], store: Path, compose: Callable[[Sequence[str]], Any]) -> None:
    """Raise ValueError for a stored study of other data than its benchmark has now; one that kept no digest of them is taken as it is."""
    from experiments.overrides import made

    digests: dict[tuple[str, ...], Any] = {}
    for study, table in stored.items():
        kept = metadata(table).get("digest")
        if kept is None:
            continue
        if study.overrides not in digests:
            digests[study.overrides] = getattr(made(compose(study.overrides).benchmark), "digest", None)
        if kept != digests[study.overrides]:
            folder = (store / study.path).parent
            raise ValueError(f"{folder} holds studies of other data than the benchmark has now: remove it, and they are computed again")


def _groups(todo: Sequence[Study], configs: Mapping[tuple[str, ...], Any], size: int) -> list[list[Study]]:
    """Studies of one configuration, `size` at a time where they have a model."""
    groups = []
    for overrides, cfg in configs.items():
        mine = [study for study in todo if study.overrides == overrides]
        width = size if has_model(cfg) else 1
        groups += [mine[start : start + width] for start in range(0, len(mine), width)]
    return groups


def has_model(cfg: Any) -> bool:
    """Whether a study's searcher asks for suggestions in the way that lock step answers (searcher=gp and its relatives)."""
    return "num_fantasies" in cfg.searcher and "acquisition" in cfg.searcher


def _simulate_group(group: Sequence[Study], store: Path, cfg: Any) -> None:
    from experiments.lockstep import simulate_together

    if len(group) == 1:
        return _simulate_and_store(group[0], store, cfg)
    tables = simulate_together(cfg, [study.seed for study in group], len(group))
    for study, table in zip(group, tables, strict=True):
        _store(study, store, table)


def made_by(table: pa.Table) -> str:
    """The commit that a stored study was computed by (see `code.commit`)."""
    return str(metadata(table).get("commit", "unknown"))


def taken(table: pa.Table) -> float:
    """The seconds that a process spent on the stored study, by the clock, compiling included; its share, if others went along."""
    about = metadata(table)
    return float(sum(about["host_seconds"].values())) / float(about.get("together", 1))


def is_stored(study: Study, store: Path) -> bool:
    return (store / study.path).is_file()


def load(study: Study, store: Path) -> pa.Table:
    path = store / study.path
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())}): remove it, and the study is computed again") from error
    for name in EVENTS.names:
        if name not in table.column_names:  # stored by code that did not know of it
            table = table.append_column(EVENTS.field(name), pa.nulls(len(table), EVENTS.field(name).type))
    return table


def metadata(table: pa.Table) -> dict[str, Any]:
    """What `simulate` noted about the study."""
    found: dict[str, Any] = json.loads(table.schema.metadata[b"study"])
    return found


def prepare_worker() -> None:
    """What a process that computes studies, or fits, beside others begins with."""
    from experiments.runtime import keep_freed_memory, prepare_environment

    end_with_parent()
    prepare_environment()
    keep_freed_memory()
    # One process per core: threads of its own would only wait for each other, and a study's bits depend on their number.
    os.environ["NPROC"] = "1"
    os.environ["JAX_PLATFORMS"] = "cpu"


def _simulate_and_store(study: Study, store: Path, cfg: Any) -> None:
    from experiments.runtime import limit_mappings

    if not is_stored(study, store):  # another command may have got there first
        limit_mappings()
        _store(study, store, simulate(cfg, study.seed))


def _store(study: Study, store: Path, table: pa.Table) -> None:
    """Whole or not at all."""
    path = store / study.path
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "overrides.json").write_text(json.dumps(sorted(study.overrides)))
    temporary = path.with_suffix(f".{os.getpid()}.part")
    pq.write_table(table, temporary, compression="zstd")
    os.replace(temporary, path)


def _progress(say: Callable[[str], None], done: int, total: int, began: float) -> None:
    elapsed = time.perf_counter() - began
    if done == total or done % max(1, total // 20) == 0:
        say(f"{done}/{total} studies in {elapsed:.0f} s, {elapsed / done * (total - done):.0f} s to go")


class Incumbents(NamedTuple):
    """One entry per new incumbent of a study.

    `best`: its metric, minimised; `final`: what its configuration reaches at r_max; `test`: its test metric, nan where there is none.
    """

    time: np.ndarray
    best: np.ndarray
    final: np.ndarray
    test: np.ndarray


def incumbents(table: pa.Table) -> Incumbents:
    rows = table.filter(pc.is_valid(table["final"]))
    return Incumbents(*(rows[name].to_numpy() for name in ("time", "metric", "final", "test")))
