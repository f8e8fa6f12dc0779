"""Immediate regret over wall-clock time, methods side by side: figures 2 to 5 and 7 to 9 of Klein et al. 2020.

A specification has `panels` (task, workers, methods) and `claims` (a relation between two lines of a panel). The two ends of a claim are
compared seed by seed; see `experiments.statistics` for how.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from experiments.grid import Incumbents, Study, incumbents
from experiments.paper.context import Claim, Context, heading
from experiments.plots import COLOURS, STYLE
from experiments.statistics import Interval, Steps, all_known, log_regret, mean_curve, regret_difference, time_ratio, verdict

SMOKE_SHARE = 0.05  # of a panel's time
GRID = 200
ROOM = 7  # lines of a legend that a panel has room for
UNITS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"))


class Line(NamedTuple):
    method: str
    workers: int


class Panel(NamedTuple):
    """The runs of one picture. `runs`: by line and seed."""

    name: str
    task: str
    stand_in: str | None
    seconds: float
    floor: float
    runs: dict[Line, dict[int, Steps]]
    tests: dict[Line, dict[int, Steps]]  # the test metrics of the incumbents, which need not fall
    several_workers: bool

    @property
    def optimum(self) -> float:
        """The best that was ever seen on this panel's task: what regret is measured against."""
        return min(float(run.best[-1]) for runs in self.runs.values() for run in runs.values() if len(run.best))

    def label(self, line: Line) -> str:
        return f"{line.method}, {line.workers} worker{'s' * (line.workers > 1)}" if self.several_workers else line.method


def make(spec: Mapping[str, Any], context: Context) -> str:
    """Simulate, draw, judge; returns the verdict table."""
    chosen = _chosen(spec, context)
    studies = {
        (number, line, seed): study for number in chosen for (line, seed), study in _studies(spec["panels"][number], context).items()
    }
    events = context.run(list(studies.values()))
    runs = {key: incumbents(events[study]) for key, study in studies.items()} | _earlier(spec, chosen, context)
    runs = dict(sorted(runs.items(), key=lambda item: item[0][0]))
    panels = {number: _panel(spec["panels"][number], number, runs, context) for number, _, _ in runs}
    _share_optimum(list(panels.values()))
    context.save(_draw(spec, list(panels.values()), context))
    context.write_data(_data(panels, runs), {"title": spec["title"], "optimum": {p.name: p.optimum for p in panels.values()}})
    claims = [_judge(claim, panels[number]) for claim in spec["claims"] for number in panels_of(claim) if number in panels]
    notes = _notes(spec, list(panels.values()), context)
    left_out = [panel["name"] for number, panel in enumerate(spec["panels"]) if number not in panels]
    if left_out:
        notes.append(f"Not run: {'; '.join(left_out)}.")
    tables = [_test_accuracies(panel, spec["test_accuracy_at"]) for panel in panels.values()] if "test_accuracy_at" in spec else []
    return context.write_verdicts(_title(spec, list(panels.values())), claims, notes, tables)


def panels_of(claim: Mapping[str, Any]) -> Sequence[int]:
    """The numbers of those that it is made of: `panel`, by default the first, may be a list."""
    panel = claim.get("panel", 0)
    return [panel] if isinstance(panel, int) else list(panel)


def _chosen(spec: Mapping[str, Any], context: Context) -> list[int]:
    """The numbers of the panels to make; the smoke scale makes the first."""
    everything = range(len(spec["panels"]))
    if context.panels is not None:
        unknown = [number for number in context.panels if number not in everything]
        if unknown:
            raise ValueError(f"panels={unknown[0]} does not exist: figure {context.name} has the panels 0 to {len(everything) - 1}")
        return list(context.panels)
    return [0] if context.scale == "smoke" else list(everything)


def _studies(panel: Mapping[str, Any], context: Context) -> dict[tuple[Line, int], Study]:
    is_smoke = context.scale == "smoke"
    workers = [panel["workers"]] if isinstance(panel["workers"], int) else list(panel["workers"])
    seconds = context.tasks[panel["task"]]["seconds"] * (SMOKE_SHARE if is_smoke else 1)
    return {
        (Line(method, w), seed): context.study(panel["task"], method, w, seed, seconds=seconds)
        for method in panel["methods"]
        for w in (workers[:1] if is_smoke else workers)
        for seed in range(context.num_seeds())
    }


