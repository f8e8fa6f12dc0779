"""A user's belief where good configurations lie: one distribution per hyperparameter, independent of each other.

Numbers have a normal distribution truncated to their (log-)range, with its peak at the user's default; categories have a table of
probabilities, given in full (the operation frequencies of good architectures, say) or built from a default. Everything happens in the
coordinates of `schedulers.encoding`, where random search is uniform; a density here is relative to that, so a hyperparameter about
which the user says nothing counts 1. Conditions are respected: an inactive hyperparameter counts 1 too.

Widths and weights come from NePS, the code of the papers on priors: `neps11` (version 0.11) has standard deviations of 0.5, 0.25, 0.125
and 0.05 of the range and weights of 2, 4, 6 and 8 for the default category against 1 for each other one; `neps26` (2026) reads low,
medium and high as c = 0.25, 0.5 and 0.75, with standard deviation 1 - c and probability c for the default category.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import logsumexp, ndtr, ndtri

from schedulers.encoding import Encoding, _Column

Confidence = Literal["low", "medium", "high", "ultra"]
PriorScale = Literal["neps11", "neps26"]
Part = Literal["joint", "hp", "arch"]

STD = {
    "neps11": {"low": 0.5, "medium": 0.25, "high": 0.125, "ultra": 0.05},
    "neps26": {"low": 0.75, "medium": 0.5, "high": 0.25},
}
WEIGHT = {"low": 2.0, "medium": 4.0, "high": 6.0, "ultra": 8.0}
PROBABILITY = {"low": 0.25, "medium": 0.5, "high": 0.75}
LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)
ROUNDS = 20


@dataclass(frozen=True)
class TruncatedNormal:
    """A number's distribution in its unit coordinate."""

    mean: float
    std: float

    def draw(self, column: _Column, uniform: np.ndarray) -> np.ndarray:
        """[n] vector entries from [n] uniform numbers."""
        low, high = ndtr(self._z(0.0)), ndtr(self._z(1.0))
        unit = self.mean + self.std * ndtri(low + uniform * (high - low))
        return column.decode(np.clip(unit, 0.0, 1.0)[:, None])

    def log_density(self, column: _Column, entries: np.ndarray) -> np.ndarray:
        """[n] log of density over uniform density; of an integer's cell: its mass over its width."""
        log_total = np.log(ndtr(self._z(1.0)) - ndtr(self._z(0.0)))
        if not column.is_integer:
            z = self._z(column.encode(entries)[:, 0])
            return -0.5 * z * z - LOG_SQRT_2PI - np.log(self.std) - log_total
        start, stop = cells(column, entries)
        z_start, z_stop = self._z(start), self._z(stop)
        flip = z_start > 0  # in the right tail the difference of two numbers near 1 would be lost
        mass = ndtr(np.where(flip, -z_start, z_stop)) - ndtr(np.where(flip, -z_stop, z_start))
        return np.log(mass) - log_total - np.log(stop - start)

    def peak(self, column: _Column) -> float:
        return float(column.decode(np.array([[self.mean]]))[0])

    def moved_to(self, column: _Column, entry: float) -> TruncatedNormal:
        return TruncatedNormal(float(column.encode(np.array([entry]))[0, 0]), self.std)

    def _z(self, unit: Any) -> Any:
        return (unit - self.mean) / self.std


@dataclass(frozen=True)
class Table:
    """Probabilities of the categories."""

    probabilities: tuple[float, ...]
    best: int  # the user's default; with `neps26` and low confidence it is not the most probable one
    peaked: tuple[float, float]  # probability of the default category and of each other one, for `moved_to`

    def draw(self, column: _Column, uniform: np.ndarray) -> np.ndarray:
        edges = np.cumsum(self.probabilities)
        return np.minimum(np.searchsorted(edges / edges[-1], uniform, side="right"), len(edges) - 1).astype(float)

    def log_density(self, column: _Column, entries: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):  # a category may be ruled out
            return np.log(np.array(self.probabilities) * len(self.probabilities))[entries.astype(int)]

    def peak(self, column: _Column) -> float:
        return float(self.best)

    def moved_to(self, column: _Column, entry: float) -> Table:
        return peaked_table(len(self.probabilities), int(entry), self.peaked)


