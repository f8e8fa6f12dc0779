"""The trials' life cycle: running -> (paused -> running)* -> stopped | completed | failed.

Every change of the pending set is one of these transitions and happens here only, so that no pending entry can outlive its trial and
no failure can erase the entries of others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from schedulers.types import Proposal, Report


class State(Enum):
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    COMPLETED = "completed"
    FAILED = "failed"


ENDED = frozenset({State.STOPPED, State.COMPLETED, State.FAILED})


@dataclass(slots=True)
class Trial:
    """One configuration's training. `r` is the largest resource observed so far, `num_jobs` how often it was handed to a worker."""

    trial_id: int
    proposal: Proposal
    bracket: int
    state: State = State.RUNNING
    r: int = 0
    r_to: int = 0
    num_jobs: int = 1


class History:
    """All trials and observations of a study, in order of arrival.

    `levels` are the resources that matter: the rungs and r_max. `pending` maps a running trial to the milestone at which its next
    observation of consequence is due. Observations are parallel lists; the metric may be nan (diverged), and is minimised.
    """

    def __init__(self, levels: Sequence[int]) -> None:
        self.levels = tuple(levels)
        self.trials: list[Trial] = []
        self.pending: dict[int, int] = {}
        self.observed_trials: list[int] = []
        self.observed_resources: list[int] = []
        self.observed_metrics: list[float] = []

    def copy(self) -> History:
        """As it is now: what happens later does not show in the copy."""
        other = History(self.levels)
        other.trials = [replace(trial) for trial in self.trials]
        other.pending = dict(self.pending)
        other.observed_trials = self.observed_trials[:]
        other.observed_resources = self.observed_resources[:]
        other.observed_metrics = self.observed_metrics[:]
        return other

    def launch(self, proposal: Proposal, bracket: int, milestone: int, r_to: int) -> Trial:
        """A new trial starts running and is expected at `milestone`."""
        trial = Trial(len(self.trials), proposal, bracket, r_to=r_to)
        self.trials.append(trial)
        self.pending[trial.trial_id] = milestone
        return trial

    def is_repeat(self, report: Report) -> bool:
        """Whether the trial had reported this resource before (it restarted from scratch): time passes, nothing is learnt."""
        return report.r is not None and report.r <= self.trials[report.trial_id].r

    def observe(self, report: Report) -> Trial:
        """Record a report with a resource; the pending entry goes when its milestone is reached or skipped."""
        trial = self.trials[report.trial_id]
        assert trial.state is State.RUNNING, f"trial {trial.trial_id} is {trial.state.value} and cannot report"
        assert report.r is not None and report.r > trial.r
        trial.r = report.r
        self.observed_trials.append(trial.trial_id)
        self.observed_resources.append(report.r)
        self.observed_metrics.append(report.metric if math.isfinite(report.metric) else math.nan)
        if self.pending[trial.trial_id] <= report.r:
            del self.pending[trial.trial_id]
        return trial

    def expect(self, trial_id: int, milestone: int) -> None:
        """A running trial goes on towards its next milestone."""
        assert self.trials[trial_id].state is State.RUNNING
        self.pending[trial_id] = milestone

    def pause(self, trial_id: int) -> None:
        self._leave(trial_id, State.PAUSED)

    def promote(self, trial_id: int, milestone: int, r_to: int) -> Trial:
        """A paused trial runs again, towards `milestone`."""
        trial = self.trials[trial_id]
        assert trial.state is State.PAUSED, f"trial {trial_id} is {trial.state.value} and cannot be promoted"
        trial.state = State.RUNNING
        trial.r_to = r_to
        trial.num_jobs += 1
        self.pending[trial_id] = milestone
        return trial

    def end(self, trial_id: int, state: State) -> None:
        """The trial is stopped, completed or failed and never runs again; its pending entry goes, those of others stay."""
        assert state in ENDED
        self._leave(trial_id, state)

    def _leave(self, trial_id: int, state: State) -> None:
        trial = self.trials[trial_id]
        assert trial.state is State.RUNNING, f"trial {trial_id} is {trial.state.value}, not running"
        trial.state = state
        self.pending.pop(trial_id, None)
