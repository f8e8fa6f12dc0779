"""How many configurations 500 workers start: the large-scale experiment of Li et al. 2020 in counts, on curves whose epochs cost the same.

In steady state a configuration of bracket 0 costs (J + 1) r when promotions start again from scratch, and (1 + J (1 - 1/eta)) r from
checkpoints, with J promotions from r to eta^J r: each rung is reached by 1/eta of those that reached the one below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from experiments.paper.context import Claim, Context, heading
from experiments.plots import COLOURS, STYLE
from experiments.store import Study


def make(spec: Mapping[str, Any], context: Context) -> str:
    """Count, draw, judge; returns the verdict table."""
    eta, rungs, multiple = int(spec["eta"]), int(spec["rungs"]), float(spec["multiple"])
    workers = int(spec["workers"]) // (25 if context.scale == "smoke" else 1)
    r_max = eta**rungs
    base = ["backend=simulated", "searcher=random", "benchmark=curves", f"benchmark.r_max={r_max}", "benchmark.cost_spread=0"]
    base += [f"eta={eta}", "brackets=1", f"workers={workers}", "budget.trials=null", f"budget.seconds={multiple * r_max:g}"]
    lines = {
        "random search": ["scheduler=fifo"],
        "ASHA, from checkpoints": ["scheduler=promotion", "scheduler.resume_from=checkpoint"],
        "ASHA, from scratch": ["scheduler=promotion", "scheduler.resume_from=scratch"],
    }
    studies = {name: Study((*base, *more), 0) for name, more in lines.items()}
    tables = context.run(list(studies.values()))
    starts = {name: _starts(tables[study]) for name, study in studies.items()}
    # A configuration that starts when time is up does not count.
    counts = {name: int(np.sum(times < multiple * r_max)) for name, times in starts.items()}
    total = workers * multiple * r_max
    ideal = {
        "random search": total / r_max,
        "ASHA, from checkpoints": total / (1 + rungs * (1 - 1 / eta)),
        "ASHA, from scratch": total / (1 + rungs),
    }
    context.save(_draw(spec, starts, r_max, ideal, multiple))
    context.write_data(pa.table({"method": list(counts), "started": list(counts.values()), "ideal": list(ideal.values())}), dict(spec))
    claims = []
    for name, count in counts.items():
        margin = 0.0 if name == "random search" else float(spec["tolerance"])
        verdict = "stand-in agrees" if abs(count / ideal[name] - 1) <= margin else "stand-in disagrees"
        says = spec["claims"][name]
        claims.append(
            Claim(says, f"{name}, {workers} workers, {multiple:g} x time(R)", f"{count} against {ideal[name]:.0f} ideal", verdict)
        )
    of_asha, published = [count for name, count in counts.items() if name != "random search"], int(spec["published"])
    inside = min(of_asha) * (1 - spec["tolerance"]) <= published <= max(of_asha) * (1 + spec["tolerance"])
    found = f"{' from checkpoints, '.join(map(str, of_asha))} from scratch against {published}"
    verdict = "stand-in agrees" if inside else "stand-in disagrees"
    claims.append(Claim(spec["claims"]["published"], f"ASHA, {workers} workers, {multiple:g} x time(R)", found, verdict))
    return context.write_verdicts(spec["title"], claims, spec["notes"])


def _starts(table: pa.Table) -> np.ndarray:
    jobs = table.filter(pc.equal(table["kind"], "job"))
    _, first = np.unique(jobs["trial"].to_numpy(), return_index=True)
    return np.sort(jobs["time"].to_numpy()[first])


def _draw(spec: Mapping[str, Any], starts: Mapping[str, np.ndarray], r_max: int, ideal: Mapping[str, float], multiple: float) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.6, 2.6), layout="constrained")
        axes = figure.add_subplot()
        for i, (name, times) in enumerate(starts.items()):
            axes.step(times / r_max, np.arange(1, len(times) + 1), where="post", color=COLOURS[i], linewidth=1.1, label=name)
            axes.plot([0, multiple], [0, ideal[name]], color=COLOURS[i], linestyle=":", linewidth=0.8)
        axes.set_ylim(0, None)
        axes.set_xlabel("wall-clock time / time(R)")
        axes.set_ylabel("configurations started")
        axes.set_title(heading(spec["title"], 3.6), fontsize=8)
        axes.grid(axis="y")
        axes.legend()
    return figure
