"""The runs of one picture of regret over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.statistics import Steps


class Line(NamedTuple):
    method: str
    workers: int


class Panel(NamedTuple):
    """`runs`: by line and seed; `finals` and `tests` are of the same incumbents, and need not fall."""

    name: str
    task: str
    stand_in: str | None
    pool: str | None  # what it is instead, if it is the paper's own on no more than a table
    ends: dict[Line, float]  # seconds
    floor: float
    runs: dict[Line, dict[int, Steps]]
    finals: dict[Line, dict[int, Steps]]  # what the incumbents' configurations reach at r_max
    tests: dict[Line, dict[int, Steps]]  # their test metrics
    several_workers: bool

    @property
    def seconds(self) -> float:
        """Where the longest line ends."""
        return max(self.ends.values())

    def until(self, *lines: Line) -> float:
        """The time that all these lines have, in seconds."""
        return min(self.ends[line] for line in lines)

    def when(self, share: float, *lines: Line) -> str:
        """A share of that time, in words."""
        seconds = self.until(*lines)
        return f"{share:g} of the time" + (f" ({share * seconds:g} s)" if seconds < self.seconds else "")

    @property
    def optimum(self) -> float:
        """The best that was ever seen on this panel's task: what regret is measured against."""
        return min(float(run.best[-1]) for runs in self.runs.values() for run in runs.values() if len(run.best))

    @property
    def lines(self) -> list[Line]:
        return [line for line in self.runs if line.workers]

    def label(self, line: Line) -> str:
        return f"{line.method}, {line.workers} worker{'s' * (line.workers > 1)}" if self.several_workers else line.method

    def name_of(self, line: Line) -> str:
        return f"{line.method} with {line.workers}" if self.several_workers else line.method

    def line(self, end: Any) -> Line:
        """One end of a claim: a method, or a method and its number of workers."""
        if isinstance(end, str):
            return Line(end, next(line.workers for line in self.lines))
        return Line(end[0], int(end[1]))


def side_by_side(panels: Sequence[Panel]) -> Panel:
    """The lines of panels of one task as those of one panel."""
    kinds = ("ends", "runs", "finals", "tests")
    parts: dict[str, Any] = {part: {line: of for panel in panels for line, of in getattr(panel, part).items()} for part in kinds}
    several = len({line.workers for line in parts["ends"]}) > 1
    return panels[0]._replace(name=" and ".join(panel.name for panel in panels), several_workers=several, **parts)


def share_optimum(panels: Sequence[Panel]) -> None:
    """Panels of one task are measured against one optimum: each gets a run of the others' best, of no method of its own."""
    for panel in panels:
        best = min(other.optimum for other in panels if other.task == panel.task)
        if best < panel.optimum:
            panel.runs[Line("(best of the other panels)", 0)] = {-1: Steps(np.array([np.inf]), np.array([best]))}


def title_of(spec: Mapping[str, Any], panels: Sequence[Panel]) -> str:
    """The figure's, with what stands in for what, and what is a table of the real thing."""
    pools = dict.fromkeys(panel.pool for panel in panels if panel.pool)
    stand_ins = dict.fromkeys(panel.stand_in for panel in panels if panel.stand_in)
    return " — ".join([spec["title"], *pools] + ["stand-in: " + "; ".join(stand_ins)] * bool(stand_ins))
