"""Surrogate: a family of processes, with initial value, bounds and hyperprior of each hyperparameter, and how to fit them.

The factories below are what configuration files name. Values, bounds and priors are those of syne-tune 0.13 (MOBSTER's home), except
γ <= 10 instead of 1: targets are standardised, and a curve may drop by more than one standard deviation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mfgp import kernels
from mfgp.data import TARGETS, Inputs
from mfgp.precision import PRECISIONS
from mfgp.tfp import tfb, tfd


@dataclass(frozen=True)
class Parameter:
    """One hyperparameter: optimised in the coordinates of `bijector` inside [low, high], starting at init."""

    name: str
    init: float
    low: float
    high: float
    prior: tuple[Any, ...] | None = None  # (tfd class, its arguments); its log density is added to the log likelihood
    per: tuple[str, ...] = ()  # "coordinate" or "level", once per axis
    positive: bool = True  # searched in log coordinates

    def __post_init__(self) -> None:
        if not self.low <= self.init <= self.high or (self.positive and self.low <= 0):
            raise ValueError(f"hyperparameter {self.name}: init={self.init} must lie in [{self.low}, {self.high}], above 0 if positive")

    def shape(self, num_coordinates: int, num_levels: int) -> tuple[int, ...]:
        return tuple({"coordinate": num_coordinates, "level": num_levels}[axis] for axis in self.per)

    @property
    def bijector(self) -> Any:
        return tfb.Exp() if self.positive else tfb.Identity()

    def internal(self, value: Any) -> np.ndarray:
        """`value` in the coordinates of the optimiser, clipped to the bounds."""
        value = np.clip(np.asarray(value, np.float64), self.low, self.high)
        return np.asarray(np.log(value) if self.positive else value)


BANDWIDTHS = ("coordinate", "hyperparameter")


@dataclass(frozen=True)
class Options:
    """How a surrogate sees its targets and is fitted."""

    precision: str = "float64"  # or "float32": see precision.py
    targets: str = "joint"  # "joint", "per_rung" or "copula": see data.TARGETS
    input_warping: bool = False  # learn a monotone transformation of each coordinate of x
    bandwidths: str = "coordinate"  # one for each, or for all of a "hyperparameter" of the space that is searched: see Surrogate.over
    mcmc: Any = None  # mcmc.Nuts or mcmc.SliceSampling: the acquisition is averaged over draws; None: one best value
    restarts: int = 4  # starting points of a fit without warm start: the initial values, then random ones
    warm_restarts: int = 1  # fresh starting points of a fit besides the warm one; with few rows more, and with many not in every fit
    escapes: int = 4  # descents from changes of the best, one of each kind; with many rows not in every fit: see budgets.py
    max_evaluations: int = 60  # per descent

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"surrogate.precision={self.precision} must be one of {', '.join(PRECISIONS)}")
        if self.targets not in TARGETS:
            raise ValueError(f"surrogate.targets={self.targets} must be one of {', '.join(TARGETS)}")
        if self.bandwidths not in BANDWIDTHS:
            raise ValueError(f"surrogate.bandwidths={self.bandwidths} must be one of {', '.join(BANDWIDTHS)}")
        for name, least in (("restarts", 1), ("warm_restarts", 0), ("escapes", 0), ("max_evaluations", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"surrogate.{name}={getattr(self, name)} must be at least {least}")


@dataclass(frozen=True)
class Surrogate:
    """Hashable, so that a compiled suggestion is found by it."""

    family: Any  # makes a Process of kernels.py from the parameters' values, by name
    parameters: tuple[Parameter, ...]
    options: Options = Options()
    owners: tuple[int, ...] = ()  # of each coordinate, numbered from 0, where those of one owner share their values; none share if empty

    def over(self, owners: Sequence[int]) -> "Surrogate":
        """This surrogate for a space of which `owners` says which of its hyperparameters each coordinate belongs to.

        With options.bandwidths="hyperparameter" all coordinates of a one-hot encoded category, and what says whether a hyperparameter is
        active, share one bandwidth (and one warping): fewer values to be learned, none of which is about a single category.
        """
        if self.options.bandwidths == "coordinate":
            return self
        _, numbers = np.unique(owners, return_inverse=True)
        return replace(self, owners=tuple(numbers.tolist()))

    def shapes(self, num_coordinates: int, num_levels: int) -> list[tuple[int, ...]]:
        """Of every parameter's values in the optimiser's coordinates."""
        own = self.num_bandwidths(num_coordinates)
        return [p.shape(own, num_levels) for p in self.parameters]

    def num_bandwidths(self, num_coordinates: int) -> int:
        """How many bandwidths there are for so many coordinates."""
        if self.options.bandwidths == "hyperparameter" and not self.owners:
            raise ValueError("surrogate.bandwidths=hyperparameter needs to know which coordinates belong together: see Surrogate.over")
        if self.owners and len(self.owners) != num_coordinates:
            raise ValueError(f"this surrogate is for {len(self.owners)} coordinates, not {num_coordinates}: see Surrogate.over")
        return max(self.owners) + 1 if self.owners else num_coordinates

    def unflatten(self, theta: Float[Array, "P"], inputs: Inputs) -> Any:
        """The process at one point of the optimiser's coordinates, for inputs like these."""
        parts = self._split(theta, inputs.x.shape[-1], inputs.levels.shape[0])
        values = {p.name: p.bijector.forward(part) for p, part in zip(self.parameters, parts, strict=True)}
        if self.owners:
            each = [(p.name, p.per.index("coordinate")) for p in self.parameters if "coordinate" in p.per]
            values |= {name: jnp.take(values[name], np.array(self.owners), axis=axis) for name, axis in each}
        return self.family(**values)

    def _split(self, theta: Any, num_coordinates: int, num_levels: int) -> list[Any]:
        shapes = self.shapes(num_coordinates, num_levels)
        ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
        return [theta[i:j].reshape(shape) for i, j, shape in zip(ends[:-1], ends[1:], shapes, strict=True)]

    def log_prior(self, theta: Float[Array, "P"], inputs: Inputs) -> Float[Array, ""]:
        """Sum of the log densities in natural coordinates (no Jacobian, as in the reference: a penalty, not a change of variables)."""
        total = jnp.zeros((), theta.dtype)
        parts = self._split(theta, inputs.x.shape[-1], inputs.levels.shape[0])
        for p, part in zip(self.parameters, parts, strict=True):
            if p.prior is not None:
                distribution, *arguments = p.prior
                total += jnp.sum(distribution(*(jnp.asarray(a, theta.dtype) for a in arguments)).log_prob(p.bijector.forward(part)))
        return total

    def log_jacobian(self, theta: Float[Array, "P"], inputs: Inputs) -> Float[Array, ""]:
        """log |d natural / d internal| of the hyperparameters that have a prior: turns `log_prior` into a density of theta."""
        parts = self._split(theta, inputs.x.shape[-1], inputs.levels.shape[0])
        logs = [jnp.sum(part) for p, part in zip(self.parameters, parts, strict=True) if p.prior is not None and p.positive]
        return jnp.sum(jnp.stack([jnp.zeros((), theta.dtype), *logs]))

    def box(self, num_coordinates: int, num_levels: int) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of the optimiser's coordinates."""
        shapes = self.shapes(num_coordinates, num_levels)
        low, high = (
            np.concatenate([np.full(shape, p.internal(getattr(p, side))).ravel() for p, shape in zip(self.parameters, shapes, strict=True)])
            for side in ("low", "high")
        )
        return low, high

    def flatten(self, hyperparameters: Mapping[str, Any], num_coordinates: int, levels: np.ndarray, num_levels: int) -> np.ndarray:
        """The optimiser's coordinates of a `Suggestion.hyperparameters`; none given means initial values.

        Values per level are matched by the level's u(r); a level that is new gets initial values.
        """
        names = [p.name for p in self.parameters] + ["levels"] * self.has_levels
        if hyperparameters and set(hyperparameters) != set(names):
            raise ValueError(f"warm has the hyperparameters {sorted(hyperparameters)}; this surrogate has {sorted(names)}")
        known = np.asarray(hyperparameters.get("levels", ()), np.float64)
        matches = [(new, int(np.flatnonzero(known == level)[0])) for new, level in enumerate(levels) if level in known]
        new, old = ([pair[side] for pair in matches] for side in (0, 1))
        parts = []
        shapes, known_shapes = self.shapes(num_coordinates, num_levels), self.shapes(num_coordinates, len(known))
        for p, shape, expected in zip(self.parameters, shapes, known_shapes, strict=True):
            target = np.full(shape, p.init)
            if hyperparameters:
                value = np.asarray(hyperparameters[p.name], np.float64)
                if value.shape != expected or not np.all(np.isfinite(value)):
                    raise ValueError(f"warm[{p.name!r}]={hyperparameters[p.name]} must be finite and of shape {expected}")
                at = [(new, old) if axis == "level" else (np.arange(size),) * 2 for axis, size in zip(p.per, shape, strict=True)]
                if all(len(pair[0]) for pair in at):
                    target[np.ix_(*(pair[0] for pair in at))] = value[np.ix_(*(pair[1] for pair in at))]
            parts.append(p.internal(target).ravel())
        return np.concatenate(parts)

    @property
    def collapses(self) -> bool:
        """Whether a few observations of a configuration say what many do: see `collapsed`."""
        return hasattr(getattr(self.family, "family", self.family), "span")

    @property
    def has_levels(self) -> bool:
        return any("level" in p.per for p in self.parameters)

    def readable(self, theta: np.ndarray, num_coordinates: int, levels: np.ndarray, num_levels: int) -> dict[str, Any]:
        """The hyperparameters in natural coordinates as JSON-able floats and lists; what belongs to padding is left out."""
        values: dict[str, Any] = {}
        for p, part in zip(self.parameters, self._split(np.asarray(theta, np.float64), num_coordinates, num_levels), strict=True):
            used = part[tuple(slice(len(levels)) if axis == "level" else slice(None) for axis in p.per)]
            values[p.name] = (np.exp(used) if p.positive else used).tolist()
        return values | ({"levels": np.asarray(levels).tolist()} if self.has_levels else {})


