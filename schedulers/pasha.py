"""PASHA (Bohdal et al. 2023): ASHA with a cap on the resource, which rises only while the ranking of the trials still changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from schedulers.asha import AsyncHyperband, ResumeFrom
from schedulers.crossings import Crossings
from schedulers.rungs import PassRule, Placement
from schedulers.settings import check_choice
from schedulers.types import Job, Report, Searcher, Slot, Verdict

PashaVariant = Literal["code", "paper"]


class Raised(NamedTuple):
    """A verdict that raised the cap; str() is the sentence for the log."""

    why: object
    low: int
    high: int
    disagreement: float
    epsilon: float
    cap: int

    def __str__(self) -> str:
        return (
            f"{self.why}; the rankings at {self.low} and {self.high} differ by {self.disagreement:.6g}, more than "
            f"epsilon {self.epsilon:.6g}: trials may now reach {self.cap}"
        )


class Pasha:
    """The state machine. Levels and reports are in units of the benchmark's resource.

    The rankings of the two rungs below or at the cap are compared; where they disagree, the cap rises by one rung. `variant`: `code` (the
    authors' implementation, behind the published tables) lets trials reach the higher of the two rungs compared, first eta r_min; in the
    paper's pseudo-code (`paper`) they may go one rung beyond it, first eta^2 r_min.
    epsilon: values at the lower rung that differ by no more than this count as equal; None: estimated (see `schedulers.crossings`);
        0: rankings must be the same.
    With fewer than two rungs below r_max there is nothing to compare, and this is ASHA.
    """

    def __init__(
        self,
        searcher: Searcher,
        *,
        r_min: int,
        r_max: int,
        eta: float = 3,
        variant: PashaVariant = "code",
        epsilon: float | None = None,
        pass_rule: PassRule = "paper",
        placement: Placement = "bottom_up",
        merge_top: bool = False,
        rungs: Sequence[int] | None = None,
        resume_from: ResumeFrom = "checkpoint",
        seed: int = 0,
    ) -> None:
        check_choice("variant", variant, PashaVariant)
        if epsilon is not None and not 0 <= epsilon < math.inf:
            raise ValueError(f"scheduler.epsilon={epsilon} must be a number of at least 0 (or null: estimated)")
        self._asha = AsyncHyperband(
            searcher,
            r_min=r_min,
            r_max=r_max,
            eta=eta,
            variant="promotion",
            pass_rule=pass_rule,
            placement=placement,
            merge_top=merge_top,
            rungs=rungs,
            resume_from=resume_from,
            seed=seed,
        )
        self.searcher, self.history, self.levels = searcher, self._asha.history, self._asha.levels
        self._ahead = int(variant == "paper")
        self._fixed_epsilon, self._seed = epsilon, seed
        self._curves: dict[int, list[tuple[int, float]]] = {}
        self._top = 1  # the higher of the two levels that are compared
        self._window = Crossings(self.levels[0], self.levels[min(1, len(self.levels) - 1)], seed, 0.0)
        self._is_due = False
        self._set_cap()

    @property
    def cap(self) -> int:
        """The level that trials may reach now."""
        return self._asha.cap

    def ask(self) -> Job | None:
        return self._asha.ask()

    def next_slot(self) -> Slot:
        return self._asha.next_slot()

    def tell(self, report: Report) -> Verdict:
        is_news = report.r is not None and not self.history.is_repeat(report)
        verdict = self._asha.tell(report)
        if self._is_at_the_end():
            return verdict
        if is_news:
            assert report.r is not None
            curve = self._curves.setdefault(report.trial_id, [])
            curve.append((report.r, report.metric if math.isfinite(report.metric) else math.inf))
            self._is_due |= self._window.report(report.trial_id, curve)
        return self._compare(verdict) if self._is_due else verdict

    def withdraw(self, trial_id: int) -> None:
        """A rule outside (`schedulers.median`) ends a running trial between its rungs."""
        self._asha.withdraw(trial_id)

    def _compare(self, verdict: Verdict) -> Verdict:
        self._is_due = False
        disagreement = self._window.disagreement()
        if disagreement == 0:
            return verdict
        epsilon = self._window.epsilon() if self._fixed_epsilon is None else self._fixed_epsilon
        if disagreement <= epsilon:
            return verdict
        low, high = self._window.low, self._window.high
        self._top += 1
        self._set_cap()
        if not self._is_at_the_end():
            self._window = Crossings(high, self.levels[self._top], self._seed, epsilon)
            self._is_due = self._refill()
        return verdict._replace(why=Raised(verdict.why, low, high, disagreement, epsilon, self.cap))

    def _refill(self) -> bool:
        """Trials that are in the new window already, as they are when they may go beyond it; returns whether there are any."""
        found = False
        for trial_id, curve in sorted(self._curves.items()):
            inside = [entry for entry in curve if entry[0] <= self._window.high]
            found |= bool(inside) and self._window.report(trial_id, inside)
        return found

    def _set_cap(self) -> None:
        last = len(self.levels) - 1
        self._asha.cap = self.levels[last if last < 2 else min(self._top + self._ahead, last)]
        if self._is_at_the_end():
            self._curves.clear()

    def _is_at_the_end(self) -> bool:
        return self._asha.cap == self.levels[-1]
