"""Immediate regret over wall-clock time, methods side by side: figures 2 to 5 and 7 to 9 of Klein et al. 2020.

A specification has `panels` (task, workers, methods; `left_out`: pairs of method and workers) and `claims` (a relation between two lines
of a panel). The two ends of a claim are compared seed by seed; see `experiments.statistics` for how. `counted` are claims about how many
configurations a method starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from experiments.paper.context import Context
from experiments.paper.judged import at_all_times, at_floor, judge, judge_pooled, medians, test_accuracies
from experiments.paper.panel import Line, Panel, share_optimum, title_of
from experiments.paper.regret_picture import draw
from experiments.paper.started import counted_as, judge_started, started
from experiments.statistics import Steps
from experiments.store import Incumbents, Study, incumbents, metadata

SMOKE_SHARE = 0.05  # of a panel's time


def make(spec: Mapping[str, Any], context: Context) -> str:
    """Simulate, draw, judge; returns the verdict table."""
    if context.scale == "paper" and context.seeds is None:
        context = replace(context, seeds=spec.get("seeds"))
    chosen = _chosen(spec, context)
    studies = {
        (number, line, seed): study for number in chosen for (line, seed), study in _studies(spec["panels"][number], context).items()
    }
    events = context.run(list(studies.values()))
    runs = {key: incumbents(events[study]) for key, study in studies.items()} | _earlier(spec, chosen, context)
    runs = dict(sorted(runs.items(), key=lambda item: item[0][0]))
    panels = {number: _panel(spec["panels"][number], number, runs, context) for number, _, _ in runs}
    counts = _counts(studies, events, panels) | _earlier_counts(panels, chosen, context)
    counted = _counted(spec, studies, events, panels, context)
    spent = _spent(studies, panels, chosen, context)
    share_optimum(list(panels.values()))
    context.save(draw(spec, list(panels.values()), context.scale == "smoke"))
    settings = {panels[number].name: _settings(spec["panels"][number], context) for number in panels}
    about = {
        "settings": settings,
        "title": spec["title"],
        "optimum": {p.name: p.optimum for p in panels.values()},
        "counts": counts,
        "counted": counted,
        "spent": spent,
    }
    context.write_data(_data(panels, runs), about)
    single, pooled = ([claim for claim in spec["claims"] if claim.get("pooled", False) is side] for side in (False, True))
    compared = [(claim, panels[number]) for claim in single for number in panels_of(claim) if number in panels]
    claims = [judge(claim, panel) for claim, panel in compared]
    claims += [judge_pooled(c, [panels[n] for n in panels_of(c)]) for c in pooled if all(n in panels for n in panels_of(c))]
    claims += [judge_started(claim, panels[number], counted) for claim, number in _counted_in(spec, panels)]
    notes = _notes(spec, list(panels.values()), counts, context)
    left_out = [panel["name"] for number, panel in enumerate(spec["panels"]) if number not in panels]
    left_out += [f"{method} with {w} workers" for number in panels for method, w in spec["panels"][number].get("left_out", [])]
    if left_out:
        notes.append(f"Not run: {'; '.join(left_out)}.")
    tables = [at_all_times(compared)] if context.scale == "paper" else []
    if "test_accuracy_at" in spec:
        tables += [test_accuracies(panel, spec["test_accuracy_at"]) for panel in panels.values()]
    return context.write_verdicts(title_of(spec, list(panels.values())), claims, notes, tables)


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
    return {
        (Line(method, w), seed): context.study(panel["task"], method, w, seed, seconds=_seconds(panel, w, context))
        for method in panel["methods"]
        for w in (workers[:1] if is_smoke else workers)
        for seed in range(context.num_seeds())
        if [method, w] not in panel.get("left_out", [])
    }


def _seconds(panel: Mapping[str, Any], workers: int, context: Context) -> float:
    """When a study with so many workers ends: some tasks have but so many seconds of work."""
    task = context.tasks[panel["task"]]
    share = SMOKE_SHARE if context.scale == "smoke" else 1
    return share * float(min(task["seconds"], task.get("worker_seconds", np.inf) / workers))


def _earlier(spec: Mapping[str, Any], chosen: Sequence[int], context: Context) -> dict[tuple[int, Line, int], Incumbents]:
    """What an earlier run found for the panels that are not computed now: of those that are in its data, every line and seed."""
    if context.earlier is None:
        return {}
    table, settings, found = context.earlier_data(), context.earlier_about().get("settings", {}), {}
    for number, panel in enumerate(spec["panels"]):
        rows = table.filter(pc.equal(table["panel"], panel["name"]))
        if number in chosen or not len(rows):
            continue
        if settings.get(panel["name"]) != _settings(panel, context):
            raise ValueError(f"earlier={context.earlier} has panel {number} ({panel['name']}) with other settings: compute it anew")
        for line, seed in _studies(panel, context):
            wanted = {"method": line.method, "workers": line.workers, "seed": seed}
            mine = rows.filter(np.all([rows[name].to_numpy() == value for name, value in wanted.items()], axis=0))
            if not len(mine):
                which = ", ".join(f"{name} {value}" for name, value in wanted.items())
                raise ValueError(f"earlier={context.earlier} has panel {number} ({panel['name']}) without {which}: compute it anew")
            found[number, line, seed] = Incumbents(*(mine[name].to_numpy() for name in Incumbents._fields))
    return found


def _settings(panel: Mapping[str, Any], context: Context) -> str:
    """A digest of all that fixes the runs of a panel but their seeds."""
    studies = _studies(panel, context)
    return Study(tuple(sorted({f"{line} {study.path.parent}" for (line, _), study in studies.items()})), 0).path.parent.name


def _panel(panel: Mapping[str, Any], number: int, runs: Mapping[Any, Any], context: Context) -> Panel:
    task = context.tasks[panel["task"]]
    parts: list[dict[Line, dict[int, Steps]]] = [{}, {}, {}]
    for (of, line, seed), found in runs.items():
        if of == number:
            for part, values in zip(parts, (found.best, found.final, found.test), strict=True):
                part.setdefault(line, {})[seed] = Steps(found.time, values)
    best, finals, tests = parts
    several = len({line.workers for line in best}) > 1
    ends = {line: _seconds(panel, line.workers, context) for line in best}
    about = (panel["name"], panel["task"], task.get("stand_in"), task.get("pool"))
    return Panel(*about, ends, task["floor"], best, finals, tests, several)


def _spent(studies: Mapping[Any, Study], panels: Mapping[int, Panel], chosen: Sequence[int], context: Context) -> dict[str, float]:
    """By panel: the seconds that its studies took, by their own records, as far as there are any."""
    mine = {number: {study for (of, _, _), study in studies.items() if of == number} for number in chosen}
    found = {panels[number].name: sum(context.spent[study] for study in of_panel) for number, of_panel in mine.items()}
    if context.earlier is not None:
        before = context.earlier_about().get("spent", {})
        context.spent_earlier.update({panel.name: before.get(panel.name) for number, panel in panels.items() if number not in chosen})
    return found | {name: seconds for name, seconds in context.spent_earlier.items() if seconds is not None}


Counts = dict[str, dict[str, list[float]]]


def _counts(studies: Mapping[Any, Study], events: Mapping[Study, pa.Table], panels: Mapping[int, Panel]) -> Counts:
    """By panel and line: how many configurations were started, and how many trained to r_max; medians over seeds."""
    found: dict[str, dict[str, list[Any]]] = {}
    for (number, line, _), study in studies.items():
        table = events[study]
        is_full = pc.and_(pc.equal(table["r"], metadata(table)["r_max"]), pc.is_valid(table["metric"]))  # jobs have no metric
        full = table.filter(is_full)
        counts = [pc.count_distinct(rows["trial"]).as_py() for rows in (table, full)]
        found.setdefault(panels[number].name, {}).setdefault(panels[number].name_of(line), []).append(counts)
    return {panel: {line: np.median(each, axis=0).tolist() for line, each in lines.items()} for panel, lines in found.items()}


def _earlier_counts(panels: Mapping[int, Panel], chosen: Sequence[int], context: Context) -> Counts:
    """The same of the panels that are not computed now, where the data has them."""
    known = {} if context.earlier is None else context.earlier_about().get("counts", {})
    return {panel.name: known[panel.name] for number, panel in panels.items() if number not in chosen and panel.name in known}


def _counted(
    spec: Mapping[str, Any], studies: Mapping[Any, Study], events: Mapping[Study, pa.Table], panels: Mapping[int, Panel], context: Context
) -> dict[str, list[int]]:
    """By `counted_as`: what a claim's method has started, for each seed; of panels that are not new, as an earlier run found it."""
    found = {}
    for claim, number in _counted_in(spec, panels):
        panel = panels[number]
        line = panel.line(claim["method"])
        mine = [study for (of, its, _), study in studies.items() if (of, its) == (number, line)]
        if mine:
            found[counted_as(claim, panel)] = [started(events[study], claim["at"] * panel.ends[line]) for study in mine]
    before = {} if context.earlier is None else context.earlier_about().get("counted", {})
    known = {name: counts[: context.num_seeds()] for name, counts in before.items() if len(counts) >= context.num_seeds()}
    return known | found


