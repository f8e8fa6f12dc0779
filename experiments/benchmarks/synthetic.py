"""Synthetic learning curves with a known optimum, for tests and the simulated clock: nothing is trained, nothing sleeps.

    y(x, r) = y*(x) + a(x) g(r; b(x)) + noise,    g falls from 1 at r = 1 to 0 at r = r_max

as a power law or exponentially. y*(x), the value at r_max, is a weighted sum over the parameters of the squared distance to the best
value, so the best configuration is known exactly, whatever the curves do on their way.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ConfigSpace import Categorical, CategoricalHyperparameter, ConfigurationSpace, Constant, Float, Integer, OrdinalHyperparameter
from jaxtyping import Float64

from experiments.benchmarks.space import build_space, plain_values
from schedulers.types import Config, Job, Progress

Curve = Float64[np.ndarray, " R"]


class Curves:
    """`problem` draws the landscape, `seed` the noise: studies of different seeds tune the same problem.

    `crossing`: a(x) and b(x) vary by factors up to e^crossing; 0 means the order at r = 1 is the order at r_max.
    `seconds`: of one epoch, up to a factor e^cost_spread that depends on the configuration. `noise`: a standard deviation.
    `optimum`: the lowest noise-free value at r_max, reached by `best_config` (an inactive parameter there has no effect).
    """

    mode = "min"
    optimum = 0.1

    def __init__(
        self,
        num_floats: int = 2,
        num_ints: int = 1,
        num_categoricals: int = 1,
        r_max: int = 27,
        decay: str = "power",
        crossing: float = 0.5,
        noise: float = 0.0,
        seconds: float = 1.0,
        cost_spread: float = 1.0,
        problem: int = 0,
        seed: int = 0,
        space: Any = None,
    ) -> None:
        if decay not in ("power", "exponential"):
            raise ValueError(f"benchmark.decay={decay!r} is unknown; valid are power and exponential")
        for name, value in (("crossing", crossing), ("noise", noise), ("cost_spread", cost_spread)):
            if not 0 <= value < math.inf:
                raise ValueError(f"benchmark.{name}={value} must be a finite number, 0 or more")
        if not 0 < seconds < math.inf or r_max < 1:
            raise ValueError(f"benchmark.seconds={seconds} must be positive and benchmark.r_max={r_max} at least 1")
        self.space = _default_space(num_floats, num_ints, num_categoricals) if space is None else build_space(space)
        if self.space.forbidden_clauses:
            raise ValueError("benchmark=curves: its space has forbidden clauses, which could forbid the known optimum")
        self.r_max, self.decay, self.crossing, self.noise = r_max, decay, crossing, noise
        self.seconds, self.cost_spread, self.seed = seconds, cost_spread, seed
        self._draw(np.random.default_rng(problem))

    def train(self, job: Job, checkpoint_dir: str | None = None) -> Iterator[Progress]:
        """The stretch of the curve that `job` asks for, with simulated seconds."""
        values, seconds = self.curve(job.config), self.epoch_seconds(job.config)
        for r in range(job.r_from + 1, job.r_to + 1):
            yield Progress(r, float(values[r - 1]), seconds)

    def curve(self, config: Config) -> Curve:
        """The metric at r = 1..r_max; its noise is fixed by configuration and seed."""
        if not self.noise:
            return self.mean_curve(config)
        content = json.dumps([self.seed, sorted(plain_values(config).items())])
        digest = hashlib.blake2b(content.encode(), digest_size=8).digest()
        rng = np.random.default_rng(int.from_bytes(digest))
        return self.mean_curve(config) + self.noise * rng.standard_normal(self.r_max)

    def mean_curve(self, config: Config) -> Curve:
        """`curve` without its noise."""
        excess = sum(self._weights[name] * self._distance(name, value) for name, value in config.items())
        height = 0.5 * math.exp(self.crossing * self._wave(0, config))
        rate = math.exp(self.crossing * self._wave(1, config))
        return self.optimum + excess + height * self._fall(rate)

    def epoch_seconds(self, config: Config) -> float:
        return self.seconds * math.exp(self.cost_spread * self._wave(2, config))

    def _draw(self, rng: np.random.Generator) -> None:
        """Draw the landscape: per parameter a weight, a best value, coordinates of the categories, and the waves' coefficients."""
        names = [name for name, parameter in self.space.items() if not isinstance(parameter, Constant)]
        weights = rng.uniform(0.5, 1.5, len(names))
        self._weights = dict.fromkeys(self.space, 0.0) | dict(zip(names, weights / weights.sum(), strict=True))
        self._slopes = {name: rng.uniform(-3, 3, 3) for name in self.space}
        self._phases = rng.uniform(0, 2 * np.pi, 3)
        self._unit = {name: _coordinate(parameter, rng) for name, parameter in self.space.items()}
        self.best_config = {name: _draw_value(parameter, rng) for name, parameter in self.space.items()}

    def _distance(self, name: str, value: Any) -> float:
        """Squared distance from the best value, at most 1; to another category it is at least a third, however near its coordinate."""
        best = self.best_config[name]
        if isinstance(self.space[name], CategoricalHyperparameter):
            return 0.0 if value == best else (1 + 2 * self._unit[name](value)) / 3
        return (self._unit[name](value) - self._unit[name](best)) ** 2

    def _wave(self, which: int, config: Config) -> float:
        """A smooth function of the configuration in [-1, 1], independent of where the optimum is."""
        phase = sum(self._slopes[name][which] * self._unit[name](value) for name, value in config.items())
        return math.cos(phase + self._phases[which])

    def _fall(self, rate: float) -> Curve:
        r = np.arange(1, self.r_max + 1)
        raw = r**-rate if self.decay == "power" else np.exp(-rate * 4 * (r - 1) / self.r_max)
        return (raw - raw[-1]) / (1 - raw[-1]) if self.r_max > 1 else np.zeros(1)


