"""Resource over wall-clock time, one line per trial (Klein et al. 2020, figure 1), of one study or of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from experiments.plots import COLOURS, STYLE, TEXT_WIDTH, new_figure, save, time_unit
from experiments.study import sign_of

CROSS: Any = {"markersize": 4, "markeredgewidth": 0.9}


def trace(
    reports: pa.Table,
    trials: pa.Table,
    path: str | Path,
    rungs: Sequence[int],
    *,
    metric: str = "validation error",
    mode: str = "min",
    resource: str = "epochs",
) -> None:
    """Resource over wall-clock time, one line per trial (Klein et al. 2020, figure 1); markers grow with the error.

    A line begins at the bottom, when its trial starts, and is dotted where the trial was paused. Markers stand at the rungs and at a
    trial's last report only: at every epoch they would run together. Trials that failed end in a cross; the best one is black.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(TEXT_WIDTH, 2.7)
        _draw_trace(axes, reports, trials, rungs, metric, mode)
        axes.set_ylabel(f"training {resource} done")
        save(figure, path)


def traces(
    studies: Mapping[str, tuple[pa.Table, pa.Table, Sequence[int]]],
    path: str | Path,
    *,
    columns: int = 2,
    mode: str = "min",
    resource: str = "epochs",
) -> None:
    """Several studies' traces on common axes; `studies`: title -> (reports, trials, rungs). Drawn as in `trace`, without its legend."""
    rows = -(-len(studies) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(TEXT_WIDTH, 1.5 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, (title, (reports, trials, rungs)) in zip(grid.flat, studies.items(), strict=False):
            _draw_trace(axes, reports, trials, rungs, "metric", mode)
            if (legend := axes.get_legend()) is not None:
                legend.remove()
            axes.set_title(title, fontsize=6.5, loc="left", pad=2)
            axes.set_xlabel(axes.get_xlabel() if axes in grid[-1] else "")
        for axes in grid[:, 0]:
            axes.set_ylabel(resource)
        for axes in grid.flat[len(studies) :]:
            axes.set_visible(False)
        save(figure, path)


def _draw_trace(axes: Axes, reports: pa.Table, trials: pa.Table, rungs: Sequence[int], metric: str, mode: str) -> None:
    sign, rows = sign_of(mode), trials.to_pylist()
    points = _points(reports, sign)
    scale, unit = time_unit(max([r["time"] for r in reports.to_pylist()] + [row["started"] for row in rows], default=0.0))
    bottom = 0.62 * min(rungs)
    size, examples = _marker_sizes([p[2] for trial in points.values() for p in trial], len(rows))
    best = min((row for row in rows if row["best_metric"] is not None), key=lambda row: sign * row["best_metric"], default=None)
    best_alone, others = ([row for row in rows if (row is best) == is_best] for is_best in (True, False))
    trials_of = partial(_collect, points=points, rungs=rungs, bottom=bottom, scale=scale, size=size)
    # A few artists for all trials but the best: with three of its own, each would take matplotlib 9 ms.
    colours = [COLOURS[row["trial_id"] % len(COLOURS)] for row in others]
    _draw_trials(axes, trials_of(others, colours), width=0.8 if len(rows) <= 100 else 0.5, alpha=0.8, order=2)
    _draw_trials(axes, trials_of(best_alone, ["black"] * len(best_alone)), width=1.4, alpha=1, order=4)
    failed = [(row["ended"] / scale, row["r"] or bottom) for row in rows if row["state"] == "failed"]
    if failed:
        axes.plot(*zip(*failed, strict=True), "x", color="#B00000", **CROSS, zorder=5, clip_on=False)
    _resource_axis(axes, rungs, bottom, max([*rungs, *(row["r"] for row in rows)]))
    axes.set_xlim(0, None)
    axes.set_xlabel(f"wall-clock time ({unit})")
    _trace_legend(axes, best, examples, sign, metric, bool(failed))


class _Coloured(NamedTuple):
    """What is drawn together, each in a colour of its own."""

    items: list[Any]
    colours: list[str]

    def add(self, items: Sequence[Any], colour: str) -> None:
        self.items.extend(items)
        self.colours.extend([colour] * len(items))


def _collect(
    rows: Sequence[Mapping[str, Any]], colours: Sequence[str], *, points: Any, rungs: Sequence[int], bottom: float, scale: float, size: Any
) -> tuple[_Coloured, _Coloured, _Coloured]:
    """The lines of these trials, trained and paused ones apart, and their markers (time, r, area)."""
    solid, faint, marked = _Coloured([], []), _Coloured([], []), _Coloured([], [])
    for row, colour in zip(rows, colours, strict=True):
        path = points.get(row["trial_id"], [])
        trained, paused = _segments(row["started"] / scale, path, bottom, scale)
        solid.add(trained, colour)
        faint.add(paused, colour)
        marks = [(t / scale, r, size(error)) for t, r, error, _, _ in path if np.isfinite(error) and (r in rungs or r == row["r"])]
        marked.add(marks, colour)
    return solid, faint, marked


def _draw_trials(axes: Axes, trials: tuple[_Coloured, _Coloured, _Coloured], *, width: float, alpha: float, order: int) -> None:
    solid, faint, marked = trials
    axes.add_collection(LineCollection(faint.items, colors=faint.colours, linewidths=0.6, linestyles=":", alpha=0.8, zorder=1))
    axes.add_collection(LineCollection(solid.items, colors=solid.colours, linewidths=width, alpha=alpha, zorder=order))
    if marked.items:
        time, r, area = zip(*marked.items, strict=True)
        axes.scatter(time, r, area, c=marked.colours, edgecolors="white", linewidths=0.3, zorder=order + 0.5)


def _points(reports: pa.Table, sign: float) -> dict[int, list[tuple[float, int | None, float, float, str]]]:
    """Per trial: (time, r, error, seconds, decision) of each report."""
    points: dict[int, list[tuple[float, int | None, float, float, str]]] = {}
    for row in reports.to_pylist():
        error = np.nan if row["metric"] is None else sign * row["metric"]
        points.setdefault(row["trial_id"], []).append((row["time"], row["r"], error, row["seconds"], row["decision"]))
    return points


def _segments(start: float, path: list, bottom: float, scale: float) -> tuple[list, list]:
    """The lines of a trial, trained and paused ones apart."""
    solid: list = [[(start, bottom)]]
    faint = []
    at, was_paused = (start, bottom), False
    for time, r, _, seconds, decision in path:
        now = (time / scale, at[1] if r is None else r)
        if was_paused:
            resumed = (max(at[0], (time - seconds) / scale), at[1])
            faint.append([at, resumed])
            solid.append([resumed])
        solid[-1].append(now)
        at, was_paused = now, decision == "pause"
    return [line for line in solid if len(line) > 1], faint


def _marker_sizes(errors: Sequence[float], num_trials: int) -> tuple[Any, list[tuple[float, float]]]:
    """A function error -> marker area in square points, and (error, area) of three examples for the legend.

    The area grows linearly from the best error to the 90% quantile, so that one diverged trial does not make the others all alike.
    """
    finite = np.array([error for error in errors if np.isfinite(error)])
    if not finite.size:
        return (lambda error: 0.0), []
    low, high = finite.min(), np.quantile(finite, 0.9)
    smallest, largest = (4.0, 34.0) if num_trials <= 100 else (2.5, 16.0)

    def area(error: float) -> float:
        return smallest + (largest - smallest) * float(np.clip((error - low) / max(high - low, 1e-12), 0, 1))

    return area, [(float(error), area(error)) for error in (low, (low + high) / 2, high)]


def _trace_legend(axes: Axes, best: Mapping[str, Any] | None, examples: list, sign: float, metric: str, has_failed: bool) -> None:
    handles = []
    for i, (error, area) in enumerate(examples):
        label = (f"{metric} ", "", "≥ " if sign > 0 else "≤ ")[i] + f"{sign * error:.2g}"
        handles.append(Line2D([], [], color="#7F7F7F", marker="o", linewidth=0, markeredgewidth=0, markersize=area**0.5, label=label))
    if has_failed:
        handles.append(Line2D([], [], color="#B00000", marker="x", linewidth=0, **CROSS, label="failed"))
    if best is not None:
        label = f"best: trial {best['trial_id']}, {best['best_metric']:.3g}"
        handles.append(Line2D([], [], color="black", linewidth=1.4, marker="o", markersize=2, label=label))
    if handles:
        axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(handles), handletextpad=0.3, columnspacing=1.2)


def _resource_axis(axes: Axes, rungs: Sequence[int], bottom: float, top: float) -> None:
    axes.set_yscale("log")
    axes.set_ylim(bottom, 1.25 * top)
    axes.yaxis.set_major_locator(FixedLocator(sorted(rungs)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda r, _: f"{r:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y")
    axes.set_axisbelow(True)
