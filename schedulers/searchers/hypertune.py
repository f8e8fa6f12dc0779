"""Hyper-Tune (Li et al. 2022): how far lower resources can be trusted, for the choice of brackets and for the acquisition.

Each level's own model, the surrogate conditioned on that level's observations alone, ranks the configurations that reached the highest
level with enough of them; the more often a level's ranking is the best one, the more it counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ConfigSpace import ConfigurationSpace

from mfgp.query import Belief, Known, draw, learn, log_expected_improvement, targets
from schedulers.encoding import Encoding
from schedulers.history import History
from schedulers.rungs import bracket_weights
from schedulers.searchers.model import XI, Model
from schedulers.searchers.refits import checkpoint
from schedulers.searchers.tried import Tried
from schedulers.types import Proposal, Slot

MIN_SUPPORT = 6  # observations that a level needs
NUM_DRAWS = 50
MAX_FOLDS = 5
LEAST_TRUST = 0.01


class Trust(NamedTuple):
    """θ of the supported levels, in ascending order of resource; sums to 1."""

    levels: tuple[int, ...]
    theta: np.ndarray


class HyperTuneGuide:
    """Guide of a GPSearcher. Says nothing until a second level has six observations.

    brackets: of the scheduler; their law changes among the supported levels only, by θ / r, and keeps its mass on the others.
    """

    def __init__(self, space: ConfigurationSpace, *, surrogate: Any, brackets: int = 1, seed: int = 0) -> None:
        if brackets < 1:
            raise ValueError(f"searcher.guide.brackets={brackets} must be at least 1, and the scheduler's own")
        self._encoding = Encoding(space)
        self._tried = Tried(self._encoding)
        self._surrogate, self._brackets, self._seed = surrogate.over(self._encoding.owners()), brackets, seed
        self._latest: tuple[int, Trust | None] = (0, None)

    def initial(self, history: History, slot: Slot) -> Proposal | None:
        return None

    def candidates(self, num: int, slot: Slot) -> np.ndarray:
        return np.empty((0, len(self._encoding.columns)))

    def bracket_weights(self, history: History) -> Sequence[float] | None:
        trust = self.trust(history)
        return None if trust is None else adapted_weights(bracket_weights(history.levels, self._brackets), history.levels, trust)

    def scores(self, model: Model, history: History, slot: Slot, vectors: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, str]:
        trust = self.trust(history)
        trust = trust and _within(trust, [bool(np.any(model.known.r == (level - 0.5) / slot.r_max)) for level in trust.levels])
        if trust is None:
            return model.log_improvement(rows), "no second level to compare with"
        at = [(level - 0.5) / slot.r_max for level in trust.levels]
        seen = model.known.x[model.known.r == at[-1]]
        beliefs = [
            _at_level(model, np.concatenate([seen, rows]), u) if t > LEAST_TRUST else None for u, t in zip(at, trust.theta, strict=True)
        ]
        whole = ensemble(beliefs, trust.theta)
        best = whole.mean[:, : len(seen)].min(1, keepdims=True)
        spread = targets(model.surrogate, model.known)[model.known.r == at[-1]].std()
        scores = log_expected_improvement(Belief(whole.mean[:, len(seen) :], whole.std[len(seen) :]), best, XI * spread)
        return scores, "trust " + ", ".join(f"{t:.2f} in r={level}" for level, t in zip(*trust, strict=True))

    def trust(self, history: History) -> Trust | None:
        """θ from the first `checkpoint` observations; None while fewer than two levels are supported."""
        resources, metrics = np.asarray(history.observed_resources, int), np.asarray(history.observed_metrics, float)
        seen = np.flatnonzero(np.isin(resources, history.levels) & np.isfinite(metrics))
        num = checkpoint(len(seen), 2 * MIN_SUPPORT)
        if num != self._latest[0]:
            self._latest = num, self._judge(history, seen[:num], resources, metrics)
        return self._latest[1]

    def _judge(self, history: History, seen: np.ndarray, resources: np.ndarray, metrics: np.ndarray) -> Trust | None:
        supported = tuple(level for level in history.levels if np.sum(resources[seen] == level) >= MIN_SUPPORT)
        if len(supported) < 2:
            return None
        self._tried.update(history)
        rows = self._encoding.rows(self._tried.vectors())[np.asarray(history.observed_trials, int)[seen]]
        r, r_max = resources[seen], history.levels[-1]
        known = Known(rows, (r - 0.5) / r_max, metrics[seen], np.empty((0, rows.shape[1])), np.empty(0), 4)
        hyperparameters = learn(self._surrogate, (self._seed, len(seen)), known)

        def predict(level: int, used: np.ndarray, x: np.ndarray) -> np.ndarray:
            at = np.full(len(x), (level - 0.5) / r_max)
            return draw(self._surrogate, hyperparameters, (self._seed, len(seen)), known, x, at, NUM_DRAWS, used=used)

        top = np.flatnonzero(r == supported[-1])
        draws = [predict(level, r == level, rows[top]) for level in supported[:-1]]
        held_out = np.empty((NUM_DRAWS, len(top)))
        for fold in np.array_split(np.arange(len(top)), min(len(top) // 2, MAX_FOLDS)):
            used = r == supported[-1]
            used[top[fold]] = False
            held_out[:, fold] = predict(supported[-1], used, rows[top[fold]])
        losses = np.array([ranking_loss(each, metrics[seen][top]) for each in [*draws, held_out]])
        return Trust(supported, share_of_wins(losses))


def ranking_loss(draws: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[S] of [S, n] draws: the fraction of pairs that they order otherwise than y."""
    i, j = np.triu_indices(len(y), 1)
    return np.mean((draws[:, i] < draws[:, j]) != (y[i] < y[j]), axis=1)


