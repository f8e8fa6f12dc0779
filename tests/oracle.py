"""A brute-force asynchronous Hyperband, written from the definition: it keeps every record in lists and sorts them at each question."""

import math
from fractions import Fraction


class Oracle:
    def __init__(self, r_min, r_max, eta, rule, shared):
        self.r_max, self.rule, self.shared = r_max, rule, shared
        self.rungs, level = [], Fraction(r_min)
        while level < r_max:
            self.rungs.append(round(level))
            level *= Fraction(str(eta))
        self.rungs = sorted(set(self.rungs))
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
        if self.rule == "paper":
            return math.floor(n * q)
        return 0 if n < 2 else 1 + math.floor((n - 1) * q)

    def start(self, trial, bracket):
        self.bracket[trial], self.reached[trial] = bracket, 0

    def milestones(self, trial):
        return [r for r in self.rungs if r >= ([*self.rungs, self.r_max])[self.bracket[trial]]]

    def record(self, trial, r, value):
        """File a report; returns whether r was one of the trial's rungs."""
        self.reached[trial] = r
        if r not in self.milestones(trial):
            return False
        self.records.append((self.system(self.bracket[trial]), r, trial, value if math.isfinite(value) else math.inf))
        return True

    def stays(self, trial, r):
        """Stopping variant, right after `record`: among the best k, or too few to tell."""
        records = sorted(self.at(self.bracket[trial], r))
        value = next(value for value, _, t in records if t == trial)
        k = self.num_passing(len(records), r)
        return value < math.inf and (k == 0 or value <= records[k - 1][0])

    def promotion(self, bracket):
        """(trial, rung) that the promotion variant resumes next in this bracket, furthest rung first; None: nothing."""
        for rung in sorted(self.rungs, reverse=True):
            records = sorted(self.at(bracket, rung))
            k = self.num_passing(len(records), rung)
            left = [(v, o, t) for v, o, t in records if (rung, t) not in self.promoted and v < math.inf]
            if k and left and left[0][0] <= records[k - 1][0]:
                return left[0][2], rung
        return None
