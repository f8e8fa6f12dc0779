"""One step at a time: a free worker goes on with the paused trial that the searcher scores highest, or begins a new one (DyHPO)."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

from schedulers.draws import Uniforms
from schedulers.history import History, State
from schedulers.rungs import Placement, num_passing, rung_levels
from schedulers.settings import check_choice
from schedulers.types import Decision, Job, Report, Searcher, Slot, Verdict


class Stepwise:
    """Every trial pauses at every level. In `Searcher.score` the id that follows the last trial stands for a new configuration.

    rank_probability: of following the ranks instead, as ASHA does: the best paused trial of the highest level whose rule it passes goes
        on. Scores alone may never leave the first level, where new trials promise most because least is known of them (syne-tune: 0.25).
    placement, rungs: the levels, by default every r_min (see `rungs.rung_levels`). Ties go to the new configuration.
    Raises ValueError when the searcher gives no scores.
    """

    def __init__(
        self,
        searcher: Searcher,
        *,
        r_min: int,
        r_max: int,
        eta: float = 3,
        placement: Placement = "linear",
        rungs: Sequence[int] | None = None,
        rank_probability: float = 0.25,
        seed: int = 0,
    ) -> None:
        if not 0 <= rank_probability <= 1:
            raise ValueError(f"scheduler.rank_probability={rank_probability} must be a probability, from 0 to 1")
        check_choice("placement", placement, Placement)
        self.levels = rung_levels(r_min, r_max, eta, placement, rungs=rungs)
        self.history = History(self.levels)
        if searcher.score(self.history, []) is None:
            raise ValueError("scheduler=stepwise needs a searcher that scores paused trials: choose searcher=dyhpo, or another scheduler")
        self.searcher = searcher
        self._paused: dict[int, int] = {}  # trial -> its next level
        self._records: dict[int, dict[int, float]] = {level: {} for level in self.levels}  # level -> trial -> metric
        self._coins = Uniforms(seed, "ranks")
        self._rank_probability, self._num_jobs = rank_probability, 0

    def ask(self) -> Job | None:
        follows_ranks = self._coins[self._num_jobs] < self._rank_probability
        job = (self._promote() if follows_ranks else None) or self._follow_scores()
        self._num_jobs += job is not None
        return job

    def _follow_scores(self) -> Job | None:
        new = len(self.history.trials)
        options = [(new, self.levels[0]), *sorted(self._paused.items())]
        scores = self.searcher.score(self.history, options)
        assert scores is not None
        best_first = sorted(range(len(options)), key=lambda i: -scores[i])
        for trial_id, level in (options[i] for i in best_first):
            job = self._start(level) if trial_id == new else self._go_on(trial_id, level)
            if job is not None:
                return job
        return None

    def tell(self, report: Report) -> Verdict:
        trial_id, r = report.trial_id, report.r
        if report.error:
            if r is not None and not self.history.is_repeat(report):
                self.history.observe(report)
                if r in self._records:
                    self._records[r][trial_id] = math.inf
            self.history.end(trial_id, State.FAILED)
            return Verdict(Decision.STOP, f"failed: {report.error.strip().splitlines()[-1]}")
        if self.history.is_repeat(report):
            return Verdict(Decision.CONTINUE, f"resource {r} was reported before the restart", self.history.pending[trial_id])
        self.history.observe(report)
        assert r is not None
        if r >= self.levels[-1]:
            self.history.end(trial_id, State.COMPLETED)
            return Verdict(Decision.STOP, f"reached r_max={self.levels[-1]}")
        if trial_id in self.history.pending:
            return Verdict(Decision.CONTINUE, f"r={r} is no level", self.history.pending[trial_id])
        self._records[r][trial_id] = report.metric
        self.history.pause(trial_id)
        self._paused[trial_id] = self.levels[bisect_right(self.levels, r)]
        return Verdict(Decision.PAUSE, f"one step is over at r={r}; the scores decide who goes on")

    def _promote(self) -> Job | None:
        for level, above in reversed(list(pairwise(self.levels))):
            records = self._records[level]
            waiting = [trial_id for trial_id in records if self._paused.get(trial_id) == above]
            k = num_passing(len(records), level, above, "paper")
            if not waiting or k == 0:
                continue
            best = min(waiting, key=records.__getitem__)
            if records[best] <= sorted(records.values())[k - 1]:
                return self._go_on(best, above)
        return None

    def _start(self, level: int) -> Job | None:
        slot = Slot(len(self.history.trials), 0, level, self.levels[-1])
        proposal = self.searcher.suggest(self.history, slot)
        if proposal is None:
            return None
        trial = self.history.launch(proposal, 0, level, level)
        return Job(trial.trial_id, proposal.config, 0, level, until=level)

    def _go_on(self, trial_id: int, level: int) -> Job:
        del self._paused[trial_id]
        trial = self.history.promote(trial_id, level, level)
        return Job(trial_id, trial.proposal.config, trial.r, level, until=level)