def share_of_wins(losses: np.ndarray) -> np.ndarray:
    """[L] of [L, S] losses: how often each is the least one (ties count for all that tie), made to sum to 1."""
    wins = np.sum(losses == losses.min(0), axis=1)
    return np.asarray(wins / wins.sum())


def adapted_weights(law: Sequence[float], levels: Sequence[int], trust: Trust) -> Sequence[float] | None:
    """The bracket law with the mass of the supported levels among the first ones shared by θ / r; None if θ is 0 at all of these."""
    theta = dict(zip(trust.levels, trust.theta, strict=True))
    supported = [s for s in range(len(law)) if levels[s] in theta]
    shares = np.array([theta[levels[s]] / levels[s] for s in supported])
    if shares.sum() == 0:
        return None
    weights = np.array(law)
    weights[supported] = weights[supported].sum() * shares / shares.sum()
    return [float(weight) for weight in weights]


def _within(trust: Trust, kept: Sequence[bool]) -> Trust | None:
    """Trust among the levels that are kept (a cap on the observations may leave none of a low one); None if there is none, or no top."""
    theta = trust.theta * kept
    return Trust(trust.levels, theta / theta.sum()) if kept[-1] and theta.any() else None


def ensemble(beliefs: Sequence[Belief | None], theta: np.ndarray) -> Belief:
    """Mean Σ θ μ and variance Σ θ² σ² of the levels' beliefs; None: left out."""
    kept = [(belief, t) for belief, t in zip(beliefs, theta, strict=True) if belief is not None]
    num = max(len(belief.mean) for belief, _ in kept)
    mean = sum(t * np.broadcast_to(belief.mean, (num, belief.mean.shape[1])) for belief, t in kept)
    return Belief(np.asarray(mean), np.sqrt(sum((t * belief.std) ** 2 for belief, t in kept)))


def _at_level(model: Model, rows: np.ndarray, u: float) -> Belief:
    """The belief of the level's own model: its observations and pending evaluations alone."""
    there = model.known.pending_r == u
    known = model.known._replace(pending_x=model.known.pending_x[there], pending_r=model.known.pending_r[there])
    alone = Model(model.surrogate, model.hyperparameters, model.seed, known, u, model.num_fantasies)
    return alone.believe(rows, u, used=known.r == u)
