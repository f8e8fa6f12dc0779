"""The simulated clock says when things happen on the real one."""

import time
from itertools import pairwise
from pathlib import Path

import pytest

from experiments.build import build
from experiments.overrides import composed
from schedulers.run import run
from schedulers.types import Event, Recording

X = "+benchmark.space.hyperparameters={x: {type: uniform_float, lower: 0.0, upper: 1.0}}"
STUDY = [
    "benchmark=function",
    X,
    "benchmark.r_max=3",
    "searcher=random",
    "brackets=1",
    "workers=2",
    "budget.trials=6",
    "budget.seconds=null",
]
SEED = 5
TOLERANCE = 0.5  # seconds: what a report takes to arrive, a job to start, and a busy machine to wake up


class Nothing:
    def append(self, event: Event) -> None: ...


def study(target: str, backend: str, scheduler: str, folder: Path, seed: int = SEED) -> list[Event]:
    of = [
        f"benchmark.target={Path(__file__).with_name('sleeper.py')}:{target}",
        f"backend={backend}",
        f"scheduler={scheduler}",
        f"seed={seed}",
    ]
    parts = build(composed([*STUDY, *of]), folder, Recording([]))
    made = parts.backend()
    try:
        return list(run(parts.scheduler, made, Nothing()))
    finally:
        made.close()
        parts.finish()


@pytest.mark.smoke
@pytest.mark.parametrize("scheduler", ["stopping", "promotion"])
def test_a_simulated_study_agrees_with_the_real_one_within_half_a_second(
    scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated = study("saying", "simulated", scheduler, tmp_path)
    gaps = [b.time - a.time for a, b in pairwise(event for event in simulated if event.kind == "report")]
    assert min(gaps) > 0.18  # events in another order would be another study
    monkeypatch.setenv("START", str(time.time() + 4))
    real = study("sleeping", "local", scheduler, tmp_path)
    start = real[2].time - simulated[2].time  # the workers' own start, which the simulation leaves out
    assert [(e.kind, e.job.trial_id, e.job.r_from, e.report and e.report.r) for e in real] == [
        (e.kind, e.job.trial_id, e.job.r_from, e.report and e.report.r) for e in simulated
    ]
    assert [e.verdict and e.verdict.decision for e in real] == [e.verdict and e.verdict.decision for e in simulated]
    assert [e.time - start for e in real[2:]] == pytest.approx([e.time for e in simulated[2:]], abs=TOLERANCE)
    assert simulated[-1].time > 10 * TOLERANCE
