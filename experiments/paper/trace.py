"""Epochs over time, one line per trial, synchronous beside asynchronous: figure 1 of Klein et al. 2020, with its counts over many seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from experiments import trace_plot
from experiments.paper.context import Claim, Context
from experiments.statistics import Interval, bootstrap
from experiments.store import metadata

SMOKE_SHARE = 0.25  # of the time


def make(spec: Mapping[str, Any], context: Context) -> str:
    """Draw seed 0 of each method, count over all seeds; returns the verdict table."""
    task = context.tasks[spec["task"]]
    seconds = float(task.get("trace_seconds", task["seconds"])) * (SMOKE_SHARE if context.scale == "smoke" else 1)
    workers = int(spec["workers"])
    methods: dict[str, list[str]] = {name: list(more) for name, more in spec["methods"].items()}
    studies = {
        (name, seed): context.study(spec["task"], of, workers, seed, seconds=seconds, more=more)
        for name, (of, *more) in methods.items()
        for seed in range(context.num_seeds())
    }
    tables = context.run(list(studies.values()))
    counts = {name: [_counts(tables[studies[name, seed]], seconds) for seed in range(context.num_seeds())] for name in methods}
    stand_in, pool = task.get("stand_in"), task.get("pool")
    where = f" (stand-in: {stand_in})" if stand_in else f" ({pool})" if pool else ""
    drawn = {}
    for name, found in counts.items():
        table = tables[studies[name, 0]]
        full, busy, trials = found[0]
        drawn[f"{name}{where}: {trials} trials, {full} to r_max, workers busy {busy:.0%}"] = (*_tables(table), metadata(table)["levels"])
    trace_plot.traces(drawn, context.path("figures", "png").with_suffix(""), columns=1)
    rows = [(name, seed, *one) for name, found in counts.items() for seed, one in enumerate(found)]
    columns = ("method", "seed", "full", "busy", "trials")
    context.write_data(pa.table(dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))), {"title": spec["title"]})
    first, second = methods
    more_full = bootstrap(np.array([a[0] - b[0] for a, b in zip(counts[first], counts[second], strict=True)], float))
    busier = bootstrap(np.array([a[1] - b[1] for a, b in zip(counts[first], counts[second], strict=True)], float))
    claims = [
        Claim(spec["claims"][0], f"{first} minus {second}, trials at r_max", _said(more_full), _verdict(more_full, stand_in)),
        Claim(spec["claims"][1], f"{first} minus {second}, busy share of the workers", _said(busier), _verdict(busier, stand_in)),
    ]
    title = " — ".join([spec["title"]] + [pool] * bool(pool) + [f"stand-in: {stand_in}"] * bool(stand_in))
    return context.write_verdicts(
        title, claims, [f"{context.num_seeds()} paired seeds, {seconds:g} s, decision time zero.", *spec["notes"]]
    )


def _counts(table: pa.Table, seconds: float) -> tuple[int, float, int]:
    """(trials at r_max, share of the workers' time that was training, trials started)."""
    meta = metadata(table)
    full = pc.sum(pc.equal(table["r"], meta["r_max"])).as_py()
    running: dict[int, float] = {}
    busy = 0.0
    for kind, time, trial, decision in zip(*(table[name].to_pylist() for name in ("kind", "time", "trial", "decision")), strict=True):
        if kind == "job":
            running[trial] = time
        elif decision != "continue":
            busy += time - running.pop(trial)
    busy += sum(seconds - start for start in running.values())
    return full, busy / (seconds * meta["workers"]), len(set(table["trial"].to_pylist()))


def _tables(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Reports and trials as `trace_plot.traces` wants them."""
    reports = table.filter(pc.equal(table["kind"], "report"))
    columns = {"trial_id": reports["trial"], **{name: reports[name] for name in ("time", "r", "metric", "seconds", "decision")}}
    trials: dict[int, dict[str, Any]] = {}
    for row in table.to_pylist():
        blank = {"trial_id": row["trial"], "started": row["time"], "best_metric": None, "state": "running", "ended": None, "r": 0}
        trial = trials.setdefault(row["trial"], blank)
        if row["kind"] == "report":
            trial |= {"r": row["r"], "ended": row["time"]}
            if row["metric"] is not None:
                best = trial["best_metric"]
                trial["best_metric"] = row["metric"] if best is None else min(row["metric"], best)
    return pa.table(columns), pa.Table.from_pylist(list(trials.values()))


def _said(found: Interval) -> str:
    return f"{found.median:+.3g} [{found.low:+.3g}, {found.high:+.3g}], n = {found.n}"


def _verdict(found: Interval, stand_in: str | None) -> str:
    holds, fails = found.low > 0, found.high <= 0
    if found.n < 2 or holds == fails:
        return "undecided"
    return ("stand-in agrees" if holds else "stand-in disagrees") if stand_in else ("reproduced" if holds else "not reproduced")
