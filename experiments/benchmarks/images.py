"""Training of image classifiers, in Flax and optax, as two pure functions per epoch: one augments its images, one trains on them.

SGD with momentum and weight decay, random crops and flips (and TrivialAugment, where a network asks for it) made on the device from
images that stay there. Batches are padded to powers of two; rates, sizes and a network's own settings are traced, so a program is
compiled once per shape; augmenting is a program of its own because it is the same for all networks. Every random number is a function of
its key and its place in the epoch, so the padding cannot be seen in the result but for rounding. Folds of a cross-validation are networks
of their own, trained one after the other in the same program.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt8

from experiments.benchmarks.augment import WORDS, crop_and_flip, trivial_augment
from experiments.benchmarks.network import Key, Validation, bits_at
from experiments.compilation import announced, quick

# Of the pixels of CIFAR-10's training images, in units of 255.
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
VALIDATION_BATCH = 250
AUGMENTED = 250  # images at a time


class Hyper(NamedTuple):
    """What a compiled program takes as arguments; `network` is what the network itself needs to know, arrays in any pytree."""

    learning_rate: Float[Array, ""]
    momentum: Float[Array, ""]
    weight_decay: Float[Array, ""]
    batch_size: Int[Array, ""]
    network: Any = ()


class Data(NamedTuple):
    """Images, and the rows that each of F folds trains on and is validated on."""

    x: UInt8[Array, "M S S 3"]
    y: Int[Array, " M"]
    train_rows: Int[Array, "F N"]
    valid_rows: Int[Array, "F V"]


class Views(NamedTuple):
    """The training images of one epoch in its order, as the networks of each fold are to see them; those past its records are any."""

    x: UInt8[Array, "F N S S 3"]
    y: Int[Array, "F N"]


class State(NamedTuple):
    """All that the next epoch depends on besides key, settings and data; arrays have a leading axis of folds."""

    params: Any
    batch_stats: Any
    optimiser: optax.OptState
    epoch: Int[Array, " F"]


class Recipe(NamedTuple):
    """What fixes a program besides shapes. `network(x, settings, exists, key, rows)` returns logits; exists None: validation."""

    network: nn.Module
    nesterov: bool = False
    dtype: str = "float32"  # of activations; weights, moments of batch normalisation and losses are float32


def init_state(key: Key, hyper: Hyper, *, recipe: Recipe, folds: int, size: int) -> State:
    """The untrained networks, one for each fold."""

    def init(fold: Array) -> State:
        x = jnp.zeros((1, size, size, 3), recipe.dtype)
        fold_key = jax.random.fold_in(_typed(key, 0), fold)
        variables = recipe.network.init(fold_key, x, hyper.network, jnp.ones(1, bool), fold_key, jnp.zeros(1, jnp.int32))
        params = variables["params"]
        return State(params, variables.get("batch_stats", {}), _optimiser(hyper, recipe).init(params), jnp.zeros((), jnp.int32))

    return lax.map(init, jnp.arange(folds))


def augment_epoch(key: Key, epochs: Int[Array, " F"], data: Data, num_records: Int[Array, ""], *, trivial: bool) -> Views:
    """What the epoch after `epochs` of each fold trains on: its first `num_records` rows, shuffled, cropped and flipped; `trivial`: and
    one operation of TrivialAugment each."""

    def one(fold: tuple[Array, Array, Array]) -> Views:
        index, epoch, train_rows = fold
        order_key, image_key, _ = _epoch_keys(key, epoch, index)
        rows = train_rows[_random_order(order_key, len(train_rows), num_records)]
        together = min(AUGMENTED, len(rows))

        def add(i: Array, x: Array) -> Array:
            places = jnp.minimum(i * together, len(rows) - together) + jnp.arange(together)
            words, _ = bits_at(image_key, places, jnp.arange(WORDS))
            images = crop_and_flip(data.x[rows[places]], words)
            images = trivial_augment(images, words) if trivial else images
            return lax.dynamic_update_slice_in_dim(x, images.astype(jnp.uint8), places[0], axis=0)  # exact: they are whole numbers

        empty = jnp.zeros((len(rows), *data.x.shape[1:]), jnp.uint8)
        return Views(lax.fori_loop(0, (num_records + together - 1) // together, add, empty), data.y[rows])

    views: Views = lax.map(one, (jnp.arange(len(data.train_rows)), epochs, data.train_rows))
    return views


def train_epoch(
    state: State, key: Key, hyper: Hyper, data: Data, views: Views, num_records: Int[Array, ""], *, recipe: Recipe, batch: int, size: int
) -> tuple[State, Validation]:
    """One pass over the first `num_records` of `views` in each fold, at `size` pixels a side; losses are means over the folds."""

    def one(fold: tuple[Array, State, Views, Array]) -> tuple[State, Validation]:
        index, single, own, valid_rows = fold
        *_, drop_key = _epoch_keys(key, single.epoch, index)
        trained = _train(single, drop_key, hyper, own, num_records, recipe=recipe, batch=batch, size=size)
        return trained, _validate(trained, hyper, data, valid_rows, recipe=recipe, size=size)

    folds = (jnp.arange(len(data.train_rows)), state, views, data.valid_rows)
    states, validations = lax.map(one, folds)
    return states, Validation(*(jnp.mean(values) for values in validations))


def _epoch_keys(key: Key, epoch: Array, fold: Array) -> tuple[Array, Array, Array]:
    """For the order, the images and the dropout of the epoch after `epoch`."""
    fold_key = jax.random.fold_in(_typed(key, epoch + 1), fold)
    image_key, drop_key = jax.random.split(fold_key)
    return fold_key, image_key, drop_key


def _train(
    state: State, drop_key: Array, hyper: Hyper, views: Views, num_records: Array, *, recipe: Recipe, batch: int, size: int
) -> State:
    def loss_of(params: Any, stats: Any, x: Array, y: Array, exists: Array, places: Array) -> tuple[Array, Any]:
        variables = {"params": params, "batch_stats": stats}
        logits, updated = recipe.network.apply(variables, x, hyper.network, exists, drop_key, places, mutable=["batch_stats"])
        return _mean(_losses(logits, y), exists), updated.get("batch_stats", {})

    def step(i: Array, carry: tuple[Any, Any, optax.OptState]) -> tuple[Any, Any, optax.OptState]:
        params, stats, moments = carry
        places = i * hyper.batch_size + jnp.arange(batch)
        exists = (jnp.arange(batch) < hyper.batch_size) & (places < num_records)
        rows = jnp.where(exists, places, 0)
        x = jnp.where(exists[:, None, None, None], _prepared(views.x[rows].astype(jnp.float32), size, recipe.dtype), 0)
        grads, stats = jax.grad(loss_of, has_aux=True)(params, stats, x, views.y[rows], exists, places)
        updates, moments = _optimiser(hyper, recipe).update(grads, moments, params)
        return optax.apply_updates(params, updates), stats, moments

    num_steps = (num_records + hyper.batch_size - 1) // hyper.batch_size
    params, stats, moments = lax.fori_loop(0, num_steps, step, (state.params, state.batch_stats, state.optimiser))
    return State(params, stats, moments, state.epoch + 1)


def _validate(state: State, hyper: Hyper, data: Data, valid_rows: Array, *, recipe: Recipe, size: int) -> Validation:
    batch = min(VALIDATION_BATCH, len(valid_rows))
    places = jnp.arange(-(-len(valid_rows) // batch) * batch).reshape(-1, batch)

    def sums(places: Array) -> tuple[Array, Array]:
        exists = places < len(valid_rows)
        rows = valid_rows[jnp.where(exists, places, 0)]
        x = _prepared(data.x[rows].astype(jnp.float32), size, recipe.dtype)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        logits = cast(Array, recipe.network.apply(variables, x, hyper.network, None, None, None))
        wrong = jnp.argmax(logits, axis=-1) != data.y[rows]
        return jnp.sum(jnp.where(exists, _losses(logits, data.y[rows]), 0)), jnp.sum(wrong & exists)

    losses, errors = lax.map(sums, places)
    return Validation(jnp.sum(losses) / len(valid_rows), jnp.sum(errors) / len(valid_rows))


def _prepared(images: Float[Array, "B S S 3"], size: int, dtype: str) -> Float[Array, "B s s 3"]:
    """Standardised pixels, scaled down (with anti-aliasing) to `size` a side."""
    x = (images / 255 - jnp.array(MEAN)) / jnp.array(STD)
    if size != x.shape[1]:
        x = jax.image.resize(x, (x.shape[0], size, size, 3), "linear")
    return x.astype(dtype)


def _optimiser(hyper: Hyper, recipe: Recipe) -> optax.GradientTransformation:
    """Weight decay is part of the gradient, of all parameters, as in PyTorch's SGD."""
    return optax.chain(
        optax.add_decayed_weights(hyper.weight_decay),
        optax.trace(hyper.momentum, recipe.nesterov),
        optax.scale_by_learning_rate(hyper.learning_rate),
    )