def _earlier(spec: Mapping[str, Any], chosen: Sequence[int], context: Context) -> dict[tuple[int, Line, int], Incumbents]:
    """What an earlier run found for the panels that are not computed now: of those that are in its data, every line and seed."""
    if context.earlier is None:
        return {}
    table, found = context.earlier_data(), {}
    for number, panel in enumerate(spec["panels"]):
        rows = table.filter(pc.equal(table["panel"], panel["name"]))
        if number in chosen or not len(rows):
            continue
        for line, seed in _studies(panel, context):
            wanted = {"method": line.method, "workers": line.workers, "seed": seed}
            mine = rows.filter(np.all([rows[name].to_numpy() == value for name, value in wanted.items()], axis=0))
            if not len(mine):
                which = ", ".join(f"{name} {value}" for name, value in wanted.items())
                raise ValueError(f"earlier={context.earlier} has panel {number} ({panel['name']}) without {which}: compute it anew")
            found[number, line, seed] = Incumbents(*(mine[name].to_numpy() for name in Incumbents._fields))
    return found


def _panel(panel: Mapping[str, Any], number: int, runs: Mapping[Any, Any], context: Context) -> Panel:
    task = context.tasks[panel["task"]]
    mine: dict[Line, dict[int, Steps]] = {}
    tests: dict[Line, dict[int, Steps]] = {}
    for (of, line, seed), found in runs.items():
        if of == number:
            mine.setdefault(line, {})[seed] = Steps(found.time, found.best)
            tests.setdefault(line, {})[seed] = Steps(found.time, found.test)
    seconds = task["seconds"] * (SMOKE_SHARE if context.scale == "smoke" else 1)
    several = len({line.workers for line in mine}) > 1
    return Panel(panel["name"], panel["task"], task.get("stand_in"), seconds, task["floor"], mine, tests, several)


def _share_optimum(panels: Sequence[Panel]) -> None:
    """Panels of one task are measured against one optimum: each gets a run of the others' best, of no method of its own."""
    for panel in panels:
        best = min(other.optimum for other in panels if other.task == panel.task)
        if best < panel.optimum:
            panel.runs[Line("(best of the other panels)", 0)] = {-1: Steps(np.array([np.inf]), np.array([best]))}


def _lines(panel: Panel) -> list[Line]:
    return [line for line in panel.runs if line.workers]


def _judge(claim: Mapping[str, Any], panel: Panel) -> Claim:
    first, second = (_line(claim[end], panel) for end in ("first", "second"))
    if first not in panel.runs or second not in panel.runs:
        return Claim(claim["text"], f"{panel.name}: {first.method} and {second.method}", "not run at this scale", "undecided")
    a, b = panel.runs[first], panel.runs[second]
    relation, when = claim["relation"], claim.get("at", 1.0)
    compared = f"{panel.name}: {_name(first, panel)} against {_name(second, panel)}"
    if relation == "no slower":
        found, regret = time_ratio(a, b, panel.seconds, panel.optimum, panel.floor)
        said = f"log10 of the times' ratio to a regret of {regret:.3g}: {_interval(found)}"
    else:
        found = regret_difference(a, b, when * panel.seconds, panel.optimum, panel.floor)
        said = f"log10 regret at {when:g} of the time: {_interval(found)}"
    return Claim(claim["text"], compared, said, verdict(relation, found, panel.stand_in is not None))


def _line(end: Any, panel: Panel) -> Line:
    if isinstance(end, str):
        return Line(end, next(line.workers for line in _lines(panel)))
    return Line(end[0], int(end[1]))


def _name(line: Line, panel: Panel) -> str:
    return f"{line.method} with {line.workers}" if panel.several_workers else line.method


def _interval(found: Interval) -> str:
    return f"{found.median:+.2f} [{found.low:+.2f}, {found.high:+.2f}], n = {found.n}"


def _title(spec: Mapping[str, Any], panels: Sequence[Panel]) -> str:
    stand_ins = dict.fromkeys(panel.stand_in for panel in panels if panel.stand_in)
    return f"{spec['title']}{' — stand-in: ' + '; '.join(stand_ins) if stand_ins else ''}"


def _notes(spec: Mapping[str, Any], panels: Sequence[Panel], context: Context) -> list[str]:
    seeds = context.num_seeds()
    notes = [f"{seeds} paired seeds{'' if context.scale == 'paper' and seeds >= 30 else ' (the paper scale has 30)'}, decision time zero."]
    for panel in panels:
        at_end = [f"{_name(line, panel)} {10 ** np.median(_final_regrets(panel, line)):.3g}" for line in _lines(panel)]
        notes.append(f"{panel.name}, median regret after {panel.seconds:g} s against {panel.optimum:.5g}: {', '.join(at_end)}.")
    return notes + list(spec.get("notes", []))


