"""Rungs and brackets of successive halving: levels, sizes, the bracket law and the pass rule, in integers throughout.

Floating-point logarithms lose rungs (log 243 / log 3 < 5) and quantiles lose boundary trials, so levels are products of exact fractions
and a rule is a number k of trials that pass. Lower metrics are better; a metric that is not finite ranks behind every number.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal, NamedTuple

PassRule = Literal["paper", "quantile", "raytune", "neps"]
Placement = Literal["bottom_up", "top_down", "linear"]
BracketSizes = Literal["ceil", "hpbandster"]
USELESS_FRACTION = Fraction(3, 4)


def exact(eta: float) -> Fraction:
    """eta as the fraction its decimal notation says (2.5 -> 5/2). Raises ValueError below 2."""
    value = Fraction(str(eta))
    if value < 2:
        raise ValueError(f"eta={eta} is too small: successive halving needs eta >= 2 (the papers use 3 or 4)")
    return value


def rung_levels(
    r_min: int,
    r_max: int,
    eta: float,
    placement: Placement = "bottom_up",
    merge_top: bool = False,
    rungs: Sequence[int] | None = None,
) -> tuple[int, ...]:
    """The resources at which trials are judged, then r_max: (r_min, r_min eta, ..., r_max), in units of the benchmark's resource.

    `bottom_up` (Li et al. 2020, algorithm 1) multiplies from r_min; `top_down` divides from r_max, as HpBandSter does. Both round half
    to even. `linear` judges at every r_min. An explicit list `rungs` takes the place of all three. Bracket s uses levels[s:]. With
    `merge_top` a last rung that would promote over 3/4 of its trials is left out: with (1, 28, 3) the rung at 27 decides nothing.
    Raises ValueError when the settings make no rungs.
    """
    ratio = exact(eta)
    if int(r_min) != r_min or int(r_max) != r_max or r_min < 1:
        raise ValueError(f"r_min={r_min} and r_max={r_max} must be whole numbers, with r_min >= 1")
    if r_min > r_max:
        raise ValueError(f"r_min={r_min} must not exceed r_max={r_max}")
    if rungs is not None:
        return _explicit(rungs, int(r_max))
    levels: list[Fraction] = []
    if placement == "top_down":
        level = Fraction(int(r_max)) / ratio
        while level >= r_min:
            levels.insert(0, level)
            level /= ratio
    elif placement == "linear":
        levels = [Fraction(r) for r in range(int(r_min), int(r_max), int(r_min))]
    else:
        level = Fraction(int(r_min))
        while level < r_max:
            levels.append(level)
            level *= ratio
    rounded = [r for r in dict.fromkeys(round(level) for level in levels) if 1 <= r < r_max]
    if merge_top and rounded and Fraction(rounded[-1], int(r_max)) > USELESS_FRACTION:
        rounded.pop()
    return (*rounded, int(r_max))


def _explicit(rungs: Sequence[int], r_max: int) -> tuple[int, ...]:
    given = list(rungs)
    rising = all(low < high for low, high in pairwise(given))
    if not given or not rising or any(int(r) != r for r in given) or given[0] < 1 or given[-1] > r_max:
        raise ValueError(f"scheduler.rungs={given} must be whole numbers that rise from at least 1 to at most r_max={r_max}")
    return (*(int(r) for r in given if r < r_max), r_max)


def bracket_sizes(levels: Sequence[int], eta: float, s: int, rule: BracketSizes) -> tuple[int, ...]:
    """How many trials the rungs levels[s:] of a synchronous bracket hold, lowest first.

    With M levels and m = M - s of them in the bracket, `ceil` (Li et al. 2018, algorithm 1, as in syne-tune) gives rung j
    ceil(M/m eta^(m-1-j)) trials, `hpbandster` max(floor(n_0 / eta^j), 1) with n_0 = floor(M/m) eta^(m-1).
    """
    ratio, num, own = exact(eta), len(levels), len(levels) - s
    if rule == "ceil":
        return tuple(math.ceil(Fraction(num, own) * ratio ** (own - 1 - j)) for j in range(own))
    first = math.floor(num // own * ratio ** (own - 1))
    return tuple(max(math.floor(first / ratio**j), 1) for j in range(own))


def bracket_weights(levels: Sequence[int], brackets: int) -> tuple[float, ...]:
    """Probabilities of the first `brackets` brackets, P(s) proportional to L / ((L - s) level_s).

    With level_s = r_min eta^s and L = K + 1 this is eq. (1) of Klein et al. 2020, (K+1)/(K-s+1) eta^(K-s): every bracket is to
    receive about the same total resource.
    """
    num = len(levels)
    weights = [Fraction(num, (num - s) * levels[s]) for s in range(min(brackets, num))]
    total = sum(weights)
    return tuple(float(w / total) for w in weights)


def num_passing(n: int, r: int, r_next: int, rule: PassRule) -> int:
    """How many of n records at rung r go on to r_next; 0 while there are too few to judge.

    `paper`: floor(n q) with q = r / r_next, too few below 1/q (= eta) records. `quantile` (syne-tune): 1 + floor((n-1) q), too few
    below 2 records; the integer form of "not above the linearly interpolated q-quantile", exact also where that loses its boundary.
    `raytune` splits its records in the same place but compares with the quantile of the earlier ones (`Rung.insert`). `neps` is the
    paper's number applied to the records that were not promoted yet (`Rung.promotable`): it promotes far too many, and is there to
    reproduce results that were made with it.
    """
    if rule == "paper" or rule == "neps":
        return n * r // r_next
    few = 2 if rule == "quantile" else 1
    return 0 if n < few else 1 + (n - 1) * r // r_next


class Judgement(NamedTuple):
    """Why a record passed its rung or not; str() is the sentence for the log."""

    r: int
    metric: float
    n: int
    k: int
    cutoff: float
    of: str = "results"  # what the n records are

    def __str__(self) -> str:
        if self.k == 0:
            return f"rung {self.r} has {self.n} result{'s' if self.n > 1 else ''}, too few to judge"
        side = "within" if self.metric <= self.cutoff else "behind"
        if self.of == "earlier":
            return f"{side} the quantile of the {self.n - 1} earlier results at rung {self.r}"
        best = "the best" if self.k == 1 else f"the best {self.k}"
        waiting = " that were not promoted" if self.of == "unpromoted" else ""
        return f"{side} {best} of {self.n}{waiting} at rung {self.r}"


@dataclass(slots=True)
class Rung:
    """The records of one rung, with the k-th best at hand in O(log n): k never falls as n grows, so two heaps split the records at k.

    Records stay when their trial is promoted: the rule counts all that ever reached the rung (`neps` alone does not).
    """

    r: int
    r_next: int
    rule: PassRule
    _top: list[float]  # the k best, negated: a max-heap
    _rest: list[float]  # the others: a min-heap
    _unpromoted: list[tuple[float, int, int]]  # (metric, order of arrival, trial): a min-heap
    _n: int = 0
    _num_promoted: int = 0

    @classmethod
    def empty(cls, r: int, r_next: int, rule: PassRule) -> Rung:
        return cls(r, r_next, rule, [], [], [])

    def __len__(self) -> int:
        return self._n

    def insert(self, trial_id: int, metric: float) -> Judgement:
        """Add the record of a trial that reached this rung, and judge it among all records so far, its own included."""
        value = metric if math.isfinite(metric) else math.inf
        earlier = self._quantile() if self.rule == "raytune" else None
        if value < math.inf:  # one that is not finite is never promoted
            heapq.heappush(self._unpromoted, (value, self._n, trial_id))
        self._n += 1
        heapq.heappush(self._rest, -heapq.heappushpop(self._top, -value) if self._top else value)
        k = num_passing(self._n, self.r, self.r_next, self.rule)
        while len(self._top) < k:
            heapq.heappush(self._top, -heapq.heappop(self._rest))
        if earlier is not None:
            return Judgement(self.r, value, self._n, min(self._n - 1, k), earlier, "earlier")
        return self._judge(value)

    def _judge(self, value: float) -> Judgement:
        return Judgement(self.r, value, self._n, len(self._top), -self._top[0] if self._top else math.inf)

    def _quantile(self) -> float:
        """The linearly interpolated q-quantile of the records so far; inf without any."""
        if not self._top:
            return math.inf
        low, high = -self._top[0], self._rest[0] if self._rest else math.inf
        beyond = (self._n - 1) * self.r % self.r_next  # of r_next parts
        if beyond == 0:
            return low
        return low + (high - low) * beyond / self.r_next if high < math.inf else math.inf

    def promotable(self) -> tuple[int, Judgement] | None:
        """The best trial not promoted yet, if it is among those that pass; ties go to the earlier arrival."""
        if not self._unpromoted:
            return None
        value, _, trial_id = self._unpromoted[0]
        if self.rule == "neps":
            left = self._n - self._num_promoted
            k = num_passing(left, self.r, self.r_next, self.rule)
            return (trial_id, Judgement(self.r, value, left, k, value, "unpromoted")) if k else None
        if not self._top or value > -self._top[0]:
            return None
        return trial_id, self._judge(value)

    def promote(self) -> None:
        """Mark the trial that `promotable` named as promoted."""
        heapq.heappop(self._unpromoted)
        self._num_promoted += 1


def passes(judgement: Judgement) -> bool:
    """Whether the judged record goes on in the stopping variant: it is finite, and among the best k or too few are there to judge."""
    return judgement.metric < math.inf and (judgement.k == 0 or judgement.metric <= judgement.cutoff)
