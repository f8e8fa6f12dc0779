"""The model-based searcher of A-BOHB: a surrogate over (config, resource), fantasies for what is pending, expected improvement.

`prepare` makes arrays on the host, `mfgp.suggest` is called once with them, and `conclude` decodes its answer: nothing here computes
with the surrogate itself, so that somebody else may answer the requests of several studies at once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from ConfigSpace import ConfigurationSpace

import mfgp
from mfgp.query import Known
from schedulers.draws import generator
from schedulers.history import History
from schedulers.searchers.cap import cap
from schedulers.searchers.guide import Guide
from schedulers.searchers.model import Model
from schedulers.searchers.random import RandomSearcher
from schedulers.searchers.refits import RefitSchedule, Seen
from schedulers.types import Proposal, Slot

log = logging.getLogger(__name__)

DataPolicy = Literal["rungs", "rungs_and_last", "all"]
NUM_LOCAL_PARENTS = 5
MIN_PENDING = 8
DEFAULT_ACQUISITION = mfgp.ExpectedImprovement()


class Request(NamedTuple):
    """What the model is asked: `arguments` of `mfgp.suggest` besides the searcher's own settings, and what `conclude` needs again."""

    surrogate: Any  # for the space that is searched
    arguments: dict[str, Any]
    pool: np.ndarray  # [C, P] the candidates as vectors
    known: Known
    r_acq: int
    observed: tuple[int, int]  # observations, and those of them at r_max, before any cap


