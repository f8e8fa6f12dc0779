"""Synchronous successive halving and Hyperband (Li et al. 2018): a rung is judged only when every one of its slots has a result.

A bracket is a table of slots, `sizes[j]` at levels[s + j]. One bracket repeated is successive halving; cycling through several, from the
most aggressive (s = 0) to plain full-length runs, is Hyperband.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from schedulers.asha import ResumeFrom
from schedulers.history import History, State
from schedulers.rungs import BracketSizes, Placement, bracket_sizes, rung_levels
from schedulers.settings import check_choice, check_whole
from schedulers.types import Decision, Job, Report, Searcher, Slot, Verdict


class Waiting(NamedTuple):
    """A trial's result at a rung that is not complete yet; str() is the sentence for the log."""

    r: int
    num: int
    size: int

    def __str__(self) -> str:
        return f"rung {self.r} waits: {self.num} of its {self.size} slots have results"


class Ranked(NamedTuple):
    """The result that completed its rung; str() is the sentence for the log."""

    r: int
    rank: int
    size: int
    num_promoted: int

    def __str__(self) -> str:
        if self.num_promoted == 0:
            return f"rung {self.r} is complete and none of its {self.size} trials goes on"
        side = "within" if self.rank <= self.num_promoted else "behind"
        best = "the best" if self.num_promoted == 1 else f"the best {self.num_promoted}"
        return f"rung {self.r} is complete: rank {self.rank} of {self.size}, {side} {best}"


@dataclass(slots=True)
class _Bracket:
    """Rung `j` is being filled. A record is (metric, order of arrival, trial); inf: failed, or no number."""

    s: int
    levels: tuple[int, ...]
    sizes: list[int]
    j: int = 0
    num_started: int = 0  # of rung j
    records: list[tuple[float, int, int]] = field(default_factory=list)
    waiting: deque[int] = field(default_factory=deque)  # promoted trials that no worker took yet

    @property
    def level(self) -> int:
        return self.levels[self.j]

    @property
    def has_open_slot(self) -> bool:
        """Whether a new trial may start: only in the lowest rung."""
        return self.j == 0 and self.num_started < self.sizes[0]

    @property
    def is_judged(self) -> bool:
        """Whether every slot of the rung has its result."""
        return len(self.records) == self.sizes[self.j]

    def survivors(self) -> list[int]:
        """The trials that go on when the rung is judged as it stands, best first; those without a number never do."""
        if self.j + 1 == len(self.levels):
            return []
        ranked = sorted(record for record in self.records if record[0] < math.inf)
        return [trial for _, _, trial in ranked[: self.sizes[self.j + 1]]]

    def move_up(self, survivors: list[int]) -> None:
        """The next rung takes `survivors`; it has no other slots, so a bracket that lost trials never waits for them."""
        self.j += 1
        self.num_started, self.records, self.waiting = 0, [], deque(survivors)
        self.sizes[self.j] = len(survivors)


