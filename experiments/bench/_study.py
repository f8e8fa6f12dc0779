"""One simulated A-BOHB study whose suggestions are timed, and those of a peer on the same history, where there is one."""

from __future__ import annotations

import sys
import time
from typing import Any, NamedTuple

import numpy as np

from experiments.bench._peer import Peer

R_MAX, ETA, BRACKETS, NUM_FLOATS, WORKERS = 27, 3, 4, 8, 4
WINDOWS = (50, 100, 200, 275)


class Row(NamedTuple):
    """One suggestion of the model."""

    trial: int
    observations: int
    seconds: float
    refitted: bool
    programs: int  # compiled, or loaded from the compilation cache, while it ran
    evaluations: int  # of the marginal likelihood and its gradient
    peer: float  # seconds; nan without a peer


class Outcome(NamedTuple):
    rows: list[Row]
    programs: int
    cache_hits: int
    compile_seconds: float
    buckets: int  # sizes of padded arrays that occurred


class Timed:
    """Passes everything on to `searcher`, and keeps a row for each suggestion of the model."""

    def __init__(self, searcher: Any, peer: Peer | None = None) -> None:
        self._searcher, self._peer = searcher, peer
        self.rows: list[Row] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._searcher, name)

    def suggest(self, history: Any, slot: Any) -> Any:
        from experiments.compilation import snapshot

        peer = self._peer.suggest(history, slot) if self._peer else float("nan")
        before, began = snapshot(), time.perf_counter()
        proposal = self._searcher.suggest(history, slot)
        seconds = time.perf_counter() - began
        if proposal is not None and proposal.source == "model":
            state, programs = proposal.state, (snapshot() - before).programs
            self.rows.append(Row(slot.trial_id, state["num_observed"], seconds, state["refitted"], programs, state["evaluations"], peer))
            if self._peer and slot.trial_id % 25 == 0:  # the peer takes many minutes
                print(f"trial {slot.trial_id}: ours {seconds:.3f} s, peer {peer:.3f} s", file=sys.stderr, flush=True)
        return proposal


def simulated_study(num_trials: int, refit_period: int = 1, peer_of: Any = None) -> Outcome:
    """8 floats, 4 workers, stopping, 4 brackets. peer_of(space, r_max, eta, brackets) makes the peer."""
    import mfgp
    from experiments import compilation
    from experiments.benchmarks.synthetic import Curves
    from experiments.programs import keep_programs
    from schedulers.asha import AsyncHyperband
    from schedulers.backends.simulated import SimulatedBackend
    from schedulers.run import run
    from schedulers.searchers.gp import GPSearcher
    from schedulers.searchers.wrappers import TrialLimit

    compilation.watch()
    keep_programs()
    benchmark = Curves(num_floats=NUM_FLOATS, num_ints=0, num_categoricals=0, noise=0.01)
    space = {name: (float(p.lower), float(p.upper)) for name, p in benchmark.space.items()}  # type: ignore[attr-defined]
    peer = peer_of(space, R_MAX, ETA, BRACKETS) if peer_of else None
    timed = Timed(GPSearcher(benchmark.space, surrogate=mfgp.exp_decay(), refit_period=refit_period), peer)
    scheduler = AsyncHyperband(TrialLimit(timed, num_trials), r_min=1, r_max=R_MAX, eta=ETA, brackets=BRACKETS)
    for _ in run(scheduler, SimulatedBackend(benchmark, WORKERS), _Nothing()):
        pass
    if peer:
        peer.close()
    compiled = compilation.snapshot()
    buckets = len({mfgp.bucket(row.observations) for row in timed.rows})
    return Outcome(timed.rows, compiled.programs, compiled.cache_hits, compiled.seconds, buckets)


class _Nothing:
    def append(self, event: Any) -> None: ...


def study_table(outcome: Outcome) -> str:
    """Medians around some trials; compiling apart."""
    lines = [f"{'trial':>6} {'observations':>13} {'refitting: median s':>20} {'max s':>7} {'not: median s':>14} {'max s':>7}"]
    for trial in WINDOWS:
        near = [row for row in outcome.rows if abs(row.trial - trial) <= 15 and row.programs == 0]
        if near:
            lines.append(f"{trial:6d} {np.median([row.observations for row in near]):13.0f}" + _cells(near, True) + _cells(near, False))
    evaluations = [row.evaluations for row in outcome.rows if row.refitted]
    lines.append(
        f"suggestions of the model: {len(outcome.rows)} in {sum(row.seconds for row in outcome.rows):.1f} s; evaluations per fit: median "
        f"{np.median(evaluations):.0f}, mean {np.mean(evaluations):.0f}, max {max(evaluations)}\n"
        f"programs: {outcome.programs}, of which from the compilation cache {outcome.cache_hits}, in {outcome.compile_seconds:.1f} s; "
        f"suggestions that compiled or loaded one: {sum(row.programs > 0 for row in outcome.rows)}, for {outcome.buckets} sizes"
    )
    return "\n".join(lines)


def _cells(rows: list[Row], refitted: bool) -> str:
    seconds = [row.seconds for row in rows if row.refitted is refitted]
    return f"{np.median(seconds):21.3f} {max(seconds):7.3f}" if seconds else f"{'-':>21} {'-':>7}"
