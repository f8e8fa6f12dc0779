"""What a person sees of a running study: a live table on a terminal, plain lines elsewhere, and one sentence per decision for the log.

The display is a consumer of events like the records: it keeps a `Study`, and which worker trains what.
"""

from __future__ import annotations

import math
import time as clock
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from experiments.study import STATES, Study, TrialRecord, sign_of
from schedulers.backends.failures import tally
from schedulers.types import Decision, Event

NOTES_SHOWN = 4
PROGRESS_EVERY = 10.0  # seconds between progress lines where there is no terminal
REFRESH_EVERY = 0.2  # seconds; drawing costs milliseconds, and a simulated study has thousands of events per second


@dataclass(slots=True)
class _Lane:
    """What one worker does now."""

    trial: TrialRecord
    r: int
    r_to: int
    metric: float | None = None


class Display:
    """Shows a study on `console` (default: standard output) while its events come in.

    `rungs` are the levels at which trials are judged, with or without r_max. `budget` holds whichever of seconds, trials and reports
    are limited. `timer` is the real clock that spaces out refreshes and progress lines; times shown are those of the events.
    """

    def __init__(
        self,
        num_workers: int,
        r_max: int,
        mode: str,
        metric_name: str,
        rungs: Sequence[int],
        console: Console | None = None,
        *,
        budget: Mapping[str, float | None] | None = None,
        timer: Callable[[], float] = clock.monotonic,
    ) -> None:
        self._num_workers, self._r_max, self._sign, self._mode, self._metric_name = num_workers, r_max, sign_of(mode), mode, metric_name
        self._levels = sorted({*rungs, r_max})
        self._budget = {name: limit for name, limit in (budget or {}).items() if limit is not None}
        self._timer = timer
        self._console = console or Console()
        self._study = Study(r_max)
        self._lanes: list[_Lane | None] = [None] * num_workers
        self._notes: deque[str] = deque(maxlen=NOTES_SHOWN)
        self._now = 0.0
        self._is_running = True
        self._shown_at = timer()
        is_live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = Live(console=self._console, auto_refresh=False, get_renderable=self.render) if is_live else None

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def restore(self, events: Iterable[Event]) -> None:
        """Take over the events of a resumed study without showing each of them. Nobody trains after them."""
        for event in events:
            self._study.add(event)
        self._now = max(self._now, self._study.now)

    def event(self, event: Event) -> None:
        incumbent = _best(self._study)
        self._study.add(event)
        if event.kind == "report":
            self._follow_report(event)
        else:
            self._follow_job(event)
        if self._live is None:
            self._print_lines(event, _best(self._study) != incumbent)
        self.tick(event.time)

    def note(self, text: str, worker: int | None = None) -> None:
        """Show `text` at once, for instance before a compilation during which nothing else can be shown."""
        line = f"[{span(self._now)}] " + (text if worker is None else f"worker {worker}: {text}")
        self._notes.append(line)
        if self._live is None:
            self._print(line)
        else:
            self._live.refresh()

    def tick(self, now: float) -> None:
        """Let the display know the study's time; call it while waiting, too."""
        self._now = max(self._now, now)
        read = self._timer()
        if read - self._shown_at < (PROGRESS_EVERY if self._live is None else REFRESH_EVERY):
            return
        self._shown_at = read
        if self._live is None:
            self._print(self._progress())
        else:
            self._live.refresh()

    def finish(self, paths: Mapping[str, str | Path] | None = None, next_command: str = "", notes: Iterable[str] = ()) -> None:
        """Close the live table; then the best configuration, `notes`, where everything lies, and the next command worth trying."""
        self._is_running = False
        if self._live is None:
            self._print(self._progress())
        else:
            self._live.refresh()
            self._live.stop()
        self._print("")
        for line in [*self._best_lines(), *filter(None, [self._failures()]), *notes]:
            self._print(line)
        if paths:
            self._print("")
            width = max(map(len, paths))
            for name, path in paths.items():
                self._print(f"{name:<{width}}  {path}")
        if next_command:
            self._print(f"\nNext: {next_command}")

    def render(self) -> RenderableType:
        """The whole live picture."""
        notes = [Text(note, style="yellow", overflow="ellipsis", no_wrap=True) for note in self._notes]
        return Group(self._header(), "", self._table(), "", *notes) if self._is_running else self._header()

    def _follow_job(self, event: Event) -> None:
        trial = self._study.trials[event.job.trial_id]
        self._lanes[self._lane_of(event)] = _Lane(trial, event.job.r_from, event.job.r_to, trial.metric)

    def _follow_report(self, event: Event) -> None:
        assert event.report is not None and event.verdict is not None
        index = self._lane_of(event)
        lane = self._lanes[index]
        if event.verdict.decision is not Decision.CONTINUE or lane is None or event.report.r is None:
            self._lanes[index] = None
            return
        lane.r, lane.metric = event.report.r, event.report.metric

    def _lane_of(self, event: Event) -> int:
        if event.worker is None or not 0 <= event.worker < self._num_workers:
            raise ValueError(f"event of trial {event.job.trial_id} has worker={event.worker}, expected 0 to {self._num_workers - 1}")
        return event.worker

    def _header(self) -> Text:
        best = self._study.best
        text = Text(overflow="ellipsis")
        if best is None:
            text.append("no result yet", style="bold")
        else:
            text.append(f"best {self._metric_name} {self._shown(best.best_metric)}", style="bold green")
            text.append(f"  trial {best.trial_id} ({best.source}), r={best.best_r}, after {span(best.best_time or 0.0)}")
        text.append(f"\n{self._counts()}, {len(self._study.reports)} reports")
        if failures := self._failures():
            text.append(f"\n{failures}")
        text.append(f"\n{span(self._now)}{self._shares()}")
        for name, used, limit in self._used():
            text.append(f"\nbudget {name:<8} {bar(used / limit, 20)} {number(used)} of {number(limit)}")
        return text

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
        for name, justify in (("worker", "right"), ("trial", "right"), ("bracket", "right"), ("source", "left"), ("resource", "left")):
            table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        table.add_column(self._metric_name, justify="right", no_wrap=True)
        for worker, lane in enumerate(self._lanes):
            if lane is None:
                table.add_row(str(worker), "-", "", "idle", "", "", style="dim")
                continue
            goal = self._next_rung(lane)
            progress = f"{bar(lane.r / goal, 9)} {lane.r} of {goal}"
            trial = lane.trial
            table.add_row(str(worker), str(trial.trial_id), str(trial.bracket), trial.source, progress, self._shown(lane.metric))
        return table

    def _next_rung(self, lane: _Lane) -> int:
        """The resource at which the worker's trial is judged next: a level of its bracket, and never past the end of its job."""
        levels = self._levels[lane.trial.bracket :] or [self._r_max]
        return min(next((level for level in levels if level > lane.r), self._r_max), lane.r_to)

    def _print_lines(self, event: Event, is_new_incumbent: bool) -> None:
        if event.kind == "retry":
            self._print(f"[{span(event.time)}] {explain(event, self._metric_name, self._mode)}")
        if event.kind != "report":
            return
        trial = self._study.trials[event.job.trial_id]
        when = f"[{span(event.time)}]"
        if is_new_incumbent:
            self._print(
                f"{when} trial {trial.trial_id} ({trial.source}): new best {self._metric_name} {self._shown(trial.metric)} at r={trial.r}"
            )
        elif trial.state in ("stopped", "completed", "failed"):
            self._print(f"{when} {explain(event, self._metric_name, self._mode)}")

    def _progress(self) -> str:
        best = self._study.best
        told = "no result yet" if best is None else f"best {self._metric_name} {self._shown(best.best_metric)}"
        budget = "".join(f", {number(used)} of {number(limit)} {name}" for name, used, limit in self._used())
        return f"[{span(self._now)}] {told}; {self._counts()}{budget}{self._shares()}"

    def _counts(self) -> str:
        counts = self._study.counts()
        shown = [f"{counts[state]} {state}" for state in STATES if counts[state]]
        return f"{len(self._study.trials)} trials" + (f" ({', '.join(shown)})" if shown else "")

    def _failures(self) -> str:
        causes = tally(trial.error for trial in self._study.trials.values() if trial.state == "failed")
        return f"failures: {', '.join(f'{num} {cause}' for cause, num in causes.items())}" if causes else ""

    def _shares(self) -> str:
        if not self._now:
            return ""
        seconds = self._study.worker_seconds(self._num_workers, self._now)
        shares = [f"{name} {value / (self._num_workers * self._now):.0%}" for name, value in seconds.items()]
        return f"; workers: {', '.join(shares)}"

    def _used(self) -> list[tuple[str, float, float]]:
        used = {"seconds": self._now, "trials": len(self._study.trials), "reports": len(self._study.reports)}
        return [(name, round(used[name], 1), limit) for name, limit in self._budget.items()]

    def _best_lines(self) -> list[str]:
        best = self._study.best
        if best is None:
            errors = [last_line(trial.error) for trial in self._study.trials.values() if trial.error]
            return ["No trial reported a number." + (f" The last error: {errors[-1]}" if errors else "")]
        head = f"Best {self._metric_name}: {self._shown(best.best_metric)} at r={best.best_r} of {self._r_max}, trial {best.trial_id}"
        width = max(map(len, best.config), default=0)
        return [f"{head} ({best.source})", *(f"  {name:<{width}}  {number(value)}" for name, value in best.config.items())]

    def _shown(self, metric: float | None) -> str:
        return "" if metric is None else number(self._sign * metric + 0.0)

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True, emoji=False)