def _random_order(key: Array, num_rows: int, num_records: Array) -> Int[Array, " N"]:
    """A permutation whose first `num_records` places hold the first rows, at random."""
    bits, _ = bits_at(key, jnp.arange(num_rows), jnp.array([2**32 - 1], jnp.uint32))
    return jnp.argsort(jnp.where(jnp.arange(num_rows) < num_records, bits[:, 0] >> 1, jnp.uint32(2**32 - 1)))


def _losses(logits: Float[Array, "B C"], labels: Int[Array, " B"]) -> Float[Array, " B"]:
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)


def _mean(values: Float[Array, " B"], exists: Bool[Array, " B"]) -> Float[Array, ""]:
    return jnp.sum(jnp.where(exists, values, 0)) / jnp.sum(exists)


def _typed(key: Key, epoch: int | Array) -> Array:
    return jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), epoch)


def arguments(learning_rate: float, momentum: float, weight_decay: float, batch_size: int, network: Any = ()) -> Hyper:
    """Python's numbers as the scalars that a program takes, still on the host; `network` likewise is NumPy."""
    scalars: list[Any] = [np.float32(value) for value in (learning_rate, momentum, weight_decay)]
    return Hyper(scalars[0], scalars[1], scalars[2], np.int32(batch_size), network)  # type: ignore[arg-type]


