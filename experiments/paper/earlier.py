"""What an earlier run of a figure found, for the panels or lines that are not computed now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from experiments.paper.context import Context
from experiments.paper.lines import named, settings_of
from experiments.paper.panel import Line
from experiments.store import Incumbents, Study

Counts = dict[str, dict[str, list[float]]]  # by panel and line


class Earlier(NamedTuple):
    """`runs` by panel's number, line and seed; `counts` and `counted` as `regret` writes them."""

    runs: dict[tuple[int, Line, int], Incumbents]
    counts: Counts
    counted: dict[str, list[int]]


def read(
    panels: Sequence[Mapping[str, Any]], studies: Sequence[Mapping[tuple[Line, int], Study]], chosen: Sequence[int], context: Context
) -> Earlier:
    """Of the panels that are not `chosen`, every line and seed of those that the data has; with panels=missing every line that the data
    has as it would be computed now.

    Raises ValueError if a panel lacks a line, or has one with other settings. Notes in `context` what the panels' studies took,
    lines that are computed anew included.
    """
    if context.earlier is None:
        return Earlier({}, {}, {})
    table, about = context.earlier_data(), context.earlier_about()
    runs: dict[tuple[int, Line, int], Incumbents] = {}
    for number, (panel, mine) in enumerate(zip(panels, studies, strict=True)):
        rows = table.filter(pc.equal(table["panel"], panel["name"]))
        if not len(rows) or (number in chosen and not context.only_missing):
            continue
        found = {(line, seed): _run(rows, line, seed) for line, seed in mine}
        before = about.get("settings", {}).get(panel["name"])
        usable = _usable(panel, number, mine, found, before if isinstance(before, dict) else {}, context)  # once it was a text
        runs |= {(number, line, seed): run for (line, seed), run in found.items() if line in usable and run is not None}
        if usable:
            context.spent_earlier[panel["name"]] = about.get("spent", {}).get(panel["name"])
    names = {panels[number]["name"] for number, _, _ in runs}
    counts = {name: lines for name, lines in about.get("counts", {}).items() if name in names}
    seeds = context.num_seeds()
    counted = {name: each[:seeds] for name, each in about.get("counted", {}).items() if len(each) >= seeds}
    return Earlier(runs, counts, counted)


def _run(rows: pa.Table, line: Line, seed: int) -> Incumbents | None:
    wanted = {"method": line.method, "workers": line.workers, "seed": seed}
    mine = rows.filter(np.all([rows[name].to_numpy() == value for name, value in wanted.items()], axis=0))
    return Incumbents(*(mine[name].to_numpy() for name in Incumbents._fields)) if len(mine) else None


def _usable(
    panel: Mapping[str, Any],
    number: int,
    studies: Mapping[tuple[Line, int], Study],
    found: Mapping[tuple[Line, int], Incumbents | None],
    before: Mapping[str, str],
    context: Context,
) -> set[Line]:
    """The lines whose settings are now what they were, and that lack no seed."""
    now, lines = settings_of(studies), dict.fromkeys(line for line, _ in studies)
    same = {line for line in lines if before.get(named(line)) == now[named(line)]}
    lacking = [key for key, run in found.items() if run is None]
    if context.only_missing:
        return same - {line for line, _ in lacking}
    where = f"earlier={context.earlier} has panel {number} ({panel['name']})"
    if lacking:
        line, seed = lacking[0]
        raise ValueError(f"{where} without method {line.method}, workers {line.workers}, seed {seed}: compute it anew")
    if len(same) < len(lines):
        raise ValueError(f"{where} with other settings: compute it anew")
    return same