def explain(event: Event, metric_name: str = "metric", mode: str = "min") -> str:
    """One line for the log: what was decided in `event`, and why."""
    job, trial = event.job, f"trial {event.job.trial_id}"
    if event.kind == "restart":
        return f"{trial}: was running when the study was interrupted, starts again from r={job.r_from} towards r={job.r_to}"
    if event.kind == "retry":
        error = "" if event.report is None else last_line(event.report.error)
        return f"{trial}: failed and starts again from r={job.r_from} towards r={job.r_to}: {error}"
    if event.kind == "job":
        if event.proposal is None:
            return f"{trial}: promoted, from r={job.r_from} to r={job.r_to}" + ("" if job.r_from else " (from scratch)")
        origin = {"model": "from the model", "random": "drawn at random", "default": "the default"}
        proposal = event.proposal
        acquired = "" if proposal.r_acq is None else f" at r_acq={proposal.r_acq}"
        note = f" ({proposal.note})" if proposal.note else ""
        config = ", ".join(f"{name}={number(value)}" for name, value in job.config.items())
        return f"{trial}: new in bracket {job.bracket}, {origin.get(proposal.source, proposal.source)}{acquired}{note}: {config}"
    assert event.report is not None and event.verdict is not None
    report, verdict = event.report, event.verdict
    where = trial if report.r is None else f"{trial} at r={report.r}"
    if report.error:
        return f"{where}: failed: {last_line(report.error)}"
    why = str(verdict.why)
    value = number(sign_of(mode) * report.metric + 0.0)
    return f"{where}: {metric_name} {value}, {verdict.decision.value}" + (f": {why}" if why else "")


def number(value: Any) -> str:
    """A value as a person reads it: four significant digits, integers in full, anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (math.isfinite(value) and value == round(value) and abs(value) < 1e6):
        return str(int(value))
    return f"{value:.4g}"


def span(seconds: float) -> str:
    """A length of time: "8.3 s", "2 min 05 s", "3 h 07 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def bar(share: float, width: int) -> str:
    """A bar of `width` characters of which `share` is filled."""
    filled = round(min(max(share, 0.0), 1.0) * width)
    return "━" * filled + "╌" * (width - filled)


def last_line(text: str) -> str:
    """The last line that says something: of a traceback, the exception."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _best(study: Study) -> float | None:
    return None if study.best is None else study.best.best_metric
