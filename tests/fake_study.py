"""Events of an invented study, for tests of their consumers: asynchronous workers, rungs 1, 3, 9, 27, learning curves that decay.

The rule is that of the stopping variant or, with `promotion`, of ASHA (one bracket); it is written here once more and small, so that
the consumers are tested without the schedulers.
"""

import heapq
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from schedulers.types import Decision, Event, Job, Proposal, Report, Verdict

RUNGS = (1, 3, 9, 27)


def fake_study(
    num_trials: int = 80, workers: int = 4, seed: int = 0, *, promotion: bool = False, fail: float = 0.03, skill: float = 1.0
) -> Iterator[Event]:
    """`fail` is the chance that a trial dies, `skill` how much later trials gain from earlier ones."""
    rng = np.random.default_rng(seed)
    trials: dict[int, dict] = {}
    rungs: dict[int, list[tuple[float, int]]] = {r: [] for r in RUNGS}
    promoted: dict[int, set[int]] = {r: set() for r in RUNGS}
    queue: list[tuple[float, int, int]] = []  # time, trial, r

    def start(now: float, worker: int) -> Event | None:
        if promotion:
            for r, r_next in reversed(list(pairwise(RUNGS))):
                top = sorted(rungs[r])[: len(rungs[r]) // 3]
                waiting = [i for _, i in top if i not in promoted[r] and trials[i]["paused"]]
                if waiting:
                    i = waiting[0]
                    promoted[r].add(i)
                    job = Job(i, trials[i]["config"], r, r_next)
                    trials[i] |= {"job": job, "worker": worker, "paused": False}
                    heapq.heappush(queue, (now + trials[i]["cost"], i, r + 1))
                    return Event("job", job, now, worker=worker, decide_seconds=0.001)
        i = len(trials)
        if i >= num_trials:
            return None
        luck = rng.uniform(0, 1) ** (1 + 2 * skill * min(1, i / 30))
        units = int(2 ** rng.uniform(4, 10))
        config = {"learning_rate": float(10 ** rng.uniform(-6, 0)), "units_1": units, "batch_size": int(2 ** rng.uniform(3, 7))}
        bracket = 0 if promotion else int(rng.choice(4, p=[0.551, 0.245, 0.122, 0.082]))
        source = "default" if i == 0 else "random" if i < 8 or rng.uniform() < 0.1 else "model"
        proposal = Proposal(config, source, 9 if source == "model" else None, f"EI {0.1 * luck:.3g}, {3 * i} observations" if i > 7 else "")
        job = Job(i, config, 0, RUNGS[bracket] if promotion else 27, bracket)
        cost = 0.15 + 0.9 * (units / 1024) + rng.exponential(0.15)
        dies_at = int(rng.integers(1, 9)) if rng.uniform() < fail else 99
        trials[i] = {"config": config, "job": job, "worker": worker, "luck": luck, "cost": cost, "dies_at": dies_at, "paused": False}
        heapq.heappush(queue, (now + cost + 0.1, i, 1))
        return Event("job", job, now, proposal, worker=worker, decide_seconds=0.05 if source == "model" else 0.001)

    def judge(i: int, r: int, metric: float) -> Verdict:
        trial = trials[i]
        if r == 27:
            return Verdict(Decision.STOP, "r_max is reached")
        if r not in RUNGS[trial["job"].bracket :]:
            return Verdict(Decision.CONTINUE, "no rung")
        rungs[r].append((metric, i))
        n, rank = len(rungs[r]), sorted(rungs[r]).index((metric, i)) + 1
        why = f"rank {rank} of {n}, the best {max(1, n // 3)} go on"
        if promotion:
            trial["paused"] = True
            return Verdict(Decision.PAUSE, why)
        passes = n < 3 or rank <= max(1, n // 3)
        return Verdict(Decision.CONTINUE if passes else Decision.STOP, why)

    for worker in range(workers):
        event = start(0.0, worker)
        if event is not None:
            yield event
    while queue:
        now, i, r = heapq.heappop(queue)
        trial = trials[i]
        final = 0.02 + 0.55 * trial["luck"]
        metric = float(final + (0.9 - final) * np.exp(-(0.3 + 0.5 * (1 - trial["luck"])) * r) + 0.004 * rng.normal())
        if r >= trial["dies_at"]:
            report = Report(i, None, float("nan"), now, trial["cost"], "Traceback (most recent call last):\nRuntimeError: out of memory")
            verdict = Verdict(Decision.STOP, "the trial failed")
        else:
            report, verdict = Report(i, r, metric, now, trial["cost"]), judge(i, r, metric)
        yield Event("report", trial["job"], now, report=report, verdict=verdict, worker=trial["worker"], decide_seconds=0.0001)
        if verdict.decision is Decision.CONTINUE:
            heapq.heappush(queue, (now + trial["cost"] * rng.uniform(0.95, 1.05), i, r + 1))
        elif (event := start(now, trial["worker"])) is not None:
            yield event
