"""Brute-force schedulers, written from the definitions: they keep every record in lists and sort them at each question.

They share no code with the product: levels, sizes and rules are derived here again, in another way.
"""

import math
from fractions import Fraction
from itertools import pairwise

from schedulers.types import Decision


def rungs_below(r_min, r_max, eta):
    rungs, level = [], Fraction(r_min)
    while level < r_max:
        rungs.append(round(level))
        level *= Fraction(str(eta))
    return sorted(set(rungs))


class AsyncOracle:
    """Asynchronous Hyperband, stopping or promotion; `cap`: the level beyond which nothing is promoted."""

    def __init__(self, r_min, r_max, eta, rule="paper", shared=False, promotes=False, limit=10**9, brackets=1):
        self.r_max, self.rule, self.shared, self.promotes = r_max, rule, shared, promotes
        self.limit, self.num_brackets = limit, brackets
        self.rungs = rungs_below(r_min, r_max, eta)
        self.cap = r_max
        self.records = []  # (system, rung, trial, value)
        self.promoted = set()  # (rung, trial)
        self.bracket, self.reached = {}, {}

    def system(self, bracket):
        return "all" if self.shared else bracket

    def at(self, bracket, rung):
        return [(value, order, trial) for order, (s, r, trial, value) in enumerate(self.records) if (s, r) == (self.system(bracket), rung)]

    def next_level(self, rung):
        return min([r for r in self.rungs if r > rung], default=self.r_max)

    def num_passing(self, n, rung):
        q = Fraction(rung, self.next_level(rung))
        if self.rule in ("paper", "neps"):
            return math.floor(n * q)
        return 0 if n < 2 else 1 + math.floor((n - 1) * q)

    def milestones(self, trial):
        return [r for r in self.rungs if r >= ([*self.rungs, self.r_max])[self.bracket[trial]]]

    def stays(self, trial, r):
        """Stopping variant, once the report is filed: among the best k, or too few to tell."""
        records = sorted(self.at(self.bracket[trial], r))
        value = next(value for value, _, t in records if t == trial)
        if self.rule == "raytune":
            return value <= self.earlier_quantile([v for v, _, t in records if t != trial], r)
        k = self.num_passing(len(records), r)
        return k == 0 or value <= records[k - 1][0]

    def earlier_quantile(self, values, rung):
        if not values:
            return math.inf
        position = (len(values) - 1) * Fraction(rung, self.next_level(rung))
        low, fraction = math.floor(position), position - math.floor(position)
        if fraction == 0:
            return values[low]
        return math.inf if math.isinf(values[low + 1]) else float(values[low] + fraction * Fraction(values[low + 1] - values[low]))

    def promotion(self, bracket):
        """(trial, rung) that the promotion variant resumes next in this bracket, furthest rung first; None: nothing."""
        for rung in sorted(self.rungs, reverse=True):
            records = sorted(self.at(bracket, rung))
            left = [(v, o, t) for v, o, t in records if (rung, t) not in self.promoted]
            k = self.num_passing(len(left if self.rule == "neps" else records), rung)
            left = [record for record in left if record[0] < math.inf]
            if rung < self.cap and k and left and (self.rule == "neps" or left[0][0] <= records[k - 1][0]):
                return left[0][2], rung
        return None

    def check_job(self, job):
        if job.trial_id not in self.bracket:
            if self.promotes:
                brackets = range(self.num_brackets) if self.shared else [job.bracket]
                assert all(self.promotion(bracket) is None for bracket in brackets), "something could have been promoted"
            self.bracket[job.trial_id], self.reached[job.trial_id] = job.bracket, 0
            return
        assert self.promotes, "the stopping variant must not start a trial twice"
        expected = self.promotion(job.bracket)
        assert expected is not None and expected[0] == job.trial_id
        assert job.r_to == self.next_level(expected[1])
        self.promoted.add((expected[1], job.trial_id))

    def check_idle(self):
        assert len(self.bracket) == self.limit, "a worker idles although the space is not exhausted"
        if self.promotes:
            assert all(self.promotion(bracket) is None for bracket in range(self.num_brackets))

    def check_verdict(self, report, verdict):
        trial, r = report.trial_id, report.r
        if r is None:
            assert verdict.decision is Decision.STOP
            return
        if r <= self.reached[trial]:
            assert verdict.decision is (Decision.STOP if report.error else Decision.CONTINUE)
            return
        self.reached[trial] = r
        at_rung = r in self.milestones(trial)
        if at_rung:
            value = report.metric if math.isfinite(report.metric) else math.inf
            self.records.append((self.system(self.bracket[trial]), r, trial, value))
        if report.error or r == self.r_max:
            assert verdict.decision is Decision.STOP
        elif not at_rung:
            assert verdict.decision is Decision.CONTINUE
        elif self.promotes:
            assert verdict.decision is Decision.PAUSE
        else:
            assert verdict.decision is (Decision.CONTINUE if self.stays(trial, r) else Decision.STOP)
        if verdict.decision is Decision.CONTINUE:
            assert verdict.until == min([m for m in self.milestones(trial) if m > r], default=self.r_max)


