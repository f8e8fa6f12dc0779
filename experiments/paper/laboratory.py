"""The kernel laboratory: every surrogate of conf/surrogate on recorded traces, with tables, calibration and posterior learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, ScalarFormatter

from experiments import laboratory
from experiments.grid import prepare_worker
from experiments.laboratory import Band, Prediction, Trace
from experiments.overrides import made
from experiments.paper.context import Claim, Context, heading
from experiments.plots import COLOURS, STYLE

Z = 1.6448536269514722  # half the width of the 90 % interval, in standard deviations
LEAST_CELLS = 10  # a coverage of fewer is not judged


class Examined(NamedTuple):
    trace: Trace
    surrogate: str
    cells: pa.Table  # a row per `Prediction`
    bands: list[Band]


def make(spec: Mapping[str, Any], context: Context) -> str:
    """Examine, draw, judge; returns the tables as Markdown."""
    is_smoke = context.scale == "smoke"
    everything = range(len(spec["traces"]))
    for panel in context.panels or ():
        if panel not in everything:
            raise ValueError(f"panels={panel} does not exist: the laboratory has the traces 0 to {len(everything) - 1}")
    chosen = context.panels or (range(1) if is_smoke else everything)
    names = spec["smoke_surrogates"] if is_smoke else surrogate_names()
    work = []
    for number in chosen:
        of = spec["traces"][number]
        trials = 30 if is_smoke else of.get("trials", spec["trials"])
        benchmark = made(context.compose(of["overrides"]).benchmark)
        trace = laboratory.record(of["name"], benchmark, trials=trials, brackets=of.get("brackets", 4))
        work += [(trace, name) for name in names]
    context.say(f"{len(work)} pairs of trace and surrogate")
    processes = min(context.processes, len(work))
    if processes == 1:
        examined = [_examine(pair) for pair in work]
    else:
        with ProcessPoolExecutor(processes, get_context("spawn"), initializer=prepare_worker) as pool:
            examined = list(pool.map(_examine, work))
    kinds = {of["name"]: of["kind"] for of in spec["traces"]}
    for name in dict.fromkeys(e.trace.name for e in examined):
        part = name.lower().replace(" ", "_").replace("-", "")
        mine = [e for e in examined if e.trace.name == name]
        replace(context, name=f"{context.name}_{part}").save(_draw_curves(mine, kinds[name]))
    context.save(_draw_calibration(examined, spec["interval"], kinds))
    context.write_data(_data(examined), {"title": spec["title"]})
    claims = [claim for e in examined for claim in _claims(e, spec["interval"], kinds[e.trace.name])]
    text = context.write_verdicts(spec["title"], claims, [])
    text = text.replace("| the paper's claim |", "| claim |") + "\n" + _table(examined)
    context.path("data", "md").write_text(text)
    return text


def surrogate_names() -> list[str]:
    from experiments.cli import CONFIG_DIR

    return sorted(path.stem for path in (CONFIG_DIR / "surrogate").glob("*.yaml"))


def _examine(pair: tuple[Trace, str]) -> Examined:
    trace, name = pair
    surrogate = laboratory.surrogate_of(name)
    found = laboratory.examine(trace, surrogate)
    columns = {field: [getattr(p, field) for p in found] for field in Prediction._fields}
    return Examined(trace, name, pa.table(columns), laboratory.bands(trace, surrogate, laboratory.typical(trace)))


def _cells(e: Examined, task: str, r: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(truth, mean, std) of the cells of a task, at one rung or at all."""
    columns = {name: e.cells[name].to_numpy(zero_copy_only=False) for name in ("task", "r", "truth", "mean", "std")}
    mask = columns["task"] == task
    if r is not None:
        mask &= columns["r"] == r
    return columns["truth"][mask], columns["mean"][mask], columns["std"][mask]


def _claims(e: Examined, interval: Sequence[float], kind: str) -> list[Claim]:
    """Whether the 90 % interval covers what it should at each rung that a trial was continued to."""
    low, high = interval
    found, failed, judged = [], [], 0
    for r in e.trace.levels:
        cells = _cells(e, "continued", r)
        if len(cells[0]) < LEAST_CELLS:
            continue
        share, judged = laboratory.coverage(*cells), judged + 1
        found.append(f"r={r}: {share:.0%} of {len(cells[0])}")
        if not low <= share <= high:
            failed.append(str(r))
    said = f"the 90 % interval covers {low:.0%} to {high:.0%} at each held-out rung"
    verdict = "undecided" if judged == 0 else f"failed at r={', '.join(failed)}" if failed else "holds"
    return [Claim(said, f"{e.surrogate} on {e.trace.name} ({kind})", "; ".join(found), verdict)]


def _table(examined: Sequence[Examined]) -> str:
    """A row per trace and surrogate; the best of a trace in bold."""
    heads = ("trace", "surrogate", "NLL, continued", "NLL, new", "RMSE of a new curve at r_max", "rank correlation, new", "coverage, new")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for trace in dict.fromkeys(e.trace.name for e in examined):
        mine = [e for e in examined if e.trace.name == trace]
        numbers = np.array([_numbers(e) for e in mine])
        for e, row in zip(mine, numbers, strict=True):
            cells = [f"**{v:.3g}**" if v == best else f"{v:.3g}" for v, best in zip(row, np.nanmin(numbers, axis=0), strict=True)]
            ranks, covers = ([], [])  # type: tuple[list[str], list[str]]
            for r in e.trace.levels:
                truth, mean, std = _cells(e, "new", r)
                ranks.append(f"{laboratory.rank_correlation(truth, mean):.2f}")
                covers.append(f"{laboratory.coverage(truth, mean, std):.0%}")
            lines.append(f"| {trace} | {e.surrogate} | {' | '.join(cells)} | {'/'.join(ranks)} | {'/'.join(covers)} |")
    return "\n".join([*lines, ""])


