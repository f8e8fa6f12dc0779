"""One segment of one trial: the benchmark's iterator, pulled item by item and checked.

Here `mode=max` is negated, once; here a user's mistake (an exception, None, a resource out of order) becomes a report with an error.
Used in the worker process and in the simulator alike.
"""

from __future__ import annotations

import math
import time
import traceback
from numbers import Integral, Real
from typing import Any

from schedulers.backends import failures
from schedulers.types import Benchmark, Job, Report


class Segment:
    """The training of `job`; `next()` gives one Report after another (time is left 0: the backend knows it).

    A report with an error is the last one. The metric is minimised; one that is no finite number comes as nan with an error.
    """

    def __init__(self, benchmark: Benchmark, job: Job, checkpoint_dir: str | None) -> None:
        self._benchmark, self._job, self._dir = benchmark, job, checkpoint_dir
        self._sign = 1.0 if benchmark.mode == "min" else -1.0
        self._iterator: Any = None
        self._r = 0  # a script may start again from scratch, whatever it was told: what it repeats is ignored by the scheduler

    def next(self) -> Report:
        began = time.perf_counter()
        try:
            if self._iterator is None:
                self._iterator = iter(self._benchmark.train(self._job, self._dir))
            item = next(self._iterator, None)
        except Exception as error:
            return self._failed(failures.describe(error), time.perf_counter() - began)
        if item is None:
            problem = (
                f"the training ended (or yielded None) after resource {self._r or self._job.r_from}, before it reached {self._job.r_to}"
            )
            return self._failed(problem, time.perf_counter() - began)
        return self._checked(item, time.perf_counter() - began)

    def close(self) -> None:
        """Let the training clean up; what it raises then is of no consequence any more."""
        if hasattr(self._iterator, "close"):
            try:
                self._iterator.close()
            except Exception:
                traceback.print_exc()

    def _failed(self, error: str, seconds: float, r: int | None = None) -> Report:
        return Report(self._job.trial_id, r, math.nan, seconds=seconds, error=error)

    def _checked(self, item: Any, elapsed: float) -> Report:
        try:
            r, metric, *rest = item
        except TypeError:
            return self._failed(f"the training yielded {item!r}, not a pair (resource, metric)", elapsed)
        seconds = float(rest[0]) if rest and (type(rest[0]) is float or isinstance(rest[0], Real)) else elapsed
        if type(r) is not int and not isinstance(r, Integral):  # the first is far quicker, and nearly always right
            return self._failed(f"the training yielded the resource {r!r}, which is no whole number", seconds)
        r = int(r)
        if not self._r < r <= self._job.r_to:
            expected = f"{self._r + 1}" if self._r + 1 == self._job.r_to else f"{self._r + 1} to {self._job.r_to}"
            problem = f"resource {r} was reported after {self._r}: twice, out of order or too far; expected was {expected}"
            return self._failed(problem, seconds)
        self._r = r
        try:
            if isinstance(metric, str):
                raise TypeError
            value = float(metric)
        except (TypeError, ValueError):
            return self._failed(f"{failures.NO_NUMBER}{r} is {metric!r}, not a number", seconds, r)
        if not math.isfinite(value):
            return self._failed(f"{failures.NO_NUMBER}{r} is {value}", seconds, r)
        return Report(self._job.trial_id, r, self._sign * value, seconds=seconds)