def _coordinate(parameter: Any, rng: np.random.Generator) -> Callable[[Any], float]:
    """A map of the parameter's values to [0, 1]: linear on its own scale, by rank, or at random for unordered categories."""
    if isinstance(parameter, Constant):
        return _Table({parameter.value: 0.0})
    if isinstance(parameter, CategoricalHyperparameter):
        return _Table({choice: float(rng.random()) for choice in parameter.choices})
    if isinstance(parameter, OrdinalHyperparameter):
        steps = max(len(parameter.sequence) - 1, 1)
        return _Table({value: i / steps for i, value in enumerate(parameter.sequence)})
    return _Scale(parameter.lower, parameter.upper, parameter.log)


def _draw_value(parameter: Any, rng: np.random.Generator) -> Any:
    """A value of the parameter, in the middle three fifths of a range."""
    if isinstance(parameter, Constant):
        return parameter.value
    if isinstance(parameter, CategoricalHyperparameter | OrdinalHyperparameter):
        values = parameter.choices if isinstance(parameter, CategoricalHyperparameter) else parameter.sequence
        return values[int(rng.integers(len(values)))]
    value = _Scale(parameter.lower, parameter.upper, parameter.log).inverse(rng.uniform(0.2, 0.8))
    return round(value) if isinstance(parameter.lower, int | np.integer) else value


class _Table(dict[Any, float]):
    __call__ = dict.__getitem__


class _Scale:
    def __init__(self, lower: float, upper: float, log: bool) -> None:
        self.scale: Callable[[float], float] = math.log if log else float
        self.unscale: Callable[[float], float] = math.exp if log else float
        self.lower, self.upper = self.scale(lower), self.scale(upper)

    def __call__(self, value: float) -> float:
        return (self.scale(value) - self.lower) / (self.upper - self.lower)

    def inverse(self, u: float) -> float:
        return self.unscale(self.lower + u * (self.upper - self.lower))


def _default_space(num_floats: int, num_ints: int, num_categoricals: int) -> ConfigurationSpace:
    """Every other float on a log scale, integers on a log scale, three categories each."""
    counts = {"num_floats": num_floats, "num_ints": num_ints, "num_categoricals": num_categoricals}
    if min(counts.values()) < 0 or sum(counts.values()) < 1:
        raise ValueError(f"benchmark=curves: {counts} must be 0 or more each, and at least 1 together")
    space = ConfigurationSpace()
    for i in range(num_floats):
        space.add(Float(f"rate_{i}", (1e-5, 1.0), log=True) if i % 2 == 0 else Float(f"share_{i}", (0.0, 1.0)))
    for i in range(num_ints):
        space.add(Integer(f"size_{i}", (4, 512), log=True))
    for i in range(num_categoricals):
        space.add(Categorical(f"kind_{i}", ["a", "b", "c"]))
    return space