NOISE = Parameter("noise", 1e-3, 1e-9, 1e6, (tfd.Gamma, 0.1, 1.0))
NOISE_IN_SINGLE = 1e-4  # below, rounding outweighs the noise: means off by many standard deviations (docs/surrogates.md)
SCALE = Parameter("scale", 1.0, 1e-3, 1e3, (tfd.LogNormal, 0.0, 1.0))
BANDWIDTH = Parameter("inverse_bandwidth", 1.0, 1e-4, 100.0, per=("coordinate",))
RESOURCE_BANDWIDTH = Parameter("resource_inverse_bandwidth", 1.0, 1e-4, 100.0)
CONSTANT = Parameter("constant", 0.0, -1e3, 1e3, (tfd.Normal, 0.0, 1.0), positive=False)
DECAY = (Parameter("alpha", 1.0, 1e-6, 250.0), Parameter("mean_lambda", 0.5, 1e-4, 50.0), Parameter("gamma", 0.5, 1e-4, 10.0))
WARP = (tfd.LogNormal, 0.0, 0.75)
LEVEL_CONSTANT = replace(CONSTANT, name="level_constant", per=("level",))


@dataclass(frozen=True)
class _WarpsInputs:
    """A family whose members are those of another, on warped coordinates."""

    family: Any

    def __call__(self, input_warp_a: Any, input_warp_b: Any, **values: Any) -> kernels.WarpedInputs:
        return kernels.WarpedInputs(self.family(**values), input_warp_a, input_warp_b)


