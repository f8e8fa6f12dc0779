"""Golden traces: every scheduler's jobs and decisions on one fixed study, kept so that a change of behaviour is seen.

A change here is a change of behaviour: look at the difference, and if it is meant, write the traces anew with
`python -m tests.test_golden` and say why in the commit.
"""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from experiments.build import build
from experiments.cli import CONFIG_DIR
from schedulers.run import run
from schedulers.types import Recording

FOLDER = Path(__file__).parent / "golden"
SETTINGS = ["benchmark=curves", "benchmark.r_max=9", "backend=simulated", "budget.seconds=null", "budget.trials=14", "workers=3"]
STUDIES = {
    "stopping": ["scheduler=stopping", "brackets=2"],
    "promotion": ["scheduler=promotion", "brackets=1"],
    "promotion_scratch": ["scheduler=promotion", "brackets=1", "scheduler.resume_from=scratch"],
    "parallel_hyperband": ["scheduler=parallel_hyperband"],
    "successive_halving": ["scheduler=successive_halving"],
    "hyperband": ["scheduler=hyperband"],
    "pasha": ["scheduler=pasha"],
    "median": ["scheduler=median"],
    "fifo": ["scheduler=fifo"],
}


class _Nothing:
    def append(self, event): ...


def trace(overrides):
    """One line an event: time, what happened."""
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        parts = build(compose("main", [*SETTINGS, "searcher=random", *overrides]), FOLDER, Recording([]))
    lines = []
    for event in run(parts.scheduler, parts.backend(), _Nothing()):
        job, at = event.job, f"{event.time:8.3f} trial {event.job.trial_id:2d}"
        if event.kind == "job":
            lines.append(f"{at} bracket {job.bracket} runs from {job.r_from} to {job.r_to} on worker {event.worker}")
        else:
            lines.append(f"{at} at {event.report.r}: {event.report.metric:.6f} {event.verdict.decision.value}: {event.verdict.why}")
    return lines


@pytest.mark.parametrize("name", STUDIES)
def test_the_trace_is_the_one_that_was_kept(name):
    assert trace(STUDIES[name]) == (FOLDER / f"{name}.txt").read_text().splitlines()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, overrides in STUDIES.items():
        (FOLDER / f"{name}.txt").write_text("\n".join(trace(overrides)) + "\n")
