"""The picture of regret over time: a panel beside the other, each with the mean and its standard error over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from experiments.paper.context import heading
from experiments.paper.panel import Line, Panel, title_of
from experiments.plots import COLOURS, STYLE
from experiments.statistics import all_known, mean_curve

GRID = 200
ROOM = 7  # lines of a legend that a panel has room for
UNITS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"))


def draw(spec: Mapping[str, Any], panels: Sequence[Panel], is_smoke: bool) -> Figure:
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    rows = -(-len(panels) // columns)
    width = 2.9 * columns + 0.4
    below = max(len(panel.lines) for panel in panels) > ROOM
    height = 2.7 + (0.17 * max(-(-len(panel.lines) // 2) for panel in panels) if below else 0)
    title = title_of(spec, panels) + (" (smoke scale)" if is_smoke else "")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height * rows + 0.5), layout="constrained")
        figure.suptitle(heading(title, width), fontsize=8)
        for number, panel in enumerate(panels):
            axes = figure.add_subplot(rows, columns, number + 1)
            _draw_panel(axes, panel)
            size = 5 if panel.several_workers else 6
            if below:
                axes.legend(fontsize=size, ncols=2, loc="upper center", bbox_to_anchor=(0.45, -0.2), handlelength=1.5, columnspacing=1)
            else:
                axes.legend(fontsize=size)
            axes.set_title(panel.name, fontsize=8)
            if number % columns == 0:
                axes.set_ylabel("immediate regret")
        for task in {panel.task for panel in panels}:  # regrets are of one kind: let the eye compare them
            of_task = [axes for axes, panel in zip(figure.axes, panels, strict=True) if panel.task == task]
            lows, highs = zip(*(axes.get_ylim() for axes in of_task), strict=True)
            for axes in of_task:
                _limit(axes, min(lows), max(highs))
    return figure


def _draw_panel(axes: Axes, panel: Panel) -> None:
    """Mean and standard error of the mean, from the time on at which all runs of all lines have a result."""
    grid = np.linspace(0, panel.seconds, GRID)
    lines = panel.lines
    known = np.all([all_known(panel.runs[line], grid) for line in lines], axis=0)
    scale, unit = next(((s, u) for s, u in UNITS if panel.seconds > 3 * s), (1.0, "seconds"))
    methods, workers = (list(dict.fromkeys(values)) for values in zip(*lines, strict=True))
    highest, lowest = 0.0, np.inf
    for line in lines:
        times = grid[known & (grid <= panel.ends[line])]
        mean, error = mean_curve(panel.runs[line], times, panel.optimum)
        mean = np.maximum(mean, panel.floor)
        colour, style = _look(line, methods, workers, panel.several_workers)
        axes.plot(times / scale, mean, color=colour, linestyle=style, linewidth=1.1, label=panel.label(line))
        if not panel.several_workers and np.isfinite(error).all():
            low = np.maximum(mean - error, panel.floor / 2)
            axes.fill_between(times / scale, low, mean + error, color=colour, alpha=0.18, linewidth=0)
        highest, lowest = max(highest, mean.max(initial=0.0)), min(lowest, mean.min(initial=np.inf))
    axes.set_yscale("log")
    _limit(axes, lowest / 1.4, highest * 1.4)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(0, panel.seconds / scale)
    axes.set_xlabel(f"wall-clock time ({unit})")
    axes.grid(axis="y")


def _limit(axes: Axes, low: float, high: float) -> None:
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 400 else (1,)))


def _look(line: Line, methods: Sequence[str], workers: Sequence[int], several_workers: bool) -> tuple[str, str]:
    """Colour by method; where worker counts differ, colour by these, solid for model-based methods and dashed for random ones."""
    if several_workers:
        return COLOURS[workers.index(line.workers) % len(COLOURS)], "--" if "HB" in line.method and "BO" not in line.method else "-"
    number = methods.index(line.method)
    return COLOURS[number % len(COLOURS)], ("-", "--")[number // len(COLOURS) % 2]
