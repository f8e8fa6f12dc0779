"""What the networks that train have in common: which values a space may hold, whose a curve is, and how it is yielded and resumed."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from ConfigSpace import CategoricalHyperparameter, ConfigurationSpace, Constant, OrdinalHyperparameter
from ConfigSpace.hyperparameters import FloatHyperparameter

from experiments.benchmarks import checkpoint
from schedulers.types import Config, Job, Progress

State = TypeVar("State")
Advance = Callable[[State, int], tuple[State, float]]  # from the state of r - 1 and r: the state of r and its metric, nan when diverged


PRECISIONS = ("auto", "float32", "bfloat16")


class Numbers(NamedTuple):
    """The numbers that mean anything to a network: a space may be narrower, but not wider."""

    kind: type
    least: float
    most: float


class Choices(NamedTuple):
    values: tuple[Any, ...]


Domains = Mapping[str, Numbers | Choices]


def check_space(benchmark: str, space: ConfigurationSpace, domains: Domains, conditional: Collection[str] = ()) -> None:
    """Raise unless `space` has the network's hyperparameters and no other, with values that mean something.

    Only those named in `conditional` may be inactive in a configuration.
    """
    for name in domains.keys() ^ set(space):
        state = "misses" if name in domains else "has the unknown"
        needs = ", ".join(domains)
        raise ValueError(f"benchmark={benchmark}: its space {state} parameter {name!r}; it needs exactly {needs} (a constant will do)")
    for name in space.conditional_hyperparameters:
        if name not in conditional:
            raise ValueError(f"benchmark={benchmark}: its space has conditions on {name}, but the network needs its value always")
    for name, domain in domains.items():
        for value in extremes(space[name]):
            _check_value(benchmark, name, value, domain)
        if isinstance(domain, Numbers) and domain.kind is int and isinstance(space[name], FloatHyperparameter):
            raise ValueError(f"benchmark={benchmark}: {name} must be of whole numbers; give it the type uniform_int")


def _check_value(benchmark: str, name: str, value: Any, domain: Numbers | Choices) -> None:
    if isinstance(domain, Choices):
        if value not in domain.values:
            valid = ", ".join(map(str, domain.values))
            raise ValueError(f"benchmark={benchmark}: {name}={value!r} lies in its space; valid are {valid}")
        return
    kind, least, most = domain
    if isinstance(value, str | bool) or not least <= value <= most or kind(value) != value:
        raise ValueError(
            f"benchmark={benchmark}: {name}={value!r} lies in its space; valid are {kind.__name__} values in [{least}, {most}]"
        )


def extremes(parameter: Any) -> tuple[Any, ...]:
    """All values of a finite list, both ends of a range."""
    if isinstance(parameter, Constant):
        return (parameter.value,)
    if isinstance(parameter, CategoricalHyperparameter):
        return tuple(parameter.choices)
    if isinstance(parameter, OrdinalHyperparameter):
        return tuple(parameter.sequence)
    return parameter.lower, parameter.upper


def check_r_max(r_max: int, unit: str = "epoch") -> None:
    if r_max < 1:
        raise ValueError(f"benchmark.r_max={r_max} must be at least 1 {unit}")


def check_counts(**counts: int) -> None:
    """Raise unless each of the named sizes of a network is a whole number, 1 or more."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"benchmark.{name}={count!r} must be a whole number, 1 or more")


def check_choice(name: str, value: str, valid: Collection[str]) -> None:
    if value not in valid:
        raise ValueError(f"benchmark.{name}={value!r} is unknown; valid are {', '.join(valid)}")


def compute_dtype(precision: str) -> str:
    """The type of activations: `auto` is bfloat16 on accelerators, and float32 on a CPU, where it is faster."""
    if precision == "auto":
        return "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return precision


def plain(config: Config, domains: Domains) -> dict[str, Any]:
    """The active values of `config` in Python's own types, in the order of `domains`."""
    values: dict[str, Any] = {}
    for name, domain in domains.items():
        if name in config:
            # A category comes as NumPy's string or bool: its own equal stands for it.
            is_choice = isinstance(domain, Choices)
            values[name] = domain.values[domain.values.index(config[name])] if is_choice else domain.kind(config[name])  # type: ignore[union-attr]
    return values


def identity(*content: Any) -> str:
    """A digest, in hexadecimal digits, of all that fixes a curve; `content` is JSON."""
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


def trial_key(owner: str) -> jax.Array:
    """Two words of an `identity`, which already depends on the seed: the trial's random key."""
    return jax.device_put(np.array([int(owner[:8], 16), int(owner[8:16], 16)], np.uint32))


def curve(job: Job, checkpoint_dir: str | None, owner: str, prepare: Callable[[], tuple[State, Advance[State]]]) -> Iterator[Progress]:
    """Yield the metric after each resource of `job`, with the seconds that it took; the first includes what `prepare` takes.

    `prepare` returns the untrained state and how to advance it. The state of r is saved before r is yielded; a state that has diverged
    is not saved, as no one will go on from it.
    """
    start = time.perf_counter()
    (state, advance), metrics = prepare(), list[float]()
    if job.r_from > 0:
        state, metrics = checkpoint.load(checkpoint_dir, state, job.r_from, owner)
    for r in range(job.r_from + 1, job.r_to + 1):
        if r > len(metrics):
            state, metric = advance(state, r)
            metrics.append(metric)
            if checkpoint_dir is not None and math.isfinite(metric):
                checkpoint.save(checkpoint_dir, state, metrics, owner)
        now = time.perf_counter()
        yield Progress(r, metrics[r - 1], now - start)
        start = time.perf_counter()