class GPSearcher:
    """Random until `num_init_random` trials began and something was observed, then the surrogate's choice.

    acquire_at: the resource at which improvement is expected: `bohb`, the largest with at least `threshold` observations (the paper's
        rule; null: the number of hyperparameters), `first`, the trial's first milestone, or `final`, r_max.
    data: what the surrogate sees (Klein et al. 2020, figure 7): reports at `rungs`, `rungs_and_last` report of each trial, or `all`.
    max_observations: how many of them it sees at most (`schedulers.searchers.cap`); null: all.
    refit_always_below, refit_period, refit_on: when hyperparameters are refitted (`schedulers.searchers.refits`).
    acquisition: what is maximised, one of mfgp's ExpectedImprovement, LowerConfidenceBound, Thompson.
    guide: made for the space, it steers the start, the candidates and the choice among them (`schedulers.searchers.guide`).
    """

    def __init__(
        self,
        space: ConfigurationSpace,
        *,
        surrogate: Any,
        seed: int = 0,
        num_init_random: int = 10,
        default_first: bool = True,
        num_fantasies: int = 20,
        acquire_at: Literal["bohb", "first", "final"] = "bohb",
        threshold: int | None = None,
        data: DataPolicy = "rungs",
        max_observations: int | None = None,
        num_candidates: int = 2000,
        refit_always_below: int = 150,
        refit_period: int = 1,
        refit_on: Literal["any", "r_max"] = "any",
        acquisition: Any = DEFAULT_ACQUISITION,
        guide: Callable[..., Guide] | None = None,
    ) -> None:
        positive = {"num_fantasies": num_fantasies, "num_candidates": num_candidates, "refit_period": refit_period}
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"searcher.{name}={value} must be at least 1")
        choices: dict[str, tuple[str, tuple[str, ...]]] = {
            "acquire_at": (acquire_at, ("bohb", "first", "final")),
            "data": (data, ("rungs", "rungs_and_last", "all")),
            "refit_on": (refit_on, ("any", "r_max")),
        }
        for name, (choice, valid) in choices.items():
            if choice not in valid:
                raise ValueError(f"searcher.{name}={choice} is unknown: choose one of {', '.join(valid)}")
        if max_observations is not None and (max_observations < 1 or data == "all"):
            said = f"searcher.max_observations={max_observations} must be null or at least 1"
            raise ValueError(f"{said}, and null with searcher.data=all, where a few long trials would be all that is left")
        self._random = RandomSearcher(space, seed=seed, default_first=default_first)
        self._encoding, self._tried = self._random.encoding, self._random.tried
        self._surrogate, self._acquisition, self._seed = surrogate.over(self._encoding.owners()), acquisition, seed
        if guide and (surrogate.options.mcmc is not None or acquisition != DEFAULT_ACQUISITION):
            raise ValueError(
                "this searcher weighs the expected improvement of one fit: surrogate.mcmc must be null, acquisition the default"
            )
        self._guide = guide(space=space) if guide else None
        self._num_init_random, self._num_fantasies, self._num_candidates = num_init_random, num_fantasies, num_candidates
        self._acquire_at, self._data, self._most = acquire_at, data, max_observations
        self._threshold = self._encoding.num_hyperparameters if threshold is None else threshold
        self._refits = RefitSchedule(refit_always_below, refit_period, refit_on)
        coordinates = self._encoding.coordinates()
        self._coordinates = mfgp.Space(**vars(coordinates))
        self._warm: dict[str, Any] | None = None
        self._seen = Seen()  # at the last suggestion
        self._pending_size = 0
        self._answer: Callable[[Request], mfgp.Suggestion] = self._answer_alone

    def suggest(self, history: History, slot: Slot) -> Proposal | None:
        request = self.prepare(history, slot)
        return self.conclude(history, slot, request, self._answer(request)) if isinstance(request, Request) else request

    def answer_with(self, answer: Callable[[Request], mfgp.Suggestion]) -> None:
        """Have requests answered elsewhere; `answer` must return what `mfgp.suggest` would."""
        self._answer = answer

    def prepare(self, history: History, slot: Slot) -> Request | Proposal | None:
        """What to ask the model; a proposal where it need not be asked; None: the space is exhausted."""
        trials, resources, metrics = self._observed(history)
        if not self.asks_the_model(history, slot):
            initial = self._guide.initial(history, slot) if self._guide else None
            return initial or self._random.suggest(history, slot)
        self._tried.update(history)
        pool = self._candidates(history, slot, trials, resources, metrics)
        if pool is None:
            return None
        r_acq = self._acquisition_resource(resources, slot)
        observed = len(resources), int(np.sum(resources == slot.r_max))
        if self._most is not None:
            kept = cap(trials, resources, metrics, self._most, generator(self._seed, "cap", slot.trial_id))
            trials, resources, metrics = trials[kept], resources[kept], metrics[kept]
        known = self._known(history, slot, trials, resources, metrics)
        return Request(self._surrogate, self._arguments(slot, known, pool, r_acq, self._is_due(*observed)), pool, known, r_acq, observed)

    def conclude(self, history: History, slot: Slot, request: Request, suggestion: mfgp.Suggestion) -> Proposal | None:
        """The proposal that follows from the model's answer to `request`; the history must be the one that it was prepared from."""
        _, _, pool, known, r_acq, observed = request
        state = self._remember(suggestion, *observed)
        chosen, scores = self._encoding.vectors(np.asarray(suggestion.x)), np.asarray(suggestion.acquisition)
        remark = ""
        if self._guide:
            at = (r_acq - 0.5) / slot.r_max
            model = Model(self._surrogate, suggestion.hyperparameters, (self._seed, slot.trial_id), known, at, self._num_fantasies)
            chosen = np.concatenate([chosen, pool])
            scores, remark = self._guide.scores(model, history, slot, chosen, self._encoding.rows(chosen))
            order = np.argsort(-scores, kind="stable")
            chosen, scores = chosen[order], scores[order]
        usable = np.flatnonzero(self._tried.is_new(chosen) & self._encoding.is_legal(chosen))
        seen = f"{len(known.y)} of {observed[0]}" if len(known.y) < observed[0] else observed[0]
        note = f"{seen} observations, {'refitted' if suggestion.refitted else 'hyperparameters kept'}"
        note = "; ".join(filter(None, (note, remark, suggestion.fallback)))
        if len(usable) == 0:
            log.info("trial %d: all that the model proposed was tried before; drawing at random", slot.trial_id)
            proposal = self._random.suggest(history, slot)
            return proposal and proposal._replace(note=note, state=state)
        best = usable[0]
        label = "log expected improvement" if isinstance(self._acquisition, mfgp.ExpectedImprovement) else "acquisition"
        note = f"{label} {float(scores[best]):.3g}, {note}"
        return Proposal(self._encoding.configs(chosen[best][None])[0], "model", r_acq, note, state)

    def recall(self, history: History, slot: Slot, proposal: Proposal) -> None:
        if proposal.state is not None:
            self._warm = proposal.state["hyperparameters"]
            self._seen = Seen(*(proposal.state.get(name, 0) for name in Seen._fields))
            self._pending_size = max(self._pending_size, proposal.state["pending_size"])

    def asks_the_model(self, history: History, slot: Slot) -> bool:
        """Whether this trial's suggestion needs a compiled program; the first ones are drawn without."""
        return slot.trial_id >= self._num_init_random and len(self._observed(history)[2]) > 0

    def upcoming(self, history: History) -> list[tuple[int, int]]:
        """The padded (observations, pending) that the next suggestion needs, and those that a later one will need."""
        num, most = len(self._observed(history)[2]), self._most
        sizes = (mfgp.bucket(max(1, n if most is None else min(n, most))) for n in (num, mfgp.bucket(max(1, num)) + 1))
        pending = self._padded_pending(history)
        return [(size, pending) for size in sizes]

    def compile(self, history: History, size: tuple[int, int]) -> None:
        """Have the program for one of `upcoming` ready; may run in a thread of its own. Changes nothing but the time it takes."""
        rows, pending = size
        mfgp.precompile(
            self._surrogate,
            n=rows,
            space=self._coordinates,
            num_candidates=self._num_candidates,
            num_levels=len(history.levels),
            num_fantasies=self._num_fantasies,
            pending_size=pending,
            acquisition=self._acquisition,
        )

    def bracket_weights(self, history: History) -> Sequence[float] | None:
        return self._guide.bracket_weights(history) if self._guide else None

    def score(self, history: History, paused: Sequence[tuple[int, int]]) -> Sequence[float] | None:
        return None

    def _observed(self, history: History) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(trial ids, resources, metrics) that the data policy lets the surrogate see; what diverged is left out."""
        trials = np.asarray(history.observed_trials, int)
        resources = np.asarray(history.observed_resources, int)
        metrics = np.asarray(history.observed_metrics, float)
        seen = np.isfinite(metrics)
        if self._data != "all":
            at_level = np.isin(resources, history.levels)
            if self._data == "rungs_and_last":
                last = np.array([trial.r for trial in history.trials], int)
                at_level |= resources == last[trials] if len(trials) else False
            seen &= at_level
        return trials[seen], resources[seen], metrics[seen]

    def _acquisition_resource(self, resources: np.ndarray, slot: Slot) -> int:
        if self._acquire_at == "first":
            return slot.milestone
        if self._acquire_at == "final":
            return slot.r_max
        counts = Counter(resources.tolist())
        return max((r for r, count in counts.items() if count >= self._threshold), default=min(counts))

    def _candidates(
        self, history: History, slot: Slot, trials: np.ndarray, resources: np.ndarray, metrics: np.ndarray
    ) -> np.ndarray | None:
        """[num_candidates, P] legal vectors: three quarters from the space, the rest around the best so far; None: exhausted."""
        rng = generator(self._seed, "candidates", slot.trial_id)
        if self._encoding.size <= self._num_candidates:
            pool = self._encoding.enumerate()
            pool = pool[self._tried.is_new(pool)]
            return np.resize(pool, (self._num_candidates, pool.shape[1])) if len(pool) else None
        best = trials[np.lexsort((metrics, -resources))][: 2 * NUM_LOCAL_PARENTS]
        parents = self._tried.vectors()[list(dict.fromkeys(best.tolist()))[:NUM_LOCAL_PARENTS]]
        each = self._num_candidates // (4 * NUM_LOCAL_PARENTS)
        local = [self._encoding.neighbours(parent, each, rng) for parent in parents]
        num_local = sum(map(len, local))
        drawn = self._encoding.sample(self._num_candidates - num_local, rng)
        if self._guide:
            drawn = np.concatenate([self._guide.candidates(len(drawn), slot), drawn])[: len(drawn)]
        pool = np.concatenate([*local, drawn])
        fresh = self._tried.is_new(pool)
        if not fresh.any():
            left = self._tried.draw(rng)
            return None if left is None else np.repeat(left[None], self._num_candidates, 0)
        return np.resize(pool[fresh], (self._num_candidates, pool.shape[1]))

    def _known(self, history: History, slot: Slot, trials: np.ndarray, resources: np.ndarray, metrics: np.ndarray) -> Known:
        rows = self._encoding.rows(self._tried.vectors())
        pending = sorted(history.pending.items())
        self._pending_size = self._padded_pending(history)
        pending_x = rows[[trial for trial, _ in pending]]
        pending_r = (np.array([r for _, r in pending], float) - 0.5) / slot.r_max
        return Known(rows[trials], (resources - 0.5) / slot.r_max, metrics, pending_x, pending_r, self._pending_size)

    def _arguments(self, slot: Slot, known: Known, pool: np.ndarray, r_acq: int, is_due: bool) -> dict[str, Any]:
        return dict(
            seed=(self._seed, slot.trial_id),
            **known._asdict(),
            r_acq=(r_acq - 0.5) / slot.r_max,
            candidates=self._encoding.rows(pool),
            free=self._encoding.free(pool),
            space=self._coordinates,
            warm=self._warm,
            refit=is_due,
        )

    def _answer_alone(self, request: Request) -> mfgp.Suggestion:
        return mfgp.suggest(request.surrogate, **request.arguments, num_fantasies=self._num_fantasies, acquisition=self._acquisition)

    def _padded_pending(self, history: History) -> int:
        """Room for all that is pending: a power of two that never shrinks, so that few sizes are compiled."""
        return max(self._pending_size, MIN_PENDING, 1 << max(0, len(history.pending) - 1).bit_length())

    def _is_due(self, num_observed: int, num_final: int) -> bool:
        return self._warm is None or self._refits.is_due(self._seen, num_observed, num_final)

    def _remember(self, suggestion: Any, num_observed: int, num_final: int) -> dict[str, Any]:
        self._warm = suggestion.hyperparameters
        self._seen = self._refits.after(self._seen, num_observed, num_final, suggestion.refitted)
        return {
            "hyperparameters": suggestion.hyperparameters,
            "refitted": suggestion.refitted,
            "fallback": suggestion.fallback,
            "loss": suggestion.loss,
            "evaluations": suggestion.evaluations,
            "pending_size": self._pending_size,
            **self._seen._asdict(),
        }
