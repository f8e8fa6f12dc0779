"""What a figure keeps of each of its lines, and what an earlier run found for panels or lines that are not computed now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from experiments.paper.context import Context
from experiments.paper.lines import named, overrides_of
from experiments.paper.panel import Line
from experiments.store import Incumbents, Meant, Study, made_by, metadata, taken

Key = tuple[int, Line]  # a panel's number, and a line of it


class Kept(NamedTuple):
    """What the data's notes say of a line. `settings` and `digest` are as in a study's metadata; None: not known."""

    overrides: str  # a digest
    settings: dict[str, Any] | None
    digest: str | None
    commits: list[str]  # by which its studies were computed
    seeds: int
    counts: list[float] | None  # configurations started, and trained to r_max; medians over seeds
    spent: float | None  # seconds that its studies took, by their own records


class Earlier(NamedTuple):
    """`counted` is as `regret` writes it."""

    runs: dict[tuple[int, Line, int], Incumbents]  # by panel's number, line and seed
    lines: dict[Key, Kept]
    counted: dict[str, list[int]]


def kept(studies: Iterable[Study], events: Mapping[Study, pa.Table]) -> Kept:
    """Of a line that was computed now, by its studies, one for each seed."""
    studies = list(studies)
    tables = [events[study] for study in studies]
    about = metadata(tables[0])
    counts = np.median([_counts(table) for table in tables], axis=0).tolist()
    commits = sorted(set(map(made_by, tables)))
    known = about.get("settings"), about.get("digest")
    return Kept(overrides_of(studies[0]), *known, commits, len(tables), counts, sum(map(taken, tables)))


def _counts(table: pa.Table) -> tuple[int, int]:
    is_full = pc.and_(pc.equal(table["r"], metadata(table)["r_max"]), pc.is_valid(table["metric"]))  # jobs have no metric
    started, full = (pc.count_distinct(rows["trial"]).as_py() for rows in (table, table.filter(is_full)))
    return started, full


def read(
    panels: Sequence[Mapping[str, Any]], studies: Sequence[Mapping[tuple[Line, int], Study]], chosen: Sequence[int], context: Context
) -> Earlier:
    """Of the panels that are not `chosen`, every line and seed of those that the data has; with panels=missing every line that it has as it
    would be computed now.

    Raises ValueError if a panel lacks a line, or has one with other settings, or if nothing is left to be drawn. Notes in `context` which
    commits computed what is taken, and how long it took.
    """
    if context.earlier is None:
        return Earlier({}, {}, {})
    table, about, meant = context.earlier_data(), context.earlier_about(), Meant(context.compose)
    found = Earlier({}, {}, {})
    for number, (panel, mine) in enumerate(zip(panels, studies, strict=True)):
        rows = table.filter(pc.equal(table["panel"], panel["name"]))
        if not len(rows) or (number in chosen and not context.only_missing):
            continue
        where = f"earlier={context.earlier} has panel {number} ({panel['name']})"
        if panel["name"] not in about.get("lines", {}):
            raise ValueError(f"{where} in the form of an older version: compute it anew")
        before = {name: Kept(**line) for name, line in about["lines"][panel["name"]].items()}
        runs = {(line, seed): _run(rows, line, seed) for line, seed in mine}
        for line in dict.fromkeys(line for line, _ in mine):
            study = mine[line, 0]
            problem = _problem(
                before.get(named(line)), [seed for (of, seed), run in runs.items() if of == line and run is None], study, meant
            )
            if not problem:
                _take(found, number, line, before[named(line)], runs, context)
            elif not context.only_missing:
                raise ValueError(f"{where}, {named(line)}, {problem}: compute it anew")
        _time(found, number, panel["name"], context)
    if not found.runs and not chosen:
        raise ValueError(f"earlier={context.earlier} has none of the panels of figure {context.name}")
    seeds = context.num_seeds()
    found.counted.update({name: each[:seeds] for name, each in about.get("counted", {}).items() if len(each) >= seeds})
    return found


def _run(rows: pa.Table, line: Line, seed: int) -> Incumbents | None:
    wanted = {"method": line.method, "workers": line.workers, "seed": seed}
    mine = rows.filter(np.all([rows[name].to_numpy() == value for name, value in wanted.items()], axis=0))
    return Incumbents(*(mine[name].to_numpy() for name in Incumbents._fields)) if len(mine) else None


def _problem(before: Kept | None, lacking: Sequence[int], study: Study, meant: Meant) -> str:
    """Why a line cannot be taken; empty if it can."""
    if before is None:
        return "not at all"
    if before.overrides != overrides_of(study):
        return "with other overrides"
    if change := meant.change({"settings": before.settings, "digest": before.digest}, study.overrides):
        return f"of {change}"
    return f"without seed {lacking[0]}" if lacking else ""


def _take(found: Earlier, number: int, line: Line, before: Kept, runs: Mapping[Any, Incumbents | None], context: Context) -> None:
    mine = {seed: run for (of, seed), run in runs.items() if of == line and run is not None}
    found.runs.update({(number, line, seed): run for seed, run in mine.items()})
    is_all = before.seeds == len(mine)  # else counts and seconds are of other seeds, too
    found.lines[number, line] = before if is_all else before._replace(seeds=len(mine), counts=None, spent=None)
    context.made_by.update(before.commits)


def _time(found: Earlier, number: int, panel: str, context: Context) -> None:
    spent = [line.spent for (of, _), line in found.lines.items() if of == number]
    if spent:
        known = [seconds for seconds in spent if seconds is not None]
        context.spent_earlier[panel] = sum(known) if len(known) == len(spent) else None
