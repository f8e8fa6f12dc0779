"""`python -m experiments.main`: one study. Hydra begins and ends here; `--help` lists the settings."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments import cli
from experiments.runtime import collect_rarely, keep_accelerator_for_trials, limit_mappings, machine, prepare_environment
from experiments.standing import Standing, keep_settings, standing_of, summary_of
from schedulers.types import Event, Recording

log = logging.getLogger("experiments.main")  # not __name__: that is __main__ here
SIMULATED_BATCH = 1000  # events between commits of a simulation, which can repeat what it lost


def main() -> None:
    prepare_environment()
    keep_accelerator_for_trials()
    logging.raiseExceptions = False  # on a full disk, tracebacks of the log would bury the one sentence that says so
    try:
        if (asked := cli.to_explain(sys.argv[1:])) is not None:
            from experiments.explain import show_plan

            show_plan(*asked)
            return
        sys.argv[1:] = cli.prepare(sys.argv[1:])
    except (cli.UserError, ValueError) as error:
        cli.fail(error)
    study()


@hydra.main(version_base="1.3", config_path="../conf", config_name="main")
def study(cfg: DictConfig) -> float | None:
    """Run the study that `cfg` describes; returns the incumbent's metric, minimised, for sweepers."""
    from schedulers.journal import JournalError

    cfg, resumed = cli.merged(cfg, list(HydraConfig.get().overrides.task))
    folder = resumed or Path(HydraConfig.get().runtime.output_dir)
    limit_mappings()  # those of the sweep's jobs before
    try:
        return _run(cfg, folder, is_resumed=resumed is not None)
    except (ValueError, JournalError, RuntimeError) as error:
        log.exception("the study could not run")
        cli.fail(error)
        return None


def _run(cfg: DictConfig, folder: Path, is_resumed: bool) -> float | None:
    from experiments import compilation
    from experiments.build import build
    from experiments.display import Display
    from schedulers.journal import Journal, hold, read

    is_sweep = HydraConfig.get().mode is RunMode.MULTIRUN
    lock = hold(folder)
    try:
        standing = Standing.UNFINISHED if is_resumed else standing_of(cfg, folder, is_sweep)
        if standing is Standing.FINISHED:
            print(f"{folder} holds this study already: nothing is run")
            lock.close()
            return _objective(summary_of(folder))
        recording = Recording(list(read(folder)) if standing is Standing.UNFINISHED else [])
        parts = build(cfg, folder, recording)
        keep_settings(cfg, folder)
    except BaseException:
        lock.close()
        raise
    compilation.watch()
    journal = Journal(folder, SIMULATED_BATCH if parts.is_simulated else 1, lock)
    metric = getattr(parts.benchmark, "metric_name", "metric")
    budget = vars(parts.budget)
    notes = _Notes()
    with Display(parts.num_workers, parts.benchmark.r_max, parts.benchmark.mode, metric, parts.levels, budget=budget) as display:
        notes.display = display
        try:
            with notes.listening():
                interrupted = _follow(parts, journal, recording, display, notes, metric)
        finally:
            journal.close()
        try:
            summary = _write(cfg, folder, parts, notes, metric, interrupted)
        except OSError as error:
            what = "the study is over, but its tables and figures could not be written"
            raise RuntimeError(f"{what} ({error}): its journal is kept; see to that, then write them with resume={folder}") from error
        _say_goodbye(display, folder, parts, notes, interrupted)
    if interrupted and is_sweep:
        raise KeyboardInterrupt  # the studies after it are not to begin
    return _objective(summary)


def _objective(summary: Mapping[str, Any]) -> float | None:
    """What a sweeper minimises."""
    best = summary["best"]
    return None if best is None else float(best["metric"]) * (1 if summary["mode"] == "min" else -1)


