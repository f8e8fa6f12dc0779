"""How many configurations a method has started by a time, against a number that a paper names (`counted` in a figure's specification)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from experiments.paper.context import Claim
from experiments.paper.panel import Panel
from experiments.statistics import bootstrap


def started(events: pa.Table, seconds: float) -> int:
    """Trials whose first job began before `seconds`."""
    jobs = events.filter(pc.and_(pc.equal(events["kind"], "job"), pc.less(events["time"], seconds)))
    return int(pc.count_distinct(jobs["trial"]).as_py())


def counted_as(claim: Mapping[str, Any], panel: Panel) -> str:
    """What is counted for a claim, in words."""
    return f"{panel.name}: {claim['method']} at {claim['at']:g}"


def judge_started(claim: Mapping[str, Any], panel: Panel, counted: Mapping[str, Sequence[int]]) -> Claim:
    """`method` has started more than `more_than` configurations at a share `at` of the time, in the median over seeds; what `counted` does
    not have is undecided."""
    line, number = panel.line(claim["method"]), claim["more_than"]
    compared = f"{panel.name}: {panel.name_of(line)} against {number}"
    counts = counted.get(counted_as(claim, panel))
    if counts is None:
        return Claim(claim["text"], compared, "not counted in the earlier run", "undecided")
    found = bootstrap(np.array(counts, float))
    holds = True if found.low > number else False if found.high < number else None
    words = ("stand-in agrees", "stand-in disagrees") if panel.stand_in else ("reproduced", "not reproduced")
    verdict = "undecided" if holds is None else words[0] if holds else words[1]
    said = f"configurations started at {panel.when(claim['at'], line)}: {found.median:g} [{found.low:g}, {found.high:g}], n = {found.n}"
    return Claim(claim["text"], compared, said, verdict)
