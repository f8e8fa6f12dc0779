"""Figures of one study and of several methods, from the tables of `records`: PNG at 200 dpi, and PDF.

Figures are made without pyplot and under a local style, so nothing of a caller's matplotlib settings is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# Okabe & Ito (2008), without black, which marks the best trial, and without yellow, which is lost on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F", "#8C6D31")
STYLE: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "pdf.fonttype": 42,  # real fonts: many venues refuse Type 3
}
TEXT_WIDTH, COLUMN_WIDTH = 5.5, 3.4  # inches


def regret(reports: pa.Table, path: str | Path, *, metric: str = "validation error", mode: str = "min") -> None:
    """The incumbent's metric over wall-clock time, one marker per new incumbent; the regret of one run up to the unknown optimum.

    `reports` is `records.reports_table`. Every single report is a faint dot where it falls inside the incumbent's range.
    """
    columns = reports.select(["time", "metric", "incumbent"]).to_pydict()
    time, values, incumbent = (np.array(columns[name], dtype=float) for name in ("time", "metric", "incumbent"))
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(COLUMN_WIDTH, 2.4)
        scale, unit = time_unit(time.max(initial=0.0))
        known = np.isfinite(incumbent)
        if known.any():
            steps, best = time[known] / scale, incumbent[known]
            is_new = np.append(True, best[1:] != best[:-1])
            axes.plot(time / scale, values, ".", color="#BBBBBB", markersize=2, markeredgewidth=0, zorder=1, rasterized=True)
            axes.step(steps, best, where="post", color=COLOURS[0], linewidth=1.2, zorder=2)
            axes.plot(steps[is_new], best[is_new], "o", color=COLOURS[0], markersize=3, zorder=3)
            _incumbent_axis(axes, best, mode)
        else:
            axes.text(0.5, 0.5, "no trial reported a number", ha="center", va="center", transform=axes.transAxes)
        axes.set_xlim(0, None)
        axes.set_xlabel(f"wall-clock time ({unit})")
        axes.set_ylabel(f"{metric} of the incumbent")
        save(figure, path)


def comparison(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    path: str | Path,
    *,
    metric: str = "validation error",
    mode: str = "min",
) -> None:
    """Mean incumbent with a band of one standard error over wall-clock time; `curves`: method -> (time, mean, standard error)."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(TEXT_WIDTH, 2.7)
        scale, unit = time_unit(max(time.max(initial=0.0) for time, _, _ in curves.values()))
        styles = ("-", "--", "-.", ":")
        for i, (method, (time, mean, error)) in enumerate(curves.items()):
            colour, style = COLOURS[i % len(COLOURS)], styles[i // len(COLOURS) % len(styles)]
            axes.plot(time / scale, mean, color=colour, linestyle=style, linewidth=1.2, label=method)
            axes.fill_between(time / scale, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
        edges = np.concatenate([edge for _, mean, error in curves.values() for edge in (mean, mean - error, mean + error)])
        means = np.concatenate([mean for _, mean, _ in curves.values()])
        # A lower edge at or below zero has no place on a log axis and is cut off; nan edges are methods with a single run.
        _incumbent_axis(axes, edges[np.isfinite(edges) & ((edges > 0) | (means.min() <= 0))], mode)
        axes.set_xlabel(f"wall-clock time ({unit})")
        axes.set_ylabel(f"{metric} of the incumbent")
        axes.legend()
        save(figure, path)


def _incumbent_axis(axes: Axes, values: np.ndarray, mode: str) -> None:
    """Log where the metric is an error that falls by more than a factor of three, so that late progress can be seen; limits to fit."""
    low, high = float(np.min(values)), float(np.max(values))
    if mode == "min" and low > 0 and high / low > 3:
        axes.set_yscale("log")
        axes.set_ylim(low / (high / low) ** 0.08, high * (high / low) ** 0.08)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 200 else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
        axes.set_ylim(low - margin, high + margin)
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def save(figure: Figure, path: str | Path) -> None:
    """Write <path>.png and <path>.pdf, without a date in them: the same data give the same file."""
    path = Path(path)
    figure.savefig(path.with_suffix(".png"), dpi=200, metadata={"Software": None})
    figure.savefig(path.with_suffix(".pdf"), dpi=200, metadata={"CreationDate": None})


def time_unit(longest: float) -> tuple[float, str]:
    """Seconds per unit of the time axis, and the unit."""
    for scale, unit in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if longest > 3 * scale:
            return scale, unit
    return 1.0, "seconds"
