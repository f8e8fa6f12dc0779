"""Immediate regret over wall-clock time, methods side by side: figures 2 to 5 and 7 to 9 of Klein et al. 2020.

A specification has `panels` (task, workers, methods) and `claims` (a relation between two lines of a panel, or, with `across`, of several
panels of one task). The two ends of a claim are compared seed by seed; see `experiments.statistics` for how. `counted` are claims about how
many configurations a method starts; `published` says which accuracies the paper quotes, to be told beside ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from experiments.paper.context import Context
from experiments.paper.earlier import Kept, Key, kept, read
from experiments.paper.judged import accuracy, at_all_times, at_floor, judge, judge_pooled, medians, test_accuracies
from experiments.paper.lines import end_of, named, studies_of
from experiments.paper.panel import Line, Panel, share_optimum, side_by_side, title_of
from experiments.paper.regret_picture import draw
from experiments.paper.started import counted_as, judge_started, started
from experiments.statistics import Steps
from experiments.store import Study, incumbents


def make(spec: Mapping[str, Any], context: Context) -> str:
    """Simulate, draw, judge; returns the verdict table. Raises ValueError for a claim across panels of different tasks."""
    for claim in spec["claims"]:
        if len({spec["panels"][number]["task"] for number in claim.get("across", [])}) > 1:
            raise ValueError(f"figure {context.name}: {claim['text']!r} goes across panels of different tasks")
    if context.scale == "paper" and context.seeds is None:
        context = replace(context, seeds=spec.get("seeds"))
    chosen, wanted = _chosen(spec, context), [studies_of(panel, context) for panel in spec["panels"]]
    earlier = read(spec["panels"], wanted, chosen, context)
    every = {(number, line, seed): study for number, mine in enumerate(wanted) for (line, seed), study in mine.items()}
    studies = {key: study for key, study in every.items() if key[0] in chosen and key not in earlier.runs}
    events = context.run(list(studies.values()))
    new = {key: incumbents(events[study]) for key, study in studies.items()}
    known = new | earlier.runs
    runs = {key: known[key] for key in every if key in known}
    panels = {number: _panel(spec["panels"][number], number, runs, context) for number in sorted({number for number, _, _ in runs})}
    lines = _lines(studies, events, earlier.lines)
    counted = earlier.counted | _counted(spec, studies, events, panels)
    share_optimum(list(panels.values()))
    context.save(draw(spec, list(panels.values()), context.scale == "smoke"))
    about = {
        "lines": {panel.name: {named(line): lines[n, line]._asdict() for line in panel.lines} for n, panel in panels.items()},
        "title": spec["title"],
        "optimum": {p.name: p.optimum for p in panels.values()},
        "counted": counted,
    }
    context.write_data(_data(panels, runs), about)
    single, pooled = ([claim for claim in spec["claims"] if claim.get("pooled", False) is side] for side in (False, True))
    compared = [pair for claim in single for pair in _compared(claim, panels)]
    claims = [judge(claim, panel) for claim, panel in compared]
    claims += [judge_pooled(c, [panels[n] for n in panels_of(c)]) for c in pooled if all(n in panels for n in panels_of(c))]
    claims += [judge_started(claim, panels[number], counted) for claim, number in _counted_in(spec, panels)]
    notes = _notes(spec, panels, lines, context)
    not_run = [panel["name"] for number, panel in enumerate(spec["panels"]) if number not in panels]
    if not_run:
        notes.append(f"Not run: {'; '.join(not_run)}.")
    tables = [at_all_times(compared)] if context.scale == "paper" else []
    if "test_accuracy_at" in spec:
        tables += [test_accuracies(panel, spec["test_accuracy_at"]) for panel in panels.values()]
    return context.write_verdicts(title_of(spec, list(panels.values())), claims, notes, tables)


def panels_of(claim: Mapping[str, Any]) -> Sequence[int]:
    """The numbers of those that it is made of: `panel`, by default the first, may be a list."""
    panel = claim.get("panel", 0)
    return [panel] if isinstance(panel, int) else list(panel)


def _compared(claim: Mapping[str, Any], panels: Mapping[int, Panel]) -> list[tuple[Mapping[str, Any], Panel]]:
    """The panels, of those that there are, in which a claim is judged: each by itself, or the two that it goes across as one."""
    if "across" not in claim:
        return [(claim, panels[number]) for number in panels_of(claim) if number in panels]
    if not all(number in panels for number in claim["across"]):
        return []
    two = [panels[number] for number in claim["across"]]
    ends = {end: panel.line(claim[end]) for end, panel in zip(("first", "second"), two, strict=True)}
    return [({**claim, **ends}, side_by_side(two))]


def _chosen(spec: Mapping[str, Any], context: Context) -> list[int]:
    """The numbers of the panels to make; the smoke scale makes the first."""
    everything = range(len(spec["panels"]))
    if context.panels is not None:
        unknown = [number for number in context.panels if number not in everything]
        if unknown:
            raise ValueError(f"panels={unknown[0]} does not exist: figure {context.name} has the panels 0 to {len(everything) - 1}")
        return list(context.panels)
    return [0] if context.scale == "smoke" and not context.only_missing else list(everything)


def _panel(panel: Mapping[str, Any], number: int, runs: Mapping[Any, Any], context: Context) -> Panel:
    task = context.tasks[panel["task"]]
    parts: list[dict[Line, dict[int, Steps]]] = [{}, {}, {}]
    for (of, line, seed), found in runs.items():
        if of == number:
            for part, values in zip(parts, (found.best, found.final, found.test), strict=True):
                part.setdefault(line, {})[seed] = Steps(found.time, values)
    best, finals, tests = parts
    several = len({line.workers for line in best}) > 1
    ends = {line: end_of(panel, line.workers, context) for line in best}
    about = (panel["name"], panel["task"], task.get("stand_in"), task.get("pool"))
    return Panel(*about, ends, task["floor"], best, finals, tests, several)


def _lines(studies: Mapping[Any, Study], events: Mapping[Study, pa.Table], before: Mapping[Key, Kept]) -> dict[Key, Kept]:
    """What is kept of every line, new or taken from an earlier run."""
    mine: dict[Key, list[Study]] = {}
    for (number, line, _), study in studies.items():
        mine.setdefault((number, line), []).append(study)
    return {**before, **{key: kept(of_line, events) for key, of_line in mine.items()}}


def _counted(
    spec: Mapping[str, Any], studies: Mapping[Any, Study], events: Mapping[Study, pa.Table], panels: Mapping[int, Panel]
) -> dict[str, list[int]]:
    """By `counted_as`: what a claim's method has started, for each seed."""
    found = {}
    for claim, number in _counted_in(spec, panels):
        panel = panels[number]
        line = panel.line(claim["method"])
        mine = [study for (of, its, _), study in studies.items() if (of, its) == (number, line)]
        if mine:
            found[counted_as(claim, panel)] = [started(events[study], claim["at"] * panel.ends[line]) for study in mine]
    return found


