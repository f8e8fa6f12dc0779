"""ConfigSpace's configurations as arrays: one *vector* of P numbers for bookkeeping, one *row* in [0, 1]^D for the surrogate.

A vector is ConfigSpace's own representation (floats and integers scaled to [0, 1], categories as indices, nan where inactive), so that
its conditions and forbidden clauses, evaluated by ConfigSpace on whole blocks, hold here too. A row encodes what a Gaussian process
should see:

    float             1 coordinate, (log-)linear on its range
    integer, ordinal  1 coordinate, (log-)linear on [low - 1/2, high + 1/2]: every value owns a cell
    2 categories      1 coordinate, 1/4 or 3/4
    3+ categories     one coordinate each, one-hot
    constant          none
    conditional       as above at its default when inactive, and one more coordinate: 1 active, 0 inactive

Sampling decodes uniform numbers through the same map, so end values of integers get their full mass. A space with priors of its own
(normal, beta, weighted categories) is sampled from them.

A space may have a `pool`, a list of configurations that are the only ones there are (the rows of a table, say): then what is sampled,
enumerated or moved is always one of them, the nearest in [0, 1]^D where something else was meant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from ConfigSpace import ConfigurationSpace
from ConfigSpace.hyperparameters import (
    CategoricalHyperparameter,
    Constant,
    FloatHyperparameter,
    Hyperparameter,
    IntegerHyperparameter,
    NumericalHyperparameter,
    OrdinalHyperparameter,
    UniformFloatHyperparameter,
    UniformIntegerHyperparameter,
)
from scipy.spatial import KDTree

from schedulers.types import Config

CONTINUOUS, INTEGER, FIXED, CATEGORY = 0, 1, 2, 3
EDGE = 1e-8  # keeps u = 1 inside the cell of the last integer
MAX_ENUMERATED = 2**20


@dataclass(frozen=True)
class Coordinates:
    """How the D coordinates of a row may move: `kind` CONTINUOUS, INTEGER (cells between `low` - 1/2 and `high` + 1/2), CATEGORY (those
    of one share a number in `group`, which is -1 elsewhere) or FIXED."""

    kind: np.ndarray
    log: np.ndarray
    low: np.ndarray
    high: np.ndarray
    group: np.ndarray


class _Column:
    """One hyperparameter: its place in vector and row, and the maps between value, vector entry and row entries."""

    def __init__(self, hp: Hyperparameter, index: int, start: int, is_conditional: bool) -> None:
        self.hp, self.index, self.start, self.is_conditional = hp, index, start, is_conditional
        self.log = bool(getattr(hp, "log", False))
        self.num_categories = 0
        if isinstance(hp, Constant):
            self.num_categories = 1
        elif isinstance(hp, CategoricalHyperparameter):
            self.num_categories = len(hp.choices)
        elif isinstance(hp, OrdinalHyperparameter):
            self.low, self.high = 0.0, float(len(hp.sequence) - 1)
        else:
            assert isinstance(hp, NumericalHyperparameter)
            self.low, self.high = float(hp.lower), float(hp.upper)
        self.is_integer = isinstance(hp, IntegerHyperparameter | OrdinalHyperparameter)
        self.width = {0: 1, 1: 0, 2: 1}.get(self.num_categories, self.num_categories)
        self.default = float(hp.to_vector(hp.default_value))
        kinds = [INTEGER if self.is_integer else CONTINUOUS] if self.num_categories == 0 else [CATEGORY] * self.width
        self.kinds = kinds + [FIXED] * is_conditional
        self.size = math.inf if isinstance(hp, FloatHyperparameter) else int(hp.size)

    def _edges(self) -> tuple[float, float]:
        low, high = (self.low - 0.5 + EDGE, self.high + 0.5 - EDGE) if self.is_integer else (self.low, self.high)
        return (math.log(low), math.log(high)) if self.log else (low, high)

    def _numbers(self, vector: np.ndarray) -> np.ndarray:
        """Vector entries as numbers on the hyperparameter's own scale (an ordinal's are its indices)."""
        return vector if isinstance(self.hp, OrdinalHyperparameter) else np.asarray(self.hp.to_value(vector), float)

    def encode(self, vector: np.ndarray) -> np.ndarray:
        """[n] vector entries, none of them nan -> [n, width]."""
        if self.num_categories == 1:
            return np.empty((len(vector), 0))
        if self.num_categories == 2:
            return (0.25 + 0.5 * vector)[:, None]
        if self.num_categories:
            return np.eye(self.num_categories)[vector.astype(int)]
        low, high = self._edges()
        numbers = self._numbers(vector)
        return np.clip(((np.log(numbers) if self.log else numbers) - low) / (high - low), 0.0, 1.0)[:, None]

    def decode(self, part: np.ndarray) -> np.ndarray:
        """[n, width] -> [n] vector entries of the nearest valid value."""
        if self.num_categories == 1:
            return np.full(len(part), self.default)
        if self.num_categories == 2:
            return (part[:, 0] > 0.5).astype(float)
        if self.num_categories:
            return part.argmax(1).astype(float)
        low, high = self._edges()
        numbers = low + np.clip(part[:, 0], 0.0, 1.0) * (high - low)
        numbers = np.exp(numbers) if self.log else numbers
        if self.is_integer:
            numbers = np.rint(numbers)
        numbers = np.clip(numbers, self.low, self.high)
        if isinstance(self.hp, OrdinalHyperparameter):
            return numbers
        return np.asarray(self.hp.to_vector(numbers.astype(np.int64) if self.is_integer else numbers), float)

    def sample(self, num: int, rng: np.random.Generator) -> np.ndarray:
        if isinstance(self.hp, CategoricalHyperparameter):
            return rng.choice(self.num_categories, size=num, p=self.hp.probabilities).astype(float)
        if isinstance(self.hp, UniformFloatHyperparameter | UniformIntegerHyperparameter | OrdinalHyperparameter | Constant):
            return self.decode(rng.random((num, 1)))
        seed = np.random.RandomState(int(rng.integers(2**32)))
        return np.asarray(self.hp.sample_vector(num, seed=seed), float)

    def move(self, vector: np.ndarray, rng: np.random.Generator, step: float) -> np.ndarray:
        """A neighbour each: a normal step in the row's coordinate for numbers (never the same integer), another category."""
        if self.num_categories:
            shift = rng.integers(1, max(2, self.num_categories), size=len(vector))
            return (vector + shift) % self.num_categories
        part = self.encode(vector)
        moved = self.decode(np.clip(part + step * rng.standard_normal(part.shape), 0.0, 1.0))
        if not self.is_integer:
            return moved
        numbers, before = self._numbers(moved), self._numbers(vector)
        direction = np.where(rng.random(len(vector)) < 0.5, -1.0, 1.0)
        direction = np.where(before + direction < self.low, 1.0, np.where(before + direction > self.high, -1.0, direction))
        numbers = np.clip(np.where(numbers == before, before + direction, numbers), self.low, self.high)
        if isinstance(self.hp, OrdinalHyperparameter):
            return numbers
        return np.asarray(self.hp.to_vector(numbers.astype(np.int64)), float)

    def values(self, vector: np.ndarray) -> list[Any]:
        """[n] vector entries, none of them nan -> plain Python values."""
        if isinstance(self.hp, Constant):
            return [self.hp.value] * len(vector)
        if isinstance(self.hp, CategoricalHyperparameter | OrdinalHyperparameter):
            choices = self.hp.choices if isinstance(self.hp, CategoricalHyperparameter) else self.hp.sequence
            return [_plain(choices[int(index)]) for index in vector]
        return [_plain(value) for value in np.asarray(self.hp.to_value(vector)).tolist()]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


