"""Asynchronous successive halving with one or many brackets, in its stopping and its promotion variant.

One bracket and `promotion` is ASHA (Li et al. 2020, algorithm 2); several brackets, drawn by eq. (1) of Klein et al. 2020, are
asynchronous Hyperband, the scheduler of A-BOHB. No rung below r_max (r_min = r_max) is plain asynchronous full-length evaluation.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate
from typing import Literal

from schedulers.draws import Uniforms
from schedulers.history import History, State
from schedulers.rungs import PassRule, Placement, Rung, bracket_weights, passes, rung_levels
from schedulers.types import Decision, Job, Report, Searcher, Slot, Verdict


class AsyncHyperband:
    """The state machine. Levels and reports are in units of the benchmark's resource.

    variant: `stopping` judges a trial when it reaches a rung and ends it there or lets it run on; `promotion` pauses every trial at
        its rung, and a free worker resumes the best paused one that passes.
    brackets: bracket s starts at rung s; capped at the number of levels.
    rung_system: `per_bracket` compares trials of the same bracket only (paper); `shared` lets all brackets share rungs (syne-tune).
    resume_from: where a promoted trial starts again, `checkpoint` or `scratch` (the paper's footnote 2).
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
        variant: Literal["stopping", "promotion"] = "stopping",
        pass_rule: PassRule = "paper",
        rung_system: Literal["per_bracket", "shared"] = "per_bracket",
        placement: Placement = "bottom_up",
        merge_top: bool = False,
        resume_from: Literal["checkpoint", "scratch"] = "checkpoint",
        seed: int = 0,
    ) -> None:
        choices = {"variant": (variant, "stopping", "promotion"), "pass_rule": (pass_rule, "paper", "quantile")}
        choices |= {"rung_system": (rung_system, "per_bracket", "shared"), "resume_from": (resume_from, "checkpoint", "scratch")}
        choices |= {"placement": (placement, "bottom_up", "top_down")}
        for name, (value, *valid) in choices.items():
            if value not in valid:
                raise ValueError(f"scheduler.{name}={value} is unknown: choose {' or '.join(valid)}")
        if brackets < 1:
            raise ValueError(f"scheduler.brackets={brackets} must be at least 1")
        self.searcher = searcher
        self.levels = rung_levels(r_min, r_max, eta, placement, merge_top)
        self.history = History(self.levels)
        self._promotes = variant == "promotion"
        self._from_scratch = resume_from == "scratch"
        self._weights = bracket_weights(self.levels, brackets)
        pairs = list(zip(self.levels, self.levels[1:], strict=False))
        shared = {r: Rung.empty(r, r_next, pass_rule) for r, r_next in pairs}
        self._rungs = [
            {r: (shared[r] if rung_system == "shared" else Rung.empty(r, r_next, pass_rule)) for r, r_next in pairs[s:]}
            for s in range(len(self._weights))
        ]
        if rung_system == "shared":
            self._rungs = [shared] * len(self._weights)
        self._draws = Uniforms(seed, "bracket")
        self._num_jobs = 0

    def ask(self) -> Job | None:
        first = self._draw_bracket()
        job = self._promote(first) if self._promotes else None
        job = job or self._start(first)
        if job is None and self._promotes:  # the space is exhausted: what is left are promotions in other brackets
            job = next(filter(None, map(self._promote, range(len(self._weights)))), None)
        self._num_jobs += job is not None
        return job

    def tell(self, report: Report) -> Verdict:
        trial = self.history.trials[report.trial_id]
        if report.error:
            return self._fail(report)
        if self.history.is_repeat(report):
            return Verdict(Decision.CONTINUE, f"resource {report.r} was reported before the restart", self._until(trial.trial_id))
        self.history.observe(report)
        assert report.r is not None
        if report.r >= self.levels[-1]:
            self.history.end(trial.trial_id, State.COMPLETED)
            return Verdict(Decision.STOP, f"reached r_max={self.levels[-1]}")
        rung = self._rung_at(trial.bracket, report.r)
        if rung is None:
            return self._go_on(trial.trial_id, report.r, f"r={report.r} is no rung of bracket {trial.bracket}")
        judgement = rung.insert(trial.trial_id, report.metric)
        if self._promotes:
            self.history.pause(trial.trial_id)
            return Verdict(Decision.PAUSE, judgement)
        if passes(judgement):
            return self._go_on(trial.trial_id, report.r, judgement)
        self.history.end(trial.trial_id, State.STOPPED)
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
        return Verdict(Decision.CONTINUE, why, self._until(trial_id))

    def _until(self, trial_id: int) -> int:
        return self.history.pending[trial_id]

    def _draw_bracket(self) -> int:
        weights = self.searcher.bracket_weights(self.history) or self._weights
        if len(weights) == 1:
            return 0
        edges = list(accumulate(weights))
        return min(bisect_right(edges, self._draws[self._num_jobs] * edges[-1]), len(edges) - 1)

    def _start(self, bracket: int) -> Job | None:
        milestone = self.levels[bracket]
        slot = Slot(len(self.history.trials), bracket, milestone, self.levels[-1])
        proposal = self.searcher.suggest(self.history, slot)
        if proposal is None:
            return None
        r_to = milestone if self._promotes else self.levels[-1]
        trial = self.history.launch(proposal, bracket, milestone, r_to)
        return Job(trial.trial_id, proposal.config, 0, r_to, bracket, until=milestone)

    def _promote(self, bracket: int) -> Job | None:
        for rung in sorted(self._rungs[bracket].values(), key=lambda rung: -rung.r):
            if (found := rung.promotable()) is None:
                continue
            rung.promote()
            trial = self.history.promote(found[0], rung.r_next, rung.r_next)
            r_from = 0 if self._from_scratch else trial.r
            return Job(trial.trial_id, trial.proposal.config, r_from, rung.r_next, trial.bracket, until=rung.r_next)
        return None