def peaked_table(num: int, best: int, peaked: tuple[float, float]) -> Table:
    return Table(tuple(peaked[0] if i == best else peaked[1] for i in range(num)), best, peaked)


def cells(column: _Column, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the cell of each integer begins and ends in the unit coordinate."""
    numbers = np.rint(column._numbers(entries))
    edges = np.stack([numbers - 0.5, numbers + 0.5, np.full_like(numbers, column.low - 0.5), np.full_like(numbers, column.high + 0.5)])
    start, stop, low, high = np.log(edges) if column.log else edges
    return (start - low) / (high - low), (stop - low) / (high - low)


class Prior:
    """The distribution that `spec` describes over the space of `encoding`.

    spec: name -> {default: value, confidence: low | medium | high | ultra} or, for categories, {probabilities: {choice: p}} with all
        choices and sum 1. What names no confidence has `confidence`.
    part: which entries count: `joint`, all; `arch`, those given as tables; `hp`, the others.
    Raises ValueError with one sentence on a mistake in `spec`.
    """

    def __init__(
        self,
        encoding: Encoding,
        spec: Mapping[str, Any],
        *,
        confidence: Confidence = "medium",
        prior_scale: PriorScale = "neps11",
        part: Part = "joint",
    ) -> None:
        if prior_scale not in STD:
            raise ValueError(f"searcher.prior_scale={prior_scale} is unknown: choose {' or '.join(STD)}")
        if part not in ("joint", "hp", "arch"):
            raise ValueError(f"searcher.part={part} is unknown: choose joint, hp or arch")
        _check_confidence("searcher.confidence", confidence, prior_scale)
        if not isinstance(spec, Mapping) or not spec:
            example = "{name: {default: value, confidence: medium}}"
            raise ValueError(f"prior={spec!r} says nothing: give {example} for one hyperparameter or more, or a file: +prior=mlp")
        columns = {column.hp.name: column for column in encoding.columns}
        factors = {name: _factor(columns, name, entry, confidence, prior_scale) for name, entry in spec.items()}
        kept = {n: f for n, f in factors.items() if part == "joint" or ("probabilities" in spec[n]) == (part == "arch")}
        if not kept:
            given = "a table of probabilities" if part == "arch" else "a default"
            raise ValueError(f"searcher.part={part} leaves nothing of the prior: none of {', '.join(spec)} is given by {given}")
        self._encoding = encoding
        self._factors: list[tuple[_Column, TruncatedNormal | Table]] = [(columns[name], factor) for name, factor in kept.items()]

    def full(self, num: int, rng: np.random.Generator) -> np.ndarray:
        """[num, P] draws as if no hyperparameter were ever inactive or forbidden."""
        vectors = np.empty((num, len(self._encoding.columns)))
        for column in self._encoding.columns:
            vectors[:, column.index] = column.sample(num, rng)
        for column, factor in self._factors:
            vectors[:, column.index] = factor.draw(column, rng.random(num))
        return vectors

    def sample(self, num: int, rng: np.random.Generator) -> np.ndarray:
        """[<= num, P] legal draws (fewer if most of the prior's mass is forbidden)."""
        found = np.empty((0, len(self._encoding.columns)))
        for _ in range(ROUNDS):
            vectors = self._encoding.deactivate(self.full(num, rng))
            found = np.concatenate([found, vectors[self._encoding.is_legal(vectors)]])[:num]
            if len(found) == num:
                break
        return found

    def log_density(self, vectors: np.ndarray) -> np.ndarray:
        """[n] nats relative to the uniform distribution over the encoding; -inf where a table rules a category out.

        The mass that forbidden clauses remove is not given back: it is one constant for all.
        """
        total = np.zeros(len(vectors))
        for column, factor in self._factors:
            active = ~np.isnan(vectors[:, column.index])
            total[active] += factor.log_density(column, vectors[active, column.index])
        return total

    def mode(self) -> np.ndarray:
        """[P] the user's defaults, the space's own where there are none; whether it is legal is the caller's to check."""
        vector = np.empty(len(self._encoding.columns))
        for column in self._encoding.columns:
            vector[column.index] = column.default
        for column, factor in self._factors:
            vector[column.index] = factor.peak(column)
        return self._encoding.deactivate(vector[None])[0]

    def centred_at(self, vector: np.ndarray) -> Prior:
        """The same belief about the same hyperparameters, with its peaks at `vector` (unmoved where that is inactive)."""
        moved = object.__new__(Prior)
        moved._encoding = self._encoding
        moved._factors = [
            (column, factor if np.isnan(vector[column.index]) else factor.moved_to(column, vector[column.index]))
            for column, factor in self._factors
        ]
        return moved


def log_mean_weight(log_densities: np.ndarray, weights: np.ndarray) -> float:
    """log Σ w_i exp(l_i): products of many densities under- and overflow, their logarithms do not."""
    return float(logsumexp(log_densities, b=weights))


def _check_confidence(where: str, confidence: Any, prior_scale: str) -> None:
    if confidence not in STD[prior_scale]:
        raise ValueError(f"{where}={confidence} is unknown: with prior_scale={prior_scale} choose {', '.join(STD[prior_scale])}")


def _factor(columns: Mapping[str, _Column], name: str, entry: Any, confidence: str, prior_scale: PriorScale) -> TruncatedNormal | Table:
    if name not in columns:
        raise ValueError(f"prior.{name}: the space has no such hyperparameter; it has {', '.join(columns)}")
    if not isinstance(entry, Mapping) or set(entry) not in ({"default"}, {"default", "confidence"}, {"probabilities"}):
        raise ValueError(f"prior.{name}={entry}: give either default (and confidence, if you like) or probabilities")
    column = columns[name]
    if "probabilities" in entry:
        return _table(column, entry["probabilities"], confidence, prior_scale)
    _check_confidence(f"prior.{name}.confidence", confidence := entry.get("confidence", confidence), prior_scale)
    default = entry["default"]
    if not column.hp.is_legal(default):
        raise ValueError(f"prior.{name}.default={default!r} is not a legal value of {column.hp}")
    vector = float(column.hp.to_vector(default))
    if column.num_categories == 1:
        raise ValueError(f"prior.{name}: a constant needs no prior")
    if column.num_categories:
        return peaked_table(column.num_categories, int(vector), _peaked(column.num_categories, confidence, prior_scale))
    return TruncatedNormal(float(column.encode(np.array([vector]))[0, 0]), STD[prior_scale][confidence])


def _peaked(num: int, confidence: str, prior_scale: PriorScale) -> tuple[float, float]:
    if prior_scale == "neps26":
        return PROBABILITY[confidence], (1 - PROBABILITY[confidence]) / (num - 1)
    weight = WEIGHT[confidence]
    return weight / (weight + num - 1), 1 / (weight + num - 1)


def _table(column: _Column, given: Any, confidence: str, prior_scale: PriorScale) -> Table:
    name, choices = column.hp.name, getattr(column.hp, "choices", None)
    if choices is None or len(choices) < 2:
        raise ValueError(f"prior.{name}.probabilities: only a hyperparameter with two or more categories has a table, this is {column.hp}")
    if not isinstance(given, Mapping) or set(given) != set(choices):
        raise ValueError(f"prior.{name}.probabilities={given} must give one number for each of {', '.join(map(str, choices))}")
    values = [given[choice] for choice in choices]
    if not all(isinstance(p, int | float) and not isinstance(p, bool) and 0 <= p <= 1 for p in values) or abs(sum(values) - 1) > 1e-6:
        raise ValueError(f"prior.{name}.probabilities={dict(given)} must be numbers from 0 to 1 with sum 1")
    probabilities = tuple(float(p) / sum(values) for p in values)
    return Table(probabilities, int(np.argmax(values)), _peaked(len(choices), confidence, prior_scale))