def _counted_in(spec: Mapping[str, Any], panels: Mapping[int, Panel]) -> list[tuple[Mapping[str, Any], int]]:
    return [(claim, claim.get("panel", 0)) for claim in spec.get("counted", []) if claim.get("panel", 0) in panels]


def _notes(spec: Mapping[str, Any], panels: Mapping[int, Panel], lines: Mapping[Key, Kept], context: Context) -> list[str]:
    seeds = context.num_seeds()
    of_paper = spec.get("seeds", 30)
    is_whole = context.scale == "paper" and seeds >= of_paper
    notes = [f"{seeds} paired seeds{'' if is_whole else f' (the paper scale has {of_paper})'}, decision time zero."]
    for number, panel in panels.items():
        notes.append(medians(panel))
        if panel.pool:
            notes.append(at_floor(panel))
        known = {panel.name_of(line): lines[number, line].counts for line in panel.lines}
        each = [f"{name} {count[0]:g}/{count[1]:g}" for name, count in known.items() if count is not None]
        if each:
            notes.append(f"{panel.name}, configurations started/trained to r_max in the median: {', '.join(each)}.")
    published = [(each, panel) for each in spec.get("published", []) for panel in panels.values() if panel.name == each["panel"]]
    notes += [f"{panel.name}, {accuracy(panel, each['method'])} (the paper: {each['accuracy']})." for each, panel in published]
    return [*notes, *spec.get("notes", [])]


def _data(panels: Mapping[int, Panel], runs: Mapping[Any, Any]) -> pa.Table:
    rows: dict[str, list[Any]] = {name: [] for name in ("panel", "method", "workers", "seed", "time", "best", "final", "test")}
    for (number, line, seed), steps in runs.items():
        for step in zip(*steps, strict=True):
            for name, value in zip(rows, (panels[number].name, line.method, line.workers, seed, *step), strict=True):
                rows[name].append(value)
    return pa.table(rows)