def _follow(parts: Any, journal: Any, recording: Recording, display: Any, notes: _Notes, metric: str) -> bool:
    """Run the loop until the budget is spent; returns whether the user interrupted it."""
    from experiments.display import explain
    from schedulers.journal import Checked, replay
    from schedulers.run import retries_used, run

    events: Iterator[Event]
    if parts.is_simulated:
        collect_rarely()
        backend = parts.backend()
        events = run(parts.scheduler, backend, Checked(journal, recording), retries=parts.retries)
        num_reports = 0
    else:
        restarts = replay(parts.scheduler, recording)
        display.restore(recording.events)
        num_reports = sum(event.kind == "report" for event in recording.events)
        backend = parts.backend(earlier=recording.events, on_note=notes.from_worker, on_wait=display.tick)
        events = run(parts.scheduler, backend, journal, restarts, parts.retries, retries_used(recording.events))
    try:
        for event in events:
            log.info("%s", explain(event, metric, parts.benchmark.mode))
            display.event(event)
            if event.kind == "job":
                parts.look_ahead()
            num_reports += event.kind == "report"
            if parts.budget.reports is not None and num_reports >= parts.budget.reports:
                break
    except KeyboardInterrupt:
        return True
    finally:
        backend.close()
        parts.finish()
    return False


def _write(cfg: DictConfig, folder: Path, parts: Any, notes: _Notes, metric: str, interrupted: bool) -> dict[str, Any]:
    """Tables, summary and figures of all that the journal holds."""
    from experiments import plots, records, trace_plot
    from experiments.build import table_of
    from schedulers.journal import read

    meta = {
        "seed": cfg.seed,
        "workers": parts.num_workers,
        "r_max": parts.benchmark.r_max,
        "rungs": list(parts.levels),
        "metric": metric,
        "interrupted": interrupted,
        **table_of(parts.benchmark),
        "versions": {name: version(name) for name in ("jax", "jaxlib", "numpy", "tensorflow-probability", "ConfigSpace")},
        **machine(),
    }
    if not parts.is_simulated:
        meta["compile"] = notes.compiled()
    mode = parts.benchmark.mode
    records.write(folder, read(folder), mode, meta)
    reports = records.reports_table(read(folder), mode, parts.benchmark.r_max)
    trials = records.trials_table(read(folder), mode, parts.benchmark.r_max)
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    plots.regret(reports, figures / "regret.png", metric=metric, mode=mode)
    trace_plot.trace(reports, trials, figures / "trace.png", parts.levels, metric=metric, mode=mode)
    return summary_of(folder)


def _say_goodbye(display: Any, folder: Path, parts: Any, notes: _Notes, interrupted: bool) -> None:
    paths = {
        "figures": folder / "figures",
        "tables": folder / "trials.parquet",
        "journal": folder / "journal.sqlite",
        "decisions": folder / "study.log",
    }
    resume = f"python -m experiments.main resume={os.path.relpath(folder)}"
    if interrupted:
        command, said = resume, ["interrupted; nothing is lost, running trials go on from their checkpoints"]
    else:
        more = 2 * (parts.budget.trials or 100)
        limits = f"budget.trials={more}" + ("" if parts.budget.seconds is None else f" budget.seconds={2 * parts.budget.seconds:g}")
        command, said = f"{resume} {limits}", []
    display.finish(paths, command, [*said, notes.sentence()])


class _Notes:
    """Notices of workers and of this process, shown when they come; compile times are added up."""

    def __init__(self) -> None:
        self.display: Any = None
        self._seconds, self._programs, self._hits = 0.0, 0, 0

    def from_worker(self, worker: int, text: str, extra: Mapping[str, Any]) -> None:
        self.display.note(text, worker)
        log.info("worker %d: %s", worker, text)
        if "compile_seconds" in extra:
            self._seconds += extra["compile_seconds"]
            self._programs += 1
            self._hits += bool(extra["cache_hit"])

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Show what the compile notices of this process (the surrogate's) say."""
        handler = _Show(self)
        logger = logging.getLogger("experiments.compilation")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)

    def compiled(self) -> dict[str, Any]:
        from experiments.compilation import snapshot

        own = snapshot()
        return {
            "trials": {"seconds": self._seconds, "programs": self._programs, "from_cache": self._hits},
            "surrogate": {"seconds": own.seconds, "programs": own.programs, "from_cache": own.cache_hits},
        }

    def sentence(self) -> str:
        stats = self.compiled()
        parts = [
            f"{who} {s['seconds']:.1f} s ({s['programs']} programs, {s['from_cache']} from the compilation cache)"
            for who, s in stats.items()
        ]
        return "compiling took: " + ", ".join(parts)


class _Show(logging.Handler):
    def __init__(self, notes: _Notes) -> None:
        super().__init__(logging.INFO)
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        self._notes.display.note(record.getMessage())


if __name__ == "__main__":
    main()