def _make(family: Any, parameters: tuple[Parameter, ...], options: Options) -> Surrogate:
    if options.input_warping:
        warps = (Parameter(name, 1.0, 0.25, 4.0, WARP, per=("coordinate",)) for name in ("input_warp_a", "input_warp_b"))
        family, parameters = _WarpsInputs(family), (*parameters, *warps)
    if options.precision == "float32":
        parameters = tuple(replace(p, low=NOISE_IN_SINGLE) if p.name == NOISE.name else p for p in parameters)
    return Surrogate(family, parameters, options)


def matern(**options: Any) -> Surrogate:
    """One Matérn-5/2 over (x, u(r)). Options, here and below: the fields of `Options`."""
    return _make(kernels.Matern, (BANDWIDTH, RESOURCE_BANDWIDTH, SCALE, CONSTANT, NOISE), Options(**options))


def matern_warped(**options: Any) -> Surrogate:
    """`matern` with u(r) warped by a learned Kumaraswamy distribution function."""
    warps = (Parameter("warp_a", 1.0, 0.25, 4.0, WARP), Parameter("warp_b", 1.0, 0.25, 4.0, WARP))
    return _make(kernels.MaternWarped, (BANDWIDTH, RESOURCE_BANDWIDTH, SCALE, CONSTANT, *warps, NOISE), Options(**options))


