"""PASHA beside ASHA (Bohdal et al. 2023, its table on NAS-Bench-201): time, accuracy, distribution of the largest resource.

Times and accuracies are compared by their means over seeds, as the published table has them; pairs of a seed are resampled.
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
from experiments.statistics import Interval, bootstrap
from experiments.store import incumbents

FAR_BELOW = 100.0  # half of r_max
COLUMNS = ("task", "method", "seed", "hours", "validation accuracy", "test accuracy", "largest")


def make(spec: Mapping[str, Any], context: Context) -> str:
    """Simulate, tabulate, judge; returns the verdict table."""
    seeds = context.num_seeds(int(spec["seeds"]))
    trials = int(spec["trials"]) // (8 if context.scale == "smoke" else 1)
    studies = {
        (task, method, seed): context.study(task, method, int(spec["workers"]), seed, seconds=None, more=[f"budget.trials={trials}", *more])
        for task in spec["tasks"]
        for method, more in spec["methods"].items()
        for seed in range(seeds)
    }
    tables = context.run(list(studies.values()))
    rows = [(*key, *_outcome(tables[study])) for key, study in studies.items()]
    data = pa.table(dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True)))
    context.write_data(data, {"title": spec["title"]})
    context.save(_draw(spec, rows))
    claims = [claim for task in spec["tasks"] for claim in _claims(spec, task, rows)]
    notes = [f"{seeds} paired seeds; every study starts {trials} configurations and finishes what is running.", *spec["notes"]]
    notes += [
        _line(task, method, rows) + f" Published: {spec['published'][task][method]}."
        for task in spec["tasks"]
        for method in spec["methods"]
    ]
    return context.write_verdicts(spec["title"], claims, notes)


def _outcome(table: pa.Table) -> tuple[float, float, float, int]:
    """(hours, validation and test accuracy in percent of the incumbent's configuration at r_max, largest resource of any trial)."""
    reports = table.filter(pc.equal(table["kind"], "report"))
    found = incumbents(table)
    return reports["time"][-1].as_py() / 3600, 100 * (1 - found.final[-1]), 100 * (1 - found.test[-1]), max(reports["r"].to_pylist())


def _pick(rows: list[Any], task: str, method: str, column: str) -> np.ndarray:
    return np.array([row[COLUMNS.index(column)] for row in rows if row[:2] == (task, method)], float)


def _claims(spec: Mapping[str, Any], task: str, rows: list[Any]) -> list[Claim]:
    asha, pasha = spec["methods"]
    speed = bootstrap(np.stack([_pick(rows, task, method, "hours") for method in (asha, pasha)], axis=1), of=_log_ratio_of_means)
    worse = bootstrap(_pick(rows, task, asha, "test accuracy") - _pick(rows, task, pasha, "test accuracy"), of=np.mean)
    spread = float(np.std(_pick(rows, task, asha, "test accuracy"), ddof=1))
    largest = _pick(rows, task, pasha, "largest")
    middle, variation = bootstrap(largest), bootstrap(largest, of=_variation)
    quartiles = "/".join(f"{q:g}" for q in np.quantile(largest, [0.25, 0.5, 0.75]))
    low, high = np.log10(spec["speed_up"])
    said = f"mean hours' ratio {10**speed.median:.2f} [{10**speed.low:.2f}, {10**speed.high:.2f}], n = {speed.n}"
    inside, outside = low <= speed.low and speed.high <= high, speed.high < low or speed.low > high
    is_fast = "undecided" if speed.n < 2 or inside == outside else "stand-in agrees" if inside else "stand-in disagrees"
    return [
        Claim(spec["claims"][0], task, said, is_fast),
        Claim(
            spec["claims"][1],
            task,
            f"{worse.median:+.2f} points in the mean [{worse.low:+.2f}, {worse.high:+.2f}] lost; s.d. {spread:.2f}",
            _equal(worse, spread),
        ),
        Claim(
            spec["claims"][2],
            task,
            f"mean {largest.mean():.1f}, quartiles {quartiles}, median [{middle.low:g}, {middle.high:g}]",
            _below(middle, FAR_BELOW),
        ),
        Claim(
            spec["claims"][3],
            task,
            f"s.d. {largest.std(ddof=1):.1f}, mean {largest.mean():.1f}, ratio [{variation.low:.2f}, {variation.high:.2f}]",
            _below(Interval(-variation.median, -variation.high, -variation.low, variation.n), -1.0),
        ),
    ]


def _log_ratio_of_means(pairs: np.ndarray, axis: int) -> np.ndarray:
    """log10 of the first column's mean over the second's."""
    means = pairs.mean(axis=axis)
    return np.asarray(np.log10(means[..., 0] / means[..., 1]))


def _variation(values: np.ndarray, axis: int) -> np.ndarray:
    """Standard deviation over mean."""
    return np.asarray(values.std(axis=axis, ddof=1) / values.mean(axis=axis))


def _below(found: Interval, limit: float) -> str:
    if found.n < 2 or found.low < limit <= found.high:
        return "undecided"
    return "stand-in agrees" if found.high < limit else "stand-in disagrees"


def _equal(found: Interval, spread: float) -> str:
    """Whether the accuracies differ by less than ASHA's own standard deviation."""
    if found.n < 2 or (found.low <= spread < found.high):
        return "undecided"
    return "stand-in agrees" if found.high <= spread else "stand-in disagrees"


def _line(task: str, method: str, rows: list[Any]) -> str:
    said = {name: _pick(rows, task, method, name) for name in ("test accuracy", "validation accuracy", "hours", "largest")}
    test, validation, hours, largest = (f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" for values in said.values())
    return f"{task}, {method}: test accuracy {test} (validation {validation}), {hours} h, largest resource {largest}."


def _draw(spec: Mapping[str, Any], rows: list[Any]) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.4 * len(spec["tasks"]), 2.8), layout="constrained")
        figure.suptitle(heading(spec["title"], 2.4 * len(spec["tasks"])), fontsize=8)
        for number, task in enumerate(spec["tasks"]):
            axes = figure.add_subplot(1, len(spec["tasks"]), number + 1)
            for i, method in enumerate(spec["methods"]):
                largest, hours = _pick(rows, task, method, "largest"), _pick(rows, task, method, "hours")
                axes.plot(hours, largest, "o", color=COLOURS[i], markersize=3.5, alpha=0.7, markeredgewidth=0, label=method)
            axes.set_yscale("log")
            axes.set_title(task, fontsize=8)
            axes.set_xlabel("hours until the last trial ended")
            axes.set_ylabel("largest resource of any trial (epochs)" if number == 0 else "")
            axes.legend()
    return figure