def _final_regrets(panel: Panel, line: Line) -> np.ndarray:
    final = np.array([run.at(np.array([panel.seconds]))[0] for run in panel.runs[line].values()])
    return log_regret(final[np.isfinite(final)], panel.optimum, panel.floor)


def _test_accuracies(panel: Panel, shares: Sequence[float]) -> str:
    """A table: mean and standard deviation over seeds of the incumbent's test accuracy, in percent, after shares of the panel's time.

    Runs that have no result by then are left out, and how many there are is said.
    """
    times = np.array([share * panel.seconds for share in shares])
    heads = [f"after {time / 3600:.3g} h" for time in times]
    rows = [f"| {panel.name}: test accuracy of the incumbent (%) | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for line, runs in panel.tests.items():
        accuracy = 100 * (1 - np.array([run.at(times) for run in runs.values()]))
        if np.isnan(accuracy).all():
            raise ValueError(f"test_accuracy_at: the benchmark of {panel.name} has no test metric, or {line.method} no result by then")
        rows.append(f"| {_name(line, panel)} | {' | '.join(map(_mean, accuracy.T))} |")
    return "\n".join(rows)


def _mean(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    if not len(known):
        return "none"
    return f"{known.mean():.2f} ± {known.std(ddof=min(1, len(known) - 1)):.2f}" + (
        f" (n = {len(known)})" if len(known) < len(values) else ""
    )


def _data(panels: Mapping[int, Panel], runs: Mapping[Any, Any]) -> pa.Table:
    rows: dict[str, list[Any]] = {name: [] for name in ("panel", "method", "workers", "seed", "time", "best", "final", "test")}
    for (number, line, seed), steps in runs.items():
        for step in zip(*steps, strict=True):
            for name, value in zip(rows, (panels[number].name, line.method, line.workers, seed, *step), strict=True):
                rows[name].append(value)
    return pa.table(rows)


def _draw(spec: Mapping[str, Any], panels: Sequence[Panel], context: Context) -> Figure:
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    rows = -(-len(panels) // columns)
    width = 2.9 * columns + 0.4
    below = max(len(_lines(panel)) for panel in panels) > ROOM
    height = 2.7 + (0.17 * max(-(-len(_lines(panel)) // 2) for panel in panels) if below else 0)
    title = _title(spec, panels) + (" (smoke scale)" if context.scale == "smoke" else "")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height * rows + 0.5), layout="constrained")
        figure.suptitle(heading(title, width), fontsize=8)
        for number, panel in enumerate(panels):
            axes = figure.add_subplot(rows, columns, number + 1)
            _draw_panel(axes, panel)
            size = 5 if panel.several_workers else 6
            if below:
                axes.legend(fontsize=size, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
            else:
                axes.legend(fontsize=size)
            axes.set_title(panel.name, fontsize=8)
            if number % columns == 0:
                axes.set_ylabel("immediate regret")
        if len({panel.task for panel in panels}) == 1:  # regrets are of one kind: let the eye compare them
            limits = [axes.get_ylim() for axes in figure.axes]
            for axes in figure.axes:
                _limit(axes, min(low for low, _ in limits), max(high for _, high in limits))
    return figure


def _draw_panel(axes: Axes, panel: Panel) -> None:
    """Mean and standard error of the mean, from the time on at which all runs of all lines have a result."""
    grid = np.linspace(0, panel.seconds, GRID)
    lines = _lines(panel)
    known = np.all([all_known(panel.runs[line], grid) for line in lines], axis=0)
    scale, unit = next(((s, u) for s, u in UNITS if panel.seconds > 3 * s), (1.0, "seconds"))
    methods, workers = (list(dict.fromkeys(values)) for values in zip(*lines, strict=True))
    highest, lowest = 0.0, np.inf
    for line in lines:
        mean, error = mean_curve(panel.runs[line], grid[known], panel.optimum)
        mean = np.maximum(mean, panel.floor)
        colour, style = _look(line, methods, workers, panel.several_workers)
        axes.plot(grid[known] / scale, mean, color=colour, linestyle=style, linewidth=1.1, label=panel.label(line))
        if not panel.several_workers and np.isfinite(error).all():
            low = np.maximum(mean - error, panel.floor / 2)
            axes.fill_between(grid[known] / scale, low, mean + error, color=colour, alpha=0.18, linewidth=0)
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