def _numbers(e: Examined) -> tuple[float, float, float]:
    """Negative log-likelihoods in nats per cell, and the leave-one-curve-out error in units of the metric."""
    nll = [laboratory.log_likelihood(*_cells(e, task)) for task in laboratory.TASKS]
    truth, mean, _ = _cells(e, "new", e.trace.r_max)
    return nll[0], nll[1], float(np.sqrt(np.mean((truth - mean) ** 2)) * laboratory.units(e.trace)[1])


def _data(examined: Sequence[Examined]) -> pa.Table:
    tables = []
    for e in examined:
        labels = {"trace": [e.trace.name] * len(e.cells), "surrogate": [e.surrogate] * len(e.cells)}
        tables.append(pa.table({**labels, **{name: e.cells[name] for name in e.cells.column_names}}))
    return pa.concat_tables(tables)


def _draw_calibration(examined: Sequence[Examined], interval: Sequence[float], kinds: Mapping[str, str]) -> Figure:
    """Coverage of held-out rungs, and rank correlation of new trials, by rung; a column per trace."""
    traces = list(dict.fromkeys(e.trace.name for e in examined))
    width = 2.6 * len(traces) + 1.4
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, 4.4), layout="constrained")
        grid = figure.subplots(2, len(traces), squeeze=False, sharey="row")
        for column, name in enumerate(traces):
            mine = [e for e in examined if e.trace.name == name]
            for i, e in enumerate(mine):
                style: Any = {"color": COLOURS[i % len(COLOURS)], "linestyle": ("-", "--")[i // len(COLOURS) % 2], "label": e.surrogate}
                style |= {"marker": "o", "markersize": 2.5, "linewidth": 1}
                levels = [r for r in e.trace.levels if len(_cells(e, "continued", r)[0]) >= LEAST_CELLS]
                grid[0, column].plot(levels, [laboratory.coverage(*_cells(e, "continued", r)) for r in levels], **style)
                ranks = [laboratory.rank_correlation(*_cells(e, "new", r)[:2]) for r in e.trace.levels]
                grid[1, column].plot(e.trace.levels, ranks, **style)
            grid[0, column].axhspan(*interval, color="#EEEEEE", zorder=0)
            grid[0, column].axhline(laboratory.INTERVAL, color="#999999", linewidth=0.6, zorder=1)
            grid[0, column].set_title(f"{name}\n({kinds[name]})", fontsize=8)
            for axes in grid[:, column]:
                _rungs(axes, mine[0].trace.levels)
            grid[1, column].set_xlabel("resource")
        grid[0, 0].set_ylabel("coverage of the 90 % interval,\ntrials continued")
        grid[1, 0].set_ylabel("rank correlation of mean\nand truth, new trials")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize=6)
    return figure


def _draw_curves(examined: Sequence[Examined], kind: str) -> Figure:
    """Mean and 90 % interval of three curves of which one cell is known; a column per surrogate, a row per trial."""
    trials = len(examined[0].bands)
    width = 1.55 * len(examined) + 0.5
    trace = examined[0].trace
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, 1.45 * trials + 0.6), layout="constrained")
        figure.suptitle(heading(f"Posterior learning curves given one cell: {trace.name} ({kind})", width), fontsize=8)
        grid = figure.subplots(trials, len(examined), squeeze=False, sharex=True, sharey="row")
        for column, e in enumerate(examined):
            grid[0, column].set_title(e.surrogate, fontsize=7)
            for row, band in enumerate(e.bands):
                _draw_band(grid[row, column], trace, band)
        for row, label in enumerate(("a good trial", "a middling one", "a bad one")[:trials]):
            grid[row, 0].set_ylabel(f"metric, {label}", fontsize=6)
        grid[-1, len(examined) // 2].set_xlabel("resource")
    return figure


def _draw_band(axes: Axes, trace: Trace, band: Band) -> None:
    truth = trace.curves[band.trial]
    low, high = band.mean - Z * band.std, band.mean + Z * band.std
    if len(band.r) == len(trace.levels):  # a surrogate that knows levels only
        axes.errorbar(band.r, band.mean, Z * band.std, color=COLOURS[0], fmt="o", markersize=2, linewidth=0.8)
    else:
        axes.fill_between(band.r, low, high, color=COLOURS[0], alpha=0.2, linewidth=0)
        axes.plot(band.r, band.mean, color=COLOURS[0], linewidth=1)
    axes.plot(np.arange(1, len(truth) + 1), truth, color="black", linewidth=0.8)
    axes.plot(band.seen_r, truth[band.seen_r - 1], color=COLOURS[1], marker="o", markersize=3.5, linestyle="none")
    _rungs(axes, trace.levels)


def _rungs(axes: Axes, levels: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(levels))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=6)
