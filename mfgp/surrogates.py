"""Surrogate: a family of processes, with initial value, bounds and hyperprior of each hyperparameter, and how to fit them.

The factories below are what configuration files name. Values, bounds and priors are those of syne-tune 0.13 (MOBSTER's home), except
γ <= 10 instead of 1: targets are standardised, and a curve may drop by more than one standard deviation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mfgp import kernels
from mfgp.tfp import tfb, tfd


@dataclass(frozen=True)
class Parameter:
    """One hyperparameter: optimised in the coordinates of `bijector` inside [low, high], starting at init."""

    name: str
    init: float
    low: float
    high: float
    prior: tuple[Any, ...] | None = None  # (tfd class, its arguments); its log density is added to the log likelihood
    per_coordinate: bool = False
    positive: bool = True  # searched in log coordinates

    def __post_init__(self) -> None:
        if not self.low <= self.init <= self.high or (self.positive and self.low <= 0):
            raise ValueError(f"hyperparameter {self.name}: init={self.init} must lie in [{self.low}, {self.high}], above 0 if positive")

    def shape(self, num_coordinates: int) -> tuple[int, ...]:
        return (num_coordinates,) if self.per_coordinate else ()

    @property
    def bijector(self) -> Any:
        return tfb.Exp() if self.positive else tfb.Identity()

    def internal(self, value: Any) -> np.ndarray:
        """`value` in the coordinates of the optimiser, clipped to the bounds."""
        value = np.clip(np.asarray(value, np.float64), self.low, self.high)
        return np.asarray(np.log(value) if self.positive else value)


@dataclass(frozen=True)
class Surrogate:
    """Hashable, so that a compiled suggestion is found by it."""

    family: Any  # NamedTuple of kernels.py whose fields are the parameters
    parameters: tuple[Parameter, ...]
    restarts: int = 2  # starting points of a fit without warm start: the initial values, then random ones
    warm_restarts: int = 0  # random starting points of a fit besides the warm one
    max_evaluations: int = 60  # per starting point

    def __post_init__(self) -> None:
        for name, least in (("restarts", 1), ("warm_restarts", 0), ("max_evaluations", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"surrogate.{name}={getattr(self, name)} must be at least {least}")

    def unflatten(self, theta: Float[Array, "P"], num_coordinates: int) -> Any:
        """The process at one point of the optimiser's coordinates."""
        values, at = {}, 0
        for p in self.parameters:
            shape = p.shape(num_coordinates)
            size = int(np.prod(shape))
            values[p.name] = p.bijector.forward(theta[at : at + size].reshape(shape))
            at += size
        return self.family(**values)

    def log_prior(self, process: Any) -> Float[Array, ""]:
        """Sum of the log densities in natural coordinates (no Jacobian, as in the reference: a penalty, not a change of variables)."""
        total = jnp.zeros((), process.noise.dtype)
        for p in self.parameters:
            if p.prior is not None:
                value = getattr(process, p.name)
                distribution, *arguments = p.prior
                total += jnp.sum(distribution(*(jnp.asarray(a, value.dtype) for a in arguments)).log_prob(value))
        return total

    def box(self, num_coordinates: int) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of the optimiser's coordinates."""
        bounds = [(p.internal(p.low), p.internal(p.high), p.shape(num_coordinates)) for p in self.parameters]
        return tuple(np.concatenate([np.full(shape, b[side]).ravel() for *b, shape in bounds]) for side in (0, 1))  # type: ignore[return-value]

    def initial(self, num_coordinates: int) -> np.ndarray:
        return np.concatenate([np.full(p.shape(num_coordinates), p.internal(p.init)).ravel() for p in self.parameters])

    def flatten(self, hyperparameters: Mapping[str, Any], num_coordinates: int) -> np.ndarray:
        """The optimiser's coordinates of a `Suggestion.hyperparameters`."""
        names = [p.name for p in self.parameters]
        if set(hyperparameters) != set(names):
            raise ValueError(f"warm has the hyperparameters {sorted(hyperparameters)}; this surrogate has {sorted(names)}")
        parts = []
        for p in self.parameters:
            value, shape = np.asarray(hyperparameters[p.name], np.float64), p.shape(num_coordinates)
            if value.shape != shape or not np.all(np.isfinite(value)):
                raise ValueError(f"warm[{p.name!r}]={hyperparameters[p.name]} must be finite and of shape {shape}")
            parts.append(p.internal(value).ravel())
        return np.concatenate(parts)

    def readable(self, theta: np.ndarray, num_coordinates: int) -> dict[str, Any]:
        """The hyperparameters in natural coordinates as JSON-able floats and lists."""
        values, at = {}, 0
        for p in self.parameters:
            shape = p.shape(num_coordinates)
            size = int(np.prod(shape))
            part = np.asarray(theta[at : at + size], np.float64).reshape(shape)
            values[p.name] = (np.exp(part) if p.positive else part).tolist()
            at += size
        return values


NOISE = Parameter("noise", 1e-3, 1e-9, 1e6, (tfd.Gamma, 0.1, 1.0))
SCALE = Parameter("scale", 1.0, 1e-3, 1e3, (tfd.LogNormal, 0.0, 1.0))
BANDWIDTH = Parameter("inverse_bandwidth", 1.0, 1e-4, 100.0, per_coordinate=True)
CONSTANT = Parameter("constant", 0.0, -1e3, 1e3, (tfd.Normal, 0.0, 1.0), positive=False)


def matern(*, restarts: int = 2, warm_restarts: int = 0, max_evaluations: int = 60) -> Surrogate:
    """One Matérn-5/2 over (x, u(r))."""
    resource = Parameter("resource_inverse_bandwidth", 1.0, 1e-4, 100.0)
    return Surrogate(kernels.Matern, (BANDWIDTH, resource, SCALE, CONSTANT, NOISE), restarts, warm_restarts, max_evaluations)


def exp_decay(delta: float | None = None, *, restarts: int = 2, warm_restarts: int = 0, max_evaluations: int = 60) -> Surrogate:
    """The exponential-decay surrogate; delta is learned if None, else fixed (0: additive, 1: a common value at r = 0)."""
    if delta is not None and not 0.0 <= delta <= 1.0:
        raise ValueError(f"surrogate.delta={delta} must be null (learned) or lie in [0, 1]")
    low, init, high = (0.0, 0.5, 1.0) if delta is None else (float(delta),) * 3
    decay = (
        Parameter("alpha", 1.0, 1e-6, 250.0),
        Parameter("mean_lambda", 0.5, 1e-4, 50.0),
        Parameter("gamma", 0.5, 1e-4, 10.0),
        Parameter("delta", init, low, high, positive=False),
    )
    return Surrogate(kernels.ExpDecay, (BANDWIDTH, SCALE, CONSTANT, *decay, NOISE), restarts, warm_restarts, max_evaluations)


def random_starts(key: Array, first: Float[Array, "P"], low: Float[Array, "P"], high: Float[Array, "P"], num: int) -> Float[Array, "S P"]:
    """`first`, then num - 1 points that add a standard normal to each of its coordinates, clipped to the box."""
    noise = jax.random.normal(key, (num, first.shape[0]), first.dtype).at[0].set(0.0)
    return jnp.clip(first + noise, low, high)