class SyncOracle:
    """Synchronous Hyperband: brackets are lists of rungs, a rung is a list of slots, a slot is [trial, started, value or None].

    A promoted trial owns its slot before a worker takes it; `limit` trials may begin, then open slots count as lost.
    """

    def __init__(self, r_min, r_max, eta, sizes="ceil", brackets=1, early=True, max_brackets=None, limit=10**9):
        self.levels = [*rungs_below(r_min, r_max, eta), r_max]
        self.eta, self.rule, self.early, self.max_brackets, self.limit = Fraction(str(eta)), sizes, early, max_brackets, limit
        self.num_kinds = min(brackets, len(self.levels))
        self.brackets = []  # (s, rungs)
        self.num_trials = 0
        self.reached = {}

    def capacity(self, s, j):
        num, own = len(self.levels), len(self.levels) - s
        if self.rule == "ceil":
            exact = Fraction(num, own)
            for _ in range(own - 1 - j):
                exact *= self.eta
            return -(-exact.numerator // exact.denominator)
        first = int((num // own) * self.eta ** (own - 1))
        return max(int(first / self.eta**j), 1)

    def is_complete(self, number):
        """All slots of its last possible rung have results, and there is nobody to go on."""
        s, rungs = self.brackets[number]
        if any(value is None for _, _, value in rungs[-1]):
            return False
        if len(rungs) == 1 and len(rungs[0]) < self.capacity(s, 0) and self.num_trials < self.limit:
            return False
        return len(rungs) == len(self.levels) - s or not self.winners(number)

    def winners(self, number):
        s, rungs = self.brackets[number]
        slots = [(value, order, trial) for order, (trial, _, value) in enumerate(rungs[-1]) if value < math.inf]
        slots = sorted(slots, key=lambda slot: (slot[0], self.arrival[number, len(rungs) - 1, slot[2]]))
        return [trial for _, _, trial in slots[: self.capacity(s, len(rungs))]]

    arrival = None

    def judge(self):
        """Open the next rung of every bracket whose rung is full (or as full as it can get)."""
        for number, (s, rungs) in enumerate(self.brackets):
            full = len(rungs) > 1 or len(rungs[0]) == self.capacity(s, 0) or (self.num_trials >= self.limit and self.nothing_waits())
            has_next = len(rungs) < len(self.levels) - s
            if full and has_next and all(value is not None for _, _, value in rungs[-1]) and (winners := self.winners(number)):
                rungs.append([[trial, False, None] for trial in winners])

    def nothing_waits(self):
        return not any(not started for _, rungs in self.brackets for _, started, _ in rungs[-1])

    def expected(self):
        """("resume", bracket, trial, level), ("new", s, level) or None: what a free worker does."""
        self.judge()
        for number, (s, rungs) in enumerate(self.brackets):
            for trial, started, _ in rungs[-1]:
                if not started:
                    return "resume", number, trial, self.levels[s + len(rungs) - 1]
        if self.num_trials >= self.limit:
            return None
        for s, rungs in self.brackets:
            if len(rungs) == 1 and len(rungs[0]) < self.capacity(s, 0):
                return "new", s, self.levels[s]
        if self.max_brackets is not None and len(self.brackets) >= self.max_brackets:
            return None
        if not self.early and not all(self.is_complete(number) for number in range(len(self.brackets))):
            return None
        s = len(self.brackets) % self.num_kinds
        return "new", s, self.levels[s]

    def check_job(self, job):
        expected = self.expected()
        assert expected is not None, "nothing was to be done"
        if expected[0] == "resume":
            _, number, trial, level = expected
            assert (job.trial_id, job.r_to) == (trial, level)
            next(slot for slot in self.brackets[number][1][-1] if slot[0] == trial)[1] = True
            return
        _, s, level = expected
        assert (job.trial_id, job.bracket, job.r_to) == (self.num_trials, s, level)
        unfilled = [rungs for kind, rungs in self.brackets if len(rungs) == 1 and len(rungs[0]) < self.capacity(kind, 0)]
        if not unfilled:
            unfilled = [[[]]]
            self.brackets.append((s, unfilled[0]))
        unfilled[0][0].append([job.trial_id, True, None])
        self.num_trials += 1
        self.reached[job.trial_id] = 0

    def check_idle(self):
        assert self.expected() is None

    def check_verdict(self, report, verdict):
        trial, r = report.trial_id, report.r
        place = next(
            (number, rungs, slot)
            for number, (_, rungs) in enumerate(self.brackets)
            for slot in rungs[-1]
            if slot[0] == trial and slot[1] and slot[2] is None
        )
        number, rungs, slot = place
        level = self.levels[self.brackets[number][0] + len(rungs) - 1]
        if not report.error and r < level:
            assert verdict.decision is Decision.CONTINUE and verdict.until == level
            return
        slot[2] = math.inf if report.error else report.metric
        self.arrival = self.arrival or {}
        self.arrival[number, len(rungs) - 1, trial] = len(self.arrival)
        assert verdict.decision is (Decision.STOP if report.error or r == self.levels[-1] else Decision.PAUSE)


class PashaOracle(AsyncOracle):
    """Promotion with a cap; after every report epsilon and the two rankings are computed again from all curves."""

    def __init__(self, r_min, r_max, eta, rule="paper", limit=10**9, variant="code", epsilon=None):
        super().__init__(r_min, r_max, eta, rule, promotes=True, limit=limit)
        self.levels = [*self.rungs, r_max]
        self.variant, self.fixed, self.epsilon = variant, epsilon, 0.0
        self.top = 1
        self.curves = {}  # trial -> {r: metric}
        self.move_cap()

    def move_cap(self):
        if len(self.rungs) >= 2:
            self.cap = self.levels[min(self.top + (self.variant == "paper"), len(self.levels) - 1)]

    def check_verdict(self, report, verdict):
        is_news = report.r is not None and report.r > self.reached[report.trial_id]
        super().check_verdict(report, verdict)
        if is_news:
            self.curves.setdefault(report.trial_id, {})[report.r] = report.metric if math.isfinite(report.metric) else math.inf
        if self.cap < self.r_max:
            self.epsilon = self.estimate() if self.fixed is None else self.fixed
            if not self.is_stable():
                self.top += 1
                self.move_cap()

    def is_stable(self):
        low, high = self.levels[self.top - 1], self.levels[self.top]
        both = [t for t in sorted(self.curves) if low in self.curves[t] and high in self.curves[t]]
        upper = sorted(both, key=lambda t: self.curves[t][high])
        lower = sorted(both, key=lambda t: self.curves[t][low])
        for mine, other in zip(upper, lower, strict=True):
            group = [t for t in both if abs(self.curves[t][low] - self.curves[other][low]) <= self.epsilon]
            if mine not in group:
                return False
        return True

    def estimate(self):
        low, high = self.levels[self.top - 1], self.levels[self.top]
        distances = []
        trials = sorted(self.curves)
        for i, one in enumerate(trials):
            for two in trials[:i]:
                a, b = self.curves[one], self.curves[two]
                common = sorted(r for r in a if r in b and r <= high and math.isfinite(a[r]) and math.isfinite(b[r]))
                if common and common[-1] > low and self.crossings(a, b, common) >= 2:
                    distances.append(abs(a[common[-1]] - b[common[-1]]))
        if not distances:
            return self.epsilon
        distances.sort()
        position = 0.9 * (len(distances) - 1)
        i = min(int(position), len(distances) - 2) if len(distances) > 1 else 0
        j = min(i + 1, len(distances) - 1)
        return distances[i] + (position - i) * (distances[j] - distances[i])

    @staticmethod
    def crossings(a, b, common):
        orders = [a[r] > b[r] for r in common if a[r] != b[r]]
        return sum(now != before for before, now in pairwise(orders))
