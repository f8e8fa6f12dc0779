"""What a study will do, before it runs (`python -m experiments.main --explain`), and why it did what it did.

`python -m experiments.explain FOLDER` lists the trials of a study with the reason of each one's last decision; with a trial's number, its
whole life. Both read the journal alone, also while the study runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from omegaconf import DictConfig, OmegaConf

from experiments import cli
from experiments.display import explain, last_line, number, span
from experiments.study import fold, sign_of
from schedulers.asha import AsyncHyperband
from schedulers.backends.simulated import SimulatedBackend
from schedulers.history import History
from schedulers.hyperband import Hyperband
from schedulers.median import MedianRule
from schedulers.pasha import Pasha
from schedulers.run import run
from schedulers.searchers.random import RandomSearcher
from schedulers.stepwise import Stepwise
from schedulers.types import Benchmark, Decision, Event, Job, Progress, Proposal, Recording, Scheduler, Searcher, Slot

NUM_STUDIES = 10  # a forecast is the mean of so many
DEFAULT_TRIALS = 100  # of a forecast whose budget limits neither trials nor reports, nor seconds of known length
DENSE = 1000  # up to this r_max a forecast reports every resource, as training does; above, the rungs only


class Forecast(NamedTuple):
    """One simulated study."""

    reached: dict[int, int]  # rung -> trials that reported there
    by_bracket: dict[int, int]  # bracket -> trials that began in it
    trained: float  # resources, repeated ones included
    span: float  # of the whole study, in resources of one worker


class _Numbered:
    """Empty configurations, up to `limit`, and scores by chance: a forecast tunes nothing."""

    def __init__(self, limit: float, seed: int) -> None:
        self.limit, self._rng = limit, np.random.default_rng(seed)

    def suggest(self, history: History, slot: Slot) -> Proposal | None:
        return None if slot.trial_id >= self.limit else Proposal({}, "random")

    def recall(self, history: History, slot: Slot, proposal: Proposal) -> None: ...

    def bracket_weights(self, history: History) -> Sequence[float] | None:
        return None

    def score(self, history: History, paused: Sequence[tuple[int, int]]) -> Sequence[float] | None:
        scores: list[float] = self._rng.random(len(paused)).tolist()
        return scores


class _RandomOrder:
    """Trials in random order, the same at every rung, each resource taking one second."""

    mode = "min"
    space: Any = None

    def __init__(self, levels: Sequence[int], seed: int) -> None:
        self.r_max, self._rng = levels[-1], np.random.default_rng(seed)
        self._steps = list(range(1, self.r_max + 1)) if self.r_max <= DENSE else list(levels)
        self._metric: dict[int, float] = {}
        self.trained = 0

    def train(self, job: Job, checkpoint_dir: str | None) -> Iterator[Progress]:
        metric = self._metric.setdefault(job.trial_id, self._rng.random())
        at = job.r_from
        for r in self._steps:
            if job.r_from < r <= job.r_to:
                self.trained += r - at
                yield Progress(r, metric, float(r - at))
                at = r


class _NoLog:
    def append(self, event: Event) -> None: ...


def forecast(
    make: Callable[[Searcher], Scheduler],
    num_workers: int,
    seed: int,
    *,
    trials: float = float("inf"),
    reports: float = float("inf"),
    duration: float | None = None,
) -> Forecast:
    """Simulate one study of at most so many trials, reports, or resources in sequence (`duration`)."""
    scheduler = make(_Numbered(trials, seed))
    benchmark = _RandomOrder(scheduler.history.levels, seed)
    backend = SimulatedBackend(benchmark, num_workers, deadline=duration)
    num_reports = 0
    for event in run(scheduler, backend, _NoLog()):
        num_reports += event.kind == "report"
        if num_reports >= reports:
            break
    history = scheduler.history
    reached = {level: sum(trial.r >= level for trial in history.trials) for level in history.levels}
    by_bracket: dict[int, int] = {}
    for trial in history.trials:
        by_bracket[trial.bracket] = by_bracket.get(trial.bracket, 0) + 1
    return Forecast(reached, by_bracket, float(benchmark.trained), backend.now())


def outline(scheduler: Scheduler) -> list[str]:
    """What is fixed before a study: its brackets and their probabilities or sizes, a line each."""
    levels = scheduler.history.levels
    if isinstance(scheduler, MedianRule):
        return ["the median rule judges every report; besides:", *outline(scheduler.inner)]
    if isinstance(scheduler, Hyperband):
        shown = (", ".join(f"{size} @ {r}" for size, r in zip(sizes, levels[s:], strict=True)) for s, sizes in enumerate(scheduler.tables))
        return [f"bracket {s}: {text} (trials @ resource)" for s, text in enumerate(shown)]
    if isinstance(scheduler, Pasha):
        return [f"one bracket; trials may reach {scheduler.cap}, more only if rankings change, up to {levels[-1]}"]
    if isinstance(scheduler, AsyncHyperband):
        weights = scheduler.bracket_probabilities
        if weights is None:
            return [f"all {scheduler.num_brackets} brackets at once, each with an equal share of the workers, from {levels}"]
        return [f"bracket {s}: starts at {levels[s]}, with probability {weight:.4g}" for s, weight in enumerate(weights)]
    if isinstance(scheduler, Stepwise):
        return ["one level at a time; here chance chooses between the paused trials and a new one, where the searcher would"]
    return []


def show_plan(cfg: DictConfig, seconds: float | None) -> None:
    """Print what the study that `cfg` describes would do. `seconds`: of one resource; None: unknown, unless the clock is simulated.

    Raises ValueError as `build.build` does.
    """
    from experiments.build import build, scheduler_of

    parts = build(cfg, Path(), Recording([]))
    source = "as you said"
    if seconds is None and parts.is_simulated:
        seconds, source = _measured(parts.benchmark), "the benchmark's mean over 20 random configurations"
    budget = parts.budget
    limits: dict[str, Any] = {"trials": budget.trials or float("inf"), "reports": budget.reports or float("inf")}
    duration = budget.seconds / seconds if budget.seconds and seconds else None
    if budget.trials is None and budget.reports is None and duration is None:
        limits["trials"] = DEFAULT_TRIALS
    studies = []
    for seed in range(NUM_STUDIES):
        varied = cfg.copy()
        varied.seed = seed

        def make(searcher: Searcher, varied: DictConfig = varied) -> Scheduler:
            return scheduler_of(varied, parts.benchmark, searcher)

        studies.append(forecast(make, parts.num_workers, seed, duration=duration, **limits))
    levels = parts.levels
    print(f"rungs: {', '.join(map(str, levels[:-1])) or 'none'}; r_max = {levels[-1]}")
    shares = [f"{Fraction(low, high)} at {low}" for low, high in pairwise(levels)]
    print(f"share that passes: {', '.join(shares) or 'every trial runs to r_max'}")
    for line in outline(parts.scheduler):
        print(line)
    if str(OmegaConf.select(cfg, "searcher.guide._target_")).endswith("HyperTuneGuide"):
        print("searcher=hypertune changes these probabilities as it learns which resources to trust; the forecast below does not")
    asked = {"trials": budget.trials, "reports": budget.reports, "seconds": budget.seconds}
    said = ", ".join(f"{value:g} {name}" for name, value in asked.items() if value is not None) or "no limit"
    print(f"\nexpected with {parts.num_workers} workers and a budget of {said}: the mean of {NUM_STUDIES} simulated studies")
    print("(trials in random order that every rung confirms; each resource takes as long; a suggestion takes no time)")
    if limits["trials"] == DEFAULT_TRIALS and budget.trials is None:
        print(f"nothing limits the number of trials (unless you give the time of a resource), so this is for {DEFAULT_TRIALS}")
    _print_table(studies, levels)
    _print_time(studies, seconds, source, budget.seconds, parts.num_workers)


def _print_table(studies: list[Forecast], levels: Sequence[int]) -> None:
    brackets = sorted({s for study in studies for s in study.by_bracket})
    print(f"  {'trials that begin':<24}{_mean(sum(study.by_bracket.values()) for study in studies):>8.1f}", end="")
    each = ", ".join(f"{_mean(study.by_bracket.get(s, 0) for study in studies):.1f} in bracket {s}" for s in brackets)
    print(f"   ({each})" if len(brackets) > 1 else "")
    for level in levels:
        print(f"  {f'trials that reach {level}':<24}{_mean(study.reached[level] for study in studies):>8.1f}")
    print(f"  {'resources trained':<24}{_mean(study.trained for study in studies):>8.1f}", end="")
    print(f"   ({_mean(study.trained for study in studies) / levels[-1]:.1f} full trainings)")


def _print_time(studies: list[Forecast], seconds: float | None, source: str, limit: float | None, num_workers: int) -> None:
    if seconds is None:
        print("  time: say how long one resource takes, as in --explain=2.5 (seconds)")
        return
    training, wall = (seconds * _mean(getattr(study, name) for study in studies) for name in ("trained", "span"))
    print(f"  {'training time':<24}{span(training):>12}   ({span(training / num_workers)} per worker)")
    print(f"  {'wall-clock time':<24}{span(wall):>12}   (at {seconds:.3g} s a resource: {source})")
    if limit is not None and wall > limit:
        print(f"  the budget of {span(limit)} ends it earlier")


def _mean(values: Any) -> float:
    return statistics.fmean(values)


def _measured(benchmark: Benchmark) -> float:
    """Seconds of one resource of a simulated benchmark, over 20 random configurations."""
    searcher, history, total = RandomSearcher(benchmark.space), History([benchmark.r_max]), 0.0
    for trial in range(20):
        proposal = searcher.suggest(history, Slot(trial, 0, benchmark.r_max, benchmark.r_max))
        if proposal is None:
            break
        history.launch(proposal, 0, benchmark.r_max, benchmark.r_max)
        total += sum(progress.seconds for progress in benchmark.train(Job(trial, proposal.config, 0, benchmark.r_max), None))
    return total / (len(history.trials) * benchmark.r_max)


def list_trials(events: Sequence[Event], mode: str) -> list[str]:
    """A line for each trial: where it stands, and the reason of its last decision."""
    study = fold(events, max(event.job.r_to for event in events))
    reasons = {event.job.trial_id: _reason(event) for event in events if event.kind == "report"}
    sign = sign_of(mode)
    lines = [f"{'trial':>6} {'bracket':>7} {'state':<10}{'r':>5} {'metric':>10}  why"]
    for trial in study.trials.values():
        metric = "" if trial.metric is None else number(sign * trial.metric)
        reason = reasons.get(trial.trial_id, "no report yet")
        lines.append(f"{trial.trial_id:>6} {trial.bracket:>7} {trial.state:<10}{trial.r:>5} {metric:>10}  {reason}")
    return lines


def tell_life(events: Sequence[Event], trial_id: int, mode: str) -> list[str]:
    """The life of one trial, an event a line, and where it stood in the end. Raises ValueError if there is no such trial."""
    own = [event for event in events if event.job.trial_id == trial_id]
    if not own:
        known = {event.job.trial_id for event in events}
        raise ValueError(f"there is no trial {trial_id} in this study: it has {min(known)} to {max(known)}" if known else "no trial began")
    lines = [f"{span(event.time):>14}  {explain(event, mode=mode)}" for event in own]
    last = own[-1]
    if last.kind != "report":
        return [*lines, "it was running when the journal ended"]
    assert last.verdict is not None and last.report is not None
    if last.verdict.decision is Decision.CONTINUE:
        return [*lines, "it was running when the journal ended"]
    if last.verdict.decision is Decision.PAUSE and last.report.r is not None:
        lines.append(_standing(events, last))
    return lines


def _standing(events: Sequence[Event], last: Event) -> str:
    """Where a trial that stayed paused ranks at its rung at the end, among those of its bracket."""
    assert last.report is not None and last.report.r is not None
    r, value = last.report.r, last.report.metric
    own = [event for event in events if event.job.bracket == last.job.bracket]
    results: dict[int, float] = {}  # trial -> its metric at r; a restart from scratch reports a second time
    reached: dict[int, int] = {}
    num_promoted, verdict = 0, last
    for event in own:
        trial = event.job.trial_id
        if event.kind == "job":
            num_promoted += event.proposal is None and reached.get(trial) == r
        elif event.report is not None and event.report.r is not None:
            if event.report.r == r and trial not in results:
                results[trial], verdict = event.report.metric, event
            reached[trial] = max(event.report.r, reached.get(trial, 0))
    better = sum(metric < value for metric in results.values())
    counted = f"{better} of the {len(results)} results at r={r} in bracket {last.job.bracket} were better, and {num_promoted} went on"
    return f"it stayed paused: at the end {counted}; the last decision there: {_reason(verdict)}"


def _reason(event: Event) -> str:
    assert event.verdict is not None and event.report is not None
    return f"failed: {last_line(event.report.error)}" if event.report.error else str(event.verdict.why)


def main(argv: Sequence[str] | None = None) -> None:
    from schedulers.journal import JournalError, read

    parser = argparse.ArgumentParser(prog="python -m experiments.explain", description="Why trials were stopped or kept, from the journal.")
    parser.add_argument("folder", type=Path, help="of a study")
    parser.add_argument("trial", type=int, nargs="?", help="tell this trial's whole life")
    args = parser.parse_args(argv)
    try:
        events = list(read(args.folder))
        if not events:
            raise ValueError(f"the journal in {args.folder} holds no event yet")
        mode = _mode(args.folder)
        lines = list_trials(events, mode) if args.trial is None else tell_life(events, args.trial, mode)
    except (JournalError, ValueError) as error:
        cli.fail(error)
    print("\n".join(lines))


def _mode(folder: Path) -> str:
    """The direction of the metric; before the summary is written the journal's own, which is minimised, and that is said."""
    path = folder / "summary.json"
    if path.exists():
        return str(json.loads(path.read_text(encoding="utf-8"))["mode"])
    print("(this study has no summary yet: metrics are shown as minimised, a maximised one with the other sign)")
    return "min"


if __name__ == "__main__":
    main()
