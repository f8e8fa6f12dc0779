"""What a study leaves on disk: one row per trial, one row per report, and a summary, all folded from its events.

Whatever leaves this module has the user's sign. Nothing here reads a clock, so the same events give the same bytes.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from experiments.study import STATES, Study, fold, sign_of
from schedulers.backends.failures import cause, tally
from schedulers.types import Event

# Of `meta`, what the tables carry: nothing that differs between two runs of the same command.
TABLE_METADATA = ("seed", "versions", "threads", "metric", "r_max")

TRIALS_SCHEMA = pa.schema(
    [
        ("trial_id", pa.int64()),
        ("bracket", pa.int64()),
        ("source", pa.string()),
        ("r_acq", pa.int64()),
        ("state", pa.string()),
        ("r", pa.int64()),
        ("metric", pa.float64()),
        ("best_metric", pa.float64()),
        ("best_r", pa.int64()),
        ("started", pa.float64()),
        ("ended", pa.float64()),
        ("seconds", pa.float64()),
        ("cause", pa.string()),  # of a failure, in a word: see schedulers.backends.failures.cause
        ("error", pa.string()),
    ]
)
REPORTS_SCHEMA = pa.schema(
    [
        ("trial_id", pa.int64()),
        ("bracket", pa.int64()),
        ("r", pa.int64()),
        ("metric", pa.float64()),
        ("time", pa.float64()),
        ("seconds", pa.float64()),
        ("worker", pa.int64()),
        ("decision", pa.string()),
        ("why", pa.string()),
        ("incumbent", pa.float64()),
    ]
)


def trials_table(events: Iterable[Event], mode: str, r_max: int) -> pa.Table:
    """One row per trial in the order they started, one column `config/<name>` per hyperparameter, null where it is inactive."""
    return _trials_table(fold(events, r_max), sign_of(mode))


def reports_table(events: Iterable[Event], mode: str, r_max: int) -> pa.Table:
    """One row per report in the order they arrived. What a trial repeats after a restart from scratch makes no second row.

    `incumbent` is the best metric so far at any resource of any trial, this report included.
    """
    return _reports_table(fold(events, r_max), sign_of(mode))


def summary(events: Iterable[Event], mode: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    """The study in numbers, as JSON. `meta` must hold `r_max` and `workers`; all of it is passed through under "run".

    Times are seconds on the backend's clock: deciding takes none where that clock is simulated.
    """
    return _summary(fold(events, _required(meta, "r_max")), mode, meta)


def write(folder: str | Path, events: Iterable[Event], mode: str, meta: Mapping[str, Any]) -> None:
    """Write trials.parquet, reports.parquet and summary.json into `folder`, each replaced as a whole or not at all."""
    folder, sign = Path(folder), sign_of(mode)
    study = fold(events, _required(meta, "r_max"))
    known = {"mode": mode} | {name: meta[name] for name in TABLE_METADATA if name in meta}
    metadata = {name: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for name, value in known.items()}
    text = json.dumps(_summary(study, mode, meta), indent=2, allow_nan=False) + "\n"
    trials = _trials_table(study, sign).replace_schema_metadata(metadata)
    reports = _reports_table(study, sign).replace_schema_metadata(metadata)
    _replace(folder / "trials.parquet", lambda path: pq.write_table(trials, path))
    _replace(folder / "reports.parquet", lambda path: pq.write_table(reports, path))
    _replace(folder / "summary.json", lambda path: path.write_text(text, encoding="utf-8"))


def _trials_table(study: Study, sign: float) -> pa.Table:
    trials = list(study.trials.values())
    columns = {name: [getattr(trial, name) for trial in trials] for name in TRIALS_SCHEMA.names if name != "cause"}
    columns["cause"] = [cause(trial.error) if trial.state == "failed" else "" for trial in trials]
    for name in ("metric", "best_metric"):
        columns[name] = [_signed(value, sign) for value in columns[name]]
    table = pa.table(columns, schema=TRIALS_SCHEMA)
    for name in sorted({name for trial in trials for name in trial.config}):
        table = table.append_column(f"config/{name}", _config_column([trial.config.get(name) for trial in trials]))
    return table


def _reports_table(study: Study, sign: float) -> pa.Table:
    columns = {name: [getattr(report, name) for report in study.reports] for name in REPORTS_SCHEMA.names}
    for name in ("metric", "incumbent"):
        columns[name] = [_signed(value, sign) for value in columns[name]]
    columns["why"] = [str(why) for why in columns["why"]]
    return pa.table(columns, schema=REPORTS_SCHEMA)


def _summary(study: Study, mode: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    sign, workers, best = sign_of(mode), _required(meta, "workers"), study.best
    seconds = study.worker_seconds(workers, study.now)
    total, states = len(study.trials), study.counts()
    sources = Counter(trial.source for trial in study.trials.values())
    every = [took for source in study.suggestions.values() for took in source]
    return {
        "best": None
        if best is None
        else {
            "trial_id": best.trial_id,
            "metric": _signed(best.best_metric, sign),
            "r": best.best_r,
            "time": best.best_time,
            "source": best.source,
            "config": best.config,
        },
        "mode": mode,
        "trials": total,
        "trials_by_state": {state: states[state] for state in STATES},
        "failures_by_cause": tally(trial.error for trial in study.trials.values() if trial.state == "failed"),
        "trials_by_source": dict(sorted(sources.items())),
        "model_share": sources["model"] / total if total else None,
        "reports": len(study.reports),
        "wall_clock_seconds": study.now,
        "worker_seconds": seconds,
        "worker_shares": {name: value / (workers * study.now) if study.now > 0 else None for name, value in seconds.items()},
        "suggestion_seconds": {name: _quantiles(took) for name, took in [*sorted(study.suggestions.items()), ("all", every)] if took},
        "run": dict(meta),
    }


def _quantiles(seconds: list[float]) -> dict[str, float]:
    median, p90 = np.quantile(seconds, [0.5, 0.9])
    return {"number": len(seconds), "median": float(median), "p90": float(p90), "max": max(seconds)}


def _required(meta: Mapping[str, Any], name: str) -> int:
    if name not in meta:
        raise ValueError(f"meta lacks {name!r}: the summary needs the whole numbers r_max and workers, got {sorted(meta)}")
    return int(meta[name])


def _signed(value: float | None, sign: float) -> float | None:
    return None if value is None else sign * value + 0.0  # + 0.0: no minus zero


def _config_column(values: list[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    for kind, column in ((int, pa.int64()), (float, pa.float64()), (bool, pa.bool_()), (str, pa.string())):
        if kinds == {kind}:
            return pa.array(values, column)
    # Choices of several types, such as 3 and "auto", share no column type: JSON keeps them apart.
    return pa.array([None if value is None else json.dumps(value) for value in values], pa.string())


def _replace(path: Path, write_to: Callable[[Path], Any]) -> None:
    """Write beside `path`, then rename: a reader sees the old file or the new one, never half of one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_to(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
