"""The few messages and roles that everything else is built from.

Units: a resource r is a whole number of whatever the benchmark counts (epochs unless it says otherwise); times are seconds. A metric is
minimised everywhere inside; `mode=max` is negated once, in the backend's boundary (`schedulers.backends.trial`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace

    from schedulers.history import History

Config = Mapping[str, float | int | str | bool]


class Decision(Enum):
    """What happens to a trial after a report. PAUSE keeps its checkpoint, STOP does not."""

    CONTINUE = "continue"
    PAUSE = "pause"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Job:
    """Train `trial_id` from resource `r_from` (0: from scratch) up to and including `r_to`.

    Up to and including `until` the worker need not wait for an answer to its reports: no decision falls before it. 0: wait always.
    """

    trial_id: int
    config: Config
    r_from: int
    r_to: int
    bracket: int = 0
    until: int = 0


class Progress(NamedTuple):
    """What a benchmark's training iterator yields: the metric after r, and the seconds since the item before."""

    r: int
    metric: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """One event of one trial, as a backend delivers it.

    r is None when the trial died without reporting (exception, killed worker): such a report counts at no rung. A metric that is
    not a finite number arrives as nan with `error` set: it counts at its rung, behind every number. `error` set means the trial
    has failed and its worker is free again. `time` is seconds since the study began, `seconds` the training time of this segment.
    """

    trial_id: int
    r: int | None
    metric: float
    time: float = 0.0
    seconds: float = 0.0
    error: str = ""


class Verdict(NamedTuple):
    """A scheduler's answer to a report: the decision, and the sentence that explains it (see `rungs.Judgement`)."""

    decision: Decision
    why: object = ""  # str() of it is the sentence; kept unformatted because most are never read
    until: int = 0  # with CONTINUE: the trial may run to this resource without waiting for answers (as in Job)


class Slot(NamedTuple):
    """What a searcher is told about the trial that needs a configuration."""

    trial_id: int
    bracket: int
    milestone: int  # the first rung at which the trial is judged
    r_max: int


class Proposal(NamedTuple):
    """A searcher's answer. `source` is one of default, random, model, prior, incumbent, initial; `note` is logged with the decision.

    `state` is JSON and all the searcher would need to go on from here (fitted hyperparameters, refit or not): a replay hands it
    back through `Searcher.recall` instead of computing it again.
    """

    config: Config
    source: str
    r_acq: int | None = None
    note: str = ""
    state: dict[str, Any] | None = None


@runtime_checkable
class Searcher(Protocol):
    """Proposes configurations: a function of (seed, history), never of call order or wall time."""

    def suggest(self, history: History, slot: Slot) -> Proposal | None:
        """A configuration that was not tried before; None when the space is exhausted."""
        ...

    def recall(self, history: History, slot: Slot, proposal: Proposal) -> None:
        """Take over `proposal`, made for `slot` by an earlier process, as if `suggest` had just returned it."""
        ...

    def bracket_weights(self, history: History) -> Sequence[float] | None:
        """Weights of the brackets, for searchers that choose them (hypertune); None: the scheduler's own law."""
        ...

    def score(self, history: History, paused: Sequence[tuple[int, int]]) -> Sequence[float] | None:
        """A score, higher is better, for each paused (trial_id, next r) (dyhpo); None: ranks decide."""
        ...


@runtime_checkable
class Scheduler(Protocol):
    """A state machine without clock, I/O, processes or global random numbers: its answers depend on its event sequence alone.

    An `ask` that returns None leaves the state as it was.
    """

    history: History

    def ask(self) -> Job | None:
        """The next job for a free worker; None: nothing to run until another report arrives."""
        ...

    def tell(self, report: Report) -> Verdict:
        """Judge a report of a running job."""
        ...


@runtime_checkable
class Benchmark(Protocol):
    """Something to tune. Must pickle: workers receive a copy."""

    space: ConfigurationSpace
    r_max: int
    mode: str  # "min" or "max": the direction of the metric that `train` yields

    def train(self, job: Job, checkpoint_dir: str | None) -> Iterator[Progress]:
        """Yield after each resource from r_from + 1 to r_to; save the state of r in `checkpoint_dir` before yielding r."""
        ...


@runtime_checkable
class Backend(Protocol):
    """Owns time, workers and processes."""

    def idle(self) -> Sequence[int]:
        """The workers that can be given a job now, in the order in which they should be used; a simulated clock moves to when there is one,
        if nothing else happens before.
        """
        ...

    def start(self, job: Job, worker: int) -> None: ...

    def next_report(self) -> Report | None:
        """Block (or advance the simulated clock) until something is reported; None: nothing is running."""
        ...

    def resume(self, trial_id: int, until: int) -> None:
        """The trial may go on, and need not wait for an answer before resource `until`."""
        ...

    def release(self, trial_id: int, keep_checkpoint: bool) -> None:
        """The trial gives its worker back; PAUSE keeps its checkpoint."""
        ...

    def now(self) -> float:
        """Seconds since the study began, on this backend's clock."""
        ...

    def decided(self, began: float, suggested: bool) -> float:
        """The scheduler has answered what it was asked at `began`, the last `now()`; `suggested`: with a new configuration.

        Returns how many seconds it took; a simulated clock moves on by as many.
        """
        ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Recording:
    """The events of an earlier process, and how many of them were repeated so far."""

    events: list[Event]
    repeated: int = 0

    @property
    def is_over(self) -> bool:
        return self.repeated >= len(self.events)


@dataclass(slots=True)
class Event:
    """One step of the run loop, for its consumers (journal, records, display)."""

    kind: str  # "job", "report", "restart" (of a running trial after the study was resumed) or "retry" (after the failure in `report`)
    job: Job
    time: float
    proposal: Proposal | None = None  # of a job that starts a new trial
    report: Report | None = None
    verdict: Verdict | None = None
    worker: int | None = None
    decide_seconds: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)