class Hyperband:
    """The state machine. Levels and reports are in units of the benchmark's resource.

    brackets: Hyperband cycles through the first so many brackets, capped at the number of levels; 1: successive halving.
    bracket_sizes: how many trials a rung holds, `ceil` (the Hyperband paper) or `hpbandster`; see `rungs.bracket_sizes`.
    early_next_bracket: when a free worker finds nothing to do in the open brackets, the next one begins (as in HpBandSter and
        syne-tune); False: workers idle until the bracket is complete.
    max_brackets: the study ends after so many; None: it goes on until the budget is spent.
    A trial that failed, reported no number or crashed keeps its slot, ranked last, and is not replaced. Slots that the searcher cannot
    fill any more (space or budget exhausted) are closed, and those that were filled are judged without them.
    """

    def __init__(
        self,
        searcher: Searcher,
        *,
        r_min: int,
        r_max: int,
        eta: float = 3,
        brackets: int = 1,
        bracket_sizes: BracketSizes = "ceil",
        early_next_bracket: bool = True,
        max_brackets: int | None = None,
        placement: Placement = "bottom_up",
        merge_top: bool = False,
        rungs: Sequence[int] | None = None,
        resume_from: ResumeFrom = "checkpoint",
    ) -> None:
        check_choice("bracket_sizes", bracket_sizes, BracketSizes)
        check_choice("placement", placement, Placement)
        check_choice("resume_from", resume_from, ResumeFrom)
        check_whole("brackets", brackets)
        if max_brackets is not None:
            check_whole("max_brackets", max_brackets)
        self.searcher = searcher
        self.levels = rung_levels(r_min, r_max, eta, placement, merge_top, rungs)
        self.history = History(self.levels)
        self._early, self._max_brackets = early_next_bracket, max_brackets
        self._from_scratch = resume_from == "scratch"
        self.tables = table(self.levels, eta, brackets, bracket_sizes)
        self._brackets: list[_Bracket | None] = []  # in order of creation; None: complete
        self._ready: list[int] = []  # a heap of the brackets with promoted trials that no worker took yet
        self._filling: int | None = None  # the bracket with open slots, of which there is at most one
        self._num_open = 0
        self._member: dict[int, int] = {}  # trial -> its bracket's place in `_brackets`

    def ask(self) -> Job | None:
        return self._promote() or self._start() or self._close()

    def tell(self, report: Report) -> Verdict:
        trial_id, r = report.trial_id, report.r
        is_repeat = self.history.is_repeat(report)
        if r is not None and not is_repeat:
            self.history.observe(report)
        if report.error:
            self.history.end(trial_id, State.FAILED)
            self._record(trial_id, math.inf)
            return Verdict(Decision.STOP, f"failed: {report.error.strip().splitlines()[-1]}")
        assert r is not None
        if is_repeat:
            return Verdict(Decision.CONTINUE, f"resource {r} was reported before the restart", self.history.pending[trial_id])
        if trial_id in self.history.pending:
            return Verdict(Decision.CONTINUE, f"r={r} is below the next rung", self.history.pending[trial_id])
        if r >= self.levels[-1]:
            self.history.end(trial_id, State.COMPLETED)
            self._record(trial_id, report.metric)
            return Verdict(Decision.STOP, f"reached r_max={self.levels[-1]}")
        self.history.pause(trial_id)
        return Verdict(Decision.PAUSE, self._record(trial_id, report.metric))

    def withdraw(self, trial_id: int) -> None:
        """A rule outside (`schedulers.median`) ends a running trial between its rungs; its slot counts as failed."""
        self.history.end(trial_id, State.STOPPED)
        self._record(trial_id, math.inf)

    def _record(self, trial_id: int, metric: float) -> Waiting | Ranked:
        """Fill the trial's slot; judge the rung when that was the last one."""
        number = self._member[trial_id]
        bracket = self._brackets[number]
        assert bracket is not None
        value = metric if math.isfinite(metric) else math.inf
        own = value, len(bracket.records), trial_id
        bracket.records.append(own)
        level, size, num = bracket.level, bracket.sizes[bracket.j], len(bracket.records)
        if not bracket.is_judged:
            return Waiting(level, num, size)
        rank = 1 + sum(record < own for record in bracket.records)
        survivors = bracket.survivors()
        self._advance(number, bracket, survivors)
        return Ranked(level, rank, size, len(survivors))

    def _advance(self, number: int, bracket: _Bracket, survivors: list[int]) -> None:
        if survivors:
            bracket.move_up(survivors)
            heapq.heappush(self._ready, number)
        else:
            self._brackets[number] = None
            self._num_open -= 1

    def _promote(self) -> Job | None:
        if not self._ready:
            return None
        number = self._ready[0]
        bracket = self._brackets[number]
        assert bracket is not None
        trial_id = bracket.waiting.popleft()
        if not bracket.waiting:
            heapq.heappop(self._ready)
        bracket.num_started += 1
        trial = self.history.promote(trial_id, bracket.level, bracket.level)
        r_from = 0 if self._from_scratch else trial.r
        return Job(trial_id, trial.proposal.config, r_from, bracket.level, bracket.s, until=bracket.level)

    def _start(self) -> Job | None:
        """A new trial in an open slot, of a new bracket if need be."""
        bracket = None if self._filling is None else self._brackets[self._filling]
        if bracket is None and not self._may_begin():
            return None
        s = len(self._brackets) % len(self.tables) if bracket is None else bracket.s
        milestone = self.levels[s]
        slot = Slot(len(self.history.trials), s, milestone, self.levels[-1])
        proposal = self.searcher.suggest(self.history, slot)
        if proposal is None:
            return None
        if bracket is None:
            bracket = _Bracket(s, self.levels[s:], list(self.tables[s]))
            self._filling = len(self._brackets)
            self._brackets.append(bracket)
            self._num_open += 1
        assert self._filling is not None
        trial = self.history.launch(proposal, s, milestone, milestone)
        self._member[trial.trial_id] = self._filling
        bracket.num_started += 1
        if not bracket.has_open_slot:
            self._filling = None
        return Job(trial.trial_id, proposal.config, 0, milestone, s, until=milestone)

    def _may_begin(self) -> bool:
        if self._max_brackets is not None and len(self._brackets) >= self._max_brackets:
            return False
        return self._early or self._num_open == 0

    def _close(self) -> Job | None:
        """Nothing can be started: the slots of the bracket that is being filled are closed once what did start is through.

        Only done when it makes a job, so that an ask without an answer changes nothing.
        """
        bracket = None if self._filling is None else self._brackets[self._filling]
        if bracket is None or len(bracket.records) < bracket.num_started or not (survivors := bracket.survivors()):
            return None
        assert self._filling is not None
        number, self._filling = self._filling, None
        self._advance(number, bracket, survivors)
        return self._promote()


def table(levels: Sequence[int], eta: float, brackets: int, rule: BracketSizes) -> list[tuple[int, ...]]:
    """The sizes of the rungs of each of the first `brackets` brackets."""
    return [bracket_sizes(levels, eta, s, rule) for s in range(min(brackets, len(levels)))]