def _counted_in(spec: Mapping[str, Any], panels: Mapping[int, Panel]) -> list[tuple[Mapping[str, Any], int]]:
    return [(claim, claim.get("panel", 0)) for claim in spec.get("counted", []) if claim.get("panel", 0) in panels]


def _notes(spec: Mapping[str, Any], panels: Sequence[Panel], counts: Mapping[str, Any], context: Context) -> list[str]:
    seeds = context.num_seeds()
    of_paper = spec.get("seeds", 30)
    is_whole = context.scale == "paper" and seeds >= of_paper
    notes = [f"{seeds} paired seeds{'' if is_whole else f' (the paper scale has {of_paper})'}, decision time zero."]
    for panel in panels:
        notes.append(medians(panel))
        if panel.pool:
            notes.append(at_floor(panel))
        if panel.name in counts:
            each = ", ".join(f"{line} {started:g}/{full:g}" for line, (started, full) in counts[panel.name].items())
            notes.append(f"{panel.name}, configurations started/trained to r_max in the median: {each}.")
    return [*notes, *spec.get("notes", [])]


def _data(panels: Mapping[int, Panel], runs: Mapping[Any, Any]) -> pa.Table:
    rows: dict[str, list[Any]] = {name: [] for name in ("panel", "method", "workers", "seed", "time", "best", "final", "test")}
    for (number, line, seed), steps in runs.items():
        for step in zip(*steps, strict=True):
            for name, value in zip(rows, (panels[number].name, line.method, line.workers, seed, *step), strict=True):
                rows[name].append(value)
    return pa.table(rows)