class Encoding:
    """The maps of one space. `num_hyperparameters` leaves constants out; `dim` is D; `size` the number of configurations or inf."""

    def __init__(self, space: ConfigurationSpace) -> None:
        self.space = space
        conditional = set(space.conditional_hyperparameters)
        self._columns: list[_Column] = []
        start = 0
        for name in space:
            column = _Column(space[name], space.index_of[name], start, name in conditional)
            self._columns.append(column)
            start += len(column.kinds)
        self.dim = start
        self.num_hyperparameters = sum(column.num_categories != 1 for column in self._columns)
        self.size = math.prod(column.size for column in self._columns)  # an upper bound when there are conditions
        self._parents = {parent.name for name in conditional for parent in space.parents_of[name]}
        self._conditions = {name: space.parent_conditions_of[name] for name in conditional}
        self._pool: _Pool | None = None
        if members := getattr(space, "pool", None):
            self._pool = _Pool(self, np.array([self.vector(config) for config in members]))
            self.size = len(self._pool.vectors)

    @property
    def columns(self) -> tuple[_Column, ...]:
        """One per hyperparameter, constants included, for searchers that treat each on its own."""
        return tuple(self._columns)

    def coordinates(self) -> Coordinates:
        kind = np.array([k for column in self._columns for k in column.kinds], int)
        fill = [(c.log, c.low, c.high) if k in (CONTINUOUS, INTEGER) else (False, 0.0, 1.0) for c in self._columns for k in c.kinds]
        log, low, high = (np.array(part) for part in zip(*fill, strict=True))
        group = np.array([c.index if k == CATEGORY else -1 for c in self._columns for k in c.kinds], int)
        return Coordinates(kind, log.astype(bool), low.astype(float), high.astype(float), group)

    def owners(self) -> tuple[int, ...]:
        """Which hyperparameter each of the D coordinates of a row is about, as `vectors` count them."""
        return tuple(c.index for c in self._columns for _ in c.kinds)

    def deactivate(self, full: np.ndarray) -> np.ndarray:
        """[n, P] vectors without nan -> the same with nan where the conditions make a hyperparameter inactive.

        With a pool, the nearest members.
        """
        vectors = self._deactivated(full)
        return self._pool.nearest(self.rows(vectors)) if self._pool else vectors

    def _deactivated(self, full: np.ndarray) -> np.ndarray:
        vectors = full.copy()
        for _ in self._conditions:  # at most one level of nesting a round
            before = np.isnan(vectors)
            for name, conditions in self._conditions.items():
                active = np.ones(len(vectors), bool)
                for condition in conditions:
                    active &= condition.satisfied_by_vector_array(vectors.T)
                    for parent in self.space.parents_of[name]:
                        active &= ~np.isnan(vectors[:, self.space.index_of[parent.name]])
                vectors[~active, self.space.index_of[name]] = np.nan
            if (before == np.isnan(vectors)).all():
                break
        return vectors

    def is_legal(self, vectors: np.ndarray) -> np.ndarray:
        """[n] False where a forbidden clause holds, or outside the pool."""
        legal = np.ones(len(vectors), bool) if self._pool is None else self._pool.has(self.keys(vectors))
        for clause in self.space.forbidden_clauses:
            legal &= ~clause.is_forbidden_vector_array(vectors.T)
        return legal

    def sample(self, num: int, rng: np.random.Generator) -> np.ndarray:
        """[num, P] legal vectors (fewer if most of the space is forbidden: 20 rounds are tried); a pool's with equal probability."""
        if self._pool is not None:
            return self._pool.vectors[rng.integers(len(self._pool.vectors), size=num)]
        found = np.empty((0, len(self._columns)))
        for _ in range(20):
            full = np.empty((num, len(self._columns)))
            for column in self._columns:
                full[:, column.index] = column.sample(num, rng)
            vectors = self.deactivate(full)
            found = np.concatenate([found, vectors[self.is_legal(vectors)]])[:num]
            if len(found) == num:
                break
        return found

    def enumerate(self) -> np.ndarray:
        """All legal vectors of a finite space, each once. Raises ValueError above 2^20 combinations."""
        if self.size > MAX_ENUMERATED:
            raise ValueError(f"the space has {self.size} configurations, too many to enumerate (at most {MAX_ENUMERATED})")
        if self._pool is not None:
            return self._pool.vectors.copy()
        values = [np.asarray(_all_entries(c), float) for c in sorted(self._columns, key=lambda c: c.index)]
        grid = np.stack(np.meshgrid(*values, indexing="ij"), -1).reshape(-1, len(values))
        vectors = self.deactivate(grid)
        vectors = vectors[self.is_legal(vectors)]
        _, first = np.unique(np.nan_to_num(vectors, nan=-1.0), axis=0, return_index=True)
        return vectors[np.sort(first)]

    def default(self) -> np.ndarray:
        """[P] the space's default configuration, or the member of the pool that is nearest to it."""
        vector = np.asarray(self.space.get_default_configuration().get_array(), float)
        return vector if self._pool is None else self._pool.nearest(self.rows(vector[None]))[0]

    def neighbours(self, vector: np.ndarray, num: int, rng: np.random.Generator, step: float = 0.2) -> np.ndarray:
        """[<= num, P] legal vectors, each with one active hyperparameter of `vector` moved (newly active ones are drawn)."""
        movable = [c for c in self._columns if c.size > 1 and not np.isnan(vector[c.index])]
        full = self._filled(np.repeat(vector[None], num, 0), rng)
        chosen = rng.integers(len(movable), size=num)
        for position, column in enumerate(movable):
            rows = np.flatnonzero(chosen == position)
            full[rows, column.index] = column.move(full[rows, column.index], rng, step)
        vectors = self.deactivate(full)
        return vectors[self.is_legal(vectors)]

    def rows(self, vectors: np.ndarray) -> np.ndarray:
        """[n, P] -> [n, D]."""
        rows = np.empty((len(vectors), self.dim))
        for column in self._columns:
            entries = vectors[:, column.index]
            inactive = np.isnan(entries)
            rows[:, column.start : column.start + column.width] = column.encode(np.where(inactive, column.default, entries))
            if column.is_conditional:
                rows[:, column.start + column.width] = ~inactive
        return rows

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """[n, D] -> [n, P] nearest valid vectors; legality is the caller's to check."""
        full = np.empty((len(rows), len(self._columns)))
        for column in self._columns:
            full[:, column.index] = column.decode(rows[:, column.start : column.start + column.width])
        return self.deactivate(full)

    def free(self, vectors: np.ndarray) -> np.ndarray:
        """[n, D] which coordinates may move: numbers and categories that are active; none with a pool.

        Categories on which others depend stay, since a move of theirs would change what else is active.
        """
        free = np.zeros((len(vectors), self.dim), bool)
        if self._pool is not None:
            return free
        for column in self._columns:
            if not (column.num_categories and column.hp.name in self._parents):
                active = ~np.isnan(vectors[:, column.index])
                free[:, column.start : column.start + column.width] = active[:, None]
        return free

    def configs(self, vectors: np.ndarray) -> list[Config]:
        """[n, P] -> plain dictionaries of the active hyperparameters."""
        configs: list[dict[str, Any]] = [{} for _ in vectors]
        for column in self._columns:
            active = np.flatnonzero(~np.isnan(vectors[:, column.index]))
            values = column.values(vectors[active, column.index])
            for row, value in zip(active, values, strict=True):
                configs[row][column.hp.name] = value
        return list(configs)

    def vector(self, config: Config) -> np.ndarray:
        """[P] of one configuration. Raises ValueError when it is not of this space."""
        vector = np.full(len(self._columns), np.nan)
        unknown = sorted(set(config) - set(self.space))
        if unknown:
            raise ValueError(f"the configuration names {unknown[0]!r}, which the space does not have; it has {', '.join(self.space)}")
        for column in self._columns:
            if column.hp.name in config:
                value = config[column.hp.name]
                if not column.hp.is_legal(value):
                    raise ValueError(f"{column.hp.name}={value!r} is not a legal value of {column.hp}")
                vector[column.index] = float(column.hp.to_vector(value))
        return vector

    def keys(self, vectors: np.ndarray) -> list[bytes]:
        """What makes two configurations equal: the same categories and integers, floats equal to seven digits of their range."""
        return [row.tobytes() for row in np.nan_to_num(np.rint(vectors * 1e7), nan=-1.0).astype(np.int64)]

    def _filled(self, vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        full = vectors.copy()
        for column in self._columns:
            missing = np.flatnonzero(np.isnan(full[:, column.index]))
            full[missing, column.index] = column.sample(len(missing), rng)
        return full


class _Pool:
    """The configurations that a space is restricted to, each once, in their order."""

    def __init__(self, encoding: Encoding, vectors: np.ndarray) -> None:
        keys = encoding.keys(vectors)
        first = dict(zip(reversed(keys), reversed(range(len(keys))), strict=True))
        self.vectors = vectors[sorted(first.values())]
        self._keys = set(keys)
        self._tree = KDTree(encoding.rows(self.vectors))

    def has(self, keys: list[bytes]) -> np.ndarray:
        return np.array([key in self._keys for key in keys], bool)

    def nearest(self, rows: np.ndarray) -> np.ndarray:
        """[n, D] -> [n, P]."""
        return np.asarray(self.vectors[self._tree.query(rows)[1]]) if len(rows) else np.empty((0, self.vectors.shape[1]))


def _all_entries(column: _Column) -> Any:
    if isinstance(column.hp, Constant):
        return [column.default]
    if isinstance(column.hp, CategoricalHyperparameter | OrdinalHyperparameter):
        return range(int(column.size))
    return column.hp.to_vector(np.arange(int(column.low), int(column.high) + 1))