def shapes(tree: Any) -> Any:
    """Arrays as JAX's compiler sees them; hashable, unlike arrays."""
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), tree)


KEY, NUM_RECORDS = jax.ShapeDtypeStruct((2,), jnp.uint32), jax.ShapeDtypeStruct((), jnp.int32)


@lru_cache(maxsize=64)
def init_program(recipe: Recipe, hyper: Hyper, folds: int, size: int) -> Callable[[Key, Hyper], State]:
    """`init_state`, compiled at its first use in this process; `hyper` is given by its `shapes` alone."""
    with announced(f"the initialisation of {type(recipe.network).__name__}"):
        return quick(jax.jit(partial(init_state, recipe=recipe, folds=folds, size=size)).lower(KEY, hyper))


@lru_cache(maxsize=4)
def augment_program(data: Data, trivial: bool) -> Callable[[Key, Array, Data, Array], Views]:
    """`augment_epoch`, compiled at its first use in this process: the same for all networks."""
    with announced(f"the augmentation{' (TrivialAugment)' if trivial else ''}"):
        epochs = jax.ShapeDtypeStruct((len(data.train_rows),), jnp.int32)
        return quick(jax.jit(partial(augment_epoch, trivial=trivial)).lower(KEY, epochs, data, NUM_RECORDS))


@lru_cache(maxsize=64)
def epoch_program(
    recipe: Recipe, hyper: Hyper, data: Data, batch: int, size: int
) -> Callable[[State, Key, Hyper, Data, Views, Array], tuple[State, Validation]]:
    """`train_epoch`, compiled at its first use in this process; it takes over the memory of the state it is given."""
    with announced(f"the training epoch of {type(recipe.network).__name__}, batch {batch}, {size} pixels"):
        state = jax.eval_shape(partial(init_state, recipe=recipe, folds=len(data.train_rows), size=size), KEY, hyper)
        program = jax.jit(partial(train_epoch, recipe=recipe, batch=batch, size=size), donate_argnums=0)
        epochs = jax.ShapeDtypeStruct((len(data.train_rows),), jnp.int32)
        views = jax.eval_shape(partial(augment_epoch, trivial=False), KEY, epochs, data, NUM_RECORDS)
        return quick(program.lower(state, KEY, hyper, data, views, NUM_RECORDS))
