"""Asynchronous successive halving with one or many brackets, in its stopping and its promotion variant.

One bracket and `promotion` is ASHA (Li et al. 2020, algorithm 2); several brackets, drawn by eq. (1) of Klein et al. 2020, are
asynchronous Hyperband, the scheduler of A-BOHB. No rung below r_max (r_min = r_max) is plain asynchronous full-length evaluation.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Literal

from schedulers.draws import Uniforms
from schedulers.history import History, State
from schedulers.rungs import PassRule, Placement, Rung, bracket_weights, passes, rung_levels
from schedulers.settings import check_choice, check_whole
from schedulers.types import Decision, Job, Report, Searcher, Slot, Verdict

Variant = Literal["stopping", "promotion"]
RungSystem = Literal["per_bracket", "shared"]
BracketLaw = Literal["drawn", "parallel"]
ResumeFrom = Literal["checkpoint", "scratch"]


class AsyncHyperband:
    """The state machine. Levels and reports are in units of the benchmark's resource.

    variant: `stopping` judges a trial when it reaches a rung and ends it there or lets it run on; `promotion` pauses every trial at
        its rung, and a free worker resumes the best paused one that passes.
    brackets: bracket s starts at rung s; capped at the number of levels.
    bracket_law: a free worker's bracket is `drawn` by eq. (1) (or by the searcher, where it has weights of its own), or it is the one
        with the fewest workers (then the least resource handed out), so that all brackets run side by side with equal shares: the ASHA
        paper's `parallel` Hyperband.
    rung_system: `per_bracket` compares trials of the same bracket only (paper); `shared` lets all brackets share rungs (syne-tune).
    resume_from: where a promoted trial starts again, `checkpoint` or `scratch` (the paper's footnote 2).
    rungs: the levels, where `placement` would not make the wanted ones.
    Raises ValueError on settings that make no rungs.
    """

    def __init__(
        self,
        searcher: Searcher,
        *,
        r_min: int,
        r_max: int,
        eta: float = 3,
        brackets: int = 1,
        variant: Variant = "stopping",
        pass_rule: PassRule = "paper",
        bracket_law: BracketLaw = "drawn",
        rung_system: RungSystem = "per_bracket",
        placement: Placement = "bottom_up",
        merge_top: bool = False,
        rungs: Sequence[int] | None = None,
        resume_from: ResumeFrom = "checkpoint",
        seed: int = 0,
    ) -> None:
        check_choice("variant", variant, Variant)
        check_choice("pass_rule", pass_rule, PassRule)
        check_choice("bracket_law", bracket_law, BracketLaw)
        check_choice("rung_system", rung_system, RungSystem)
        check_choice("placement", placement, Placement)
        check_choice("resume_from", resume_from, ResumeFrom)
        check_whole("brackets", brackets)
        if (pass_rule, variant) in (("raytune", "promotion"), ("neps", "stopping")):
            other = "stopping" if variant == "promotion" else "promotion"
            raise ValueError(f"scheduler.pass_rule={pass_rule} is defined for variant={other} only: choose paper or quantile")
        self.searcher = searcher
        self.levels = rung_levels(r_min, r_max, eta, placement, merge_top, rungs)
        self.history = History(self.levels)
        self.cap = self.levels[-1]  # no trial is promoted beyond it (PASHA raises it)
        self._promotes = variant == "promotion"
        self._from_scratch = resume_from == "scratch"
        self._weights = bracket_weights(self.levels, brackets)
        self._edges = list(accumulate(self._weights))
        self._is_parallel = bracket_law == "parallel"
        self._shares = [[0, 0] for _ in self._weights]  # per bracket: workers now, resource handed out so far
        pairs = list(pairwise(self.levels))
        shared = {r: Rung.empty(r, r_next, pass_rule) for r, r_next in pairs}
        self._rungs = [
            shared if rung_system == "shared" else {r: Rung.empty(r, r_next, pass_rule) for r, r_next in pairs[s:]}
            for s in range(len(self._weights))
        ]
        self._highest_first = [list(reversed(rungs.values())) for rungs in self._rungs]
        self._draws = Uniforms(seed, "bracket")
        self._num_jobs = 0

    @property
    def num_brackets(self) -> int:
        return len(self._weights)

    @property
    def bracket_probabilities(self) -> tuple[float, ...] | None:
        """By which brackets are drawn, unless the searcher has weights of its own; None: they run in parallel."""
        return None if self._is_parallel else self._weights

    def ask(self) -> Job | None:
        first = self._next_bracket()
        job = self._promote(first) if self._promotes else None
        job = job or self._start(first)
        if job is None and self._promotes:  # the space is exhausted: what is left are promotions in other brackets
            job = next(filter(None, map(self._promote, range(len(self._weights)))), None)
        if job is not None:
            self._num_jobs += 1
            self._shares[job.bracket][0] += 1
            self._shares[job.bracket][1] += job.r_to - job.r_from
        return job

    def next_slot(self) -> Slot:
        """Of the trial that would begin if a worker were free now; it is another one's if a promotion or other news come first."""
        return self._slot(self._next_bracket())

    def tell(self, report: Report) -> Verdict:
        verdict = self._judge(report)
        if verdict.decision is not Decision.CONTINUE:
            self._shares[self.history.trials[report.trial_id].bracket][0] -= 1
        return verdict

    def withdraw(self, trial_id: int) -> None:
        """A rule outside (`schedulers.median`) ends a running trial between its rungs."""
        self.history.end(trial_id, State.STOPPED)
        self._shares[self.history.trials[trial_id].bracket][0] -= 1

    def _judge(self, report: Report) -> Verdict:
        trial_id, r = report.trial_id, report.r
        if report.error:
            return self._fail(report)
        if self.history.is_repeat(report):
            return Verdict(Decision.CONTINUE, f"resource {r} was reported before the restart", self.history.pending[trial_id])
        trial = self.history.observe(report)
        assert r is not None
        if r >= self.levels[-1]:
            self.history.end(trial_id, State.COMPLETED)
            return Verdict(Decision.STOP, f"reached r_max={self.levels[-1]}")
        rung = self._rung_at(trial.bracket, r)
        if rung is None:
            return self._go_on(trial_id, r, f"r={r} is no rung of bracket {trial.bracket}")
        judgement = rung.insert(trial_id, report.metric)
        if self._promotes:
            self.history.pause(trial_id)
            return Verdict(Decision.PAUSE, judgement)
        if passes(judgement):
            return self._go_on(trial_id, r, judgement)
        self.history.end(trial_id, State.STOPPED)
        return Verdict(Decision.STOP, judgement)

    def _fail(self, report: Report) -> Verdict:
        """A diverged trial takes its place at its rung, behind every number; one that died without a report takes none."""
        trial = self.history.trials[report.trial_id]
        if report.r is not None and not self.history.is_repeat(report):
            self.history.observe(report)
            if (rung := self._rung_at(trial.bracket, report.r)) is not None:
                rung.insert(trial.trial_id, math.nan)
        self.history.end(trial.trial_id, State.FAILED)
        return Verdict(Decision.STOP, f"failed: {report.error.strip().splitlines()[-1]}")

    def _rung_at(self, bracket: int, r: int) -> Rung | None:
        return self._rungs[bracket].get(r) if r >= self.levels[bracket] else None

    def _go_on(self, trial_id: int, r: int, why: object) -> Verdict:
        """The trial runs on towards its next milestone (one that was skipped is not waited for)."""
        if trial_id not in self.history.pending:
            self.history.expect(trial_id, self.levels[bisect_right(self.levels, r)])
        return Verdict(Decision.CONTINUE, why, self.history.pending[trial_id])

    def _next_bracket(self) -> int:
        if len(self._weights) == 1:
            return 0
        if self._is_parallel:
            return self._shares.index(min(self._shares))
        weights = self.searcher.bracket_weights(self.history)
        edges = list(accumulate(weights[: len(self._edges)])) if weights else self._edges
        return min(bisect_right(edges, self._draws[self._num_jobs] * edges[-1]), len(edges) - 1)

    def _slot(self, bracket: int) -> Slot:
        return Slot(len(self.history.trials), bracket, self.levels[bracket], self.levels[-1])

    def _start(self, bracket: int) -> Job | None:
        slot = self._slot(bracket)
        proposal = self.searcher.suggest(self.history, slot)
        if proposal is None:
            return None
        r_to = slot.milestone if self._promotes else self.levels[-1]
        trial = self.history.launch(proposal, bracket, slot.milestone, r_to)
        return Job(trial.trial_id, proposal.config, 0, r_to, bracket, until=slot.milestone)

    def _promote(self, bracket: int) -> Job | None:
        for rung in self._highest_first[bracket]:
            if rung.r >= self.cap or (found := rung.promotable()) is None:
                continue
            rung.promote()
            trial = self.history.promote(found[0], rung.r_next, rung.r_next)
            r_from = 0 if self._from_scratch else trial.r
            return Job(trial.trial_id, trial.proposal.config, r_from, rung.r_next, trial.bracket, until=rung.r_next)
        return None