def exp_decay(delta: float | None = None, **options: Any) -> Surrogate:
    """The exponential-decay surrogate; delta is learned if None, else fixed (0: additive, 1: a common value at r = 0)."""
    if delta is not None and not 0.0 <= delta <= 1.0:
        raise ValueError(f"surrogate.delta={delta} must be null (learned) or lie in [0, 1]")
    low, init, high = (0.0, 0.5, 1.0) if delta is None else (float(delta),) * 3
    learned = Parameter("delta", init, low, high, positive=False)
    return _make(kernels.ExpDecay, (BANDWIDTH, SCALE, CONSTANT, *DECAY, learned, NOISE), Options(**options))


def freeze_thaw(**options: Any) -> Surrogate:
    """Asymptotes from a Gaussian process over x, a decay of its own for each configuration."""
    return _make(kernels.FreezeThaw, (BANDWIDTH, SCALE, CONSTANT, *DECAY, NOISE), Options(**options))


def independent(**options: Any) -> Surrogate:
    """A Gaussian process per level, with shared lengthscales and noise."""
    level_scale = replace(SCALE, name="level_scale", per=("level",))
    return _make(kernels.Independent, (BANDWIDTH, level_scale, LEVEL_CONSTANT, NOISE), Options(**options))


def coregional(**options: Any) -> Surrogate:
    """Matérn-5/2 over x times a free covariance matrix over levels."""
    deviation = Parameter("deviation", 0.0, -10.0, 10.0, (tfd.Normal, 0.0, 1.0), per=("level", "level"), positive=False)
    return _make(kernels.Coregional, (BANDWIDTH, deviation, LEVEL_CONSTANT, NOISE), Options(**options))


def alone(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """The best values of a `Suggestion.hyperparameters`, without what may come with them for the next fit."""
    return {name: value for name, value in hyperparameters.items() if name not in ("runner_up", "fruitless", "draws")}


def random_starts(key: Array, first: Float[Array, "P"], low: Float[Array, "P"], high: Float[Array, "P"], num: int) -> Float[Array, "S P"]:
    """`first`, then num - 1 points that add a standard normal to each of its coordinates, clipped to the box."""
    noise = jax.random.normal(key, (num, first.shape[0]), first.dtype).at[0].set(0.0)
    return jnp.clip(first + noise, low, high)
