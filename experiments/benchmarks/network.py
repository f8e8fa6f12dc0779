"""Training of the A-BOHB paper's two-layer perceptron, in Flax and optax, as pure functions of padded arrays.

Compiling is paid per shape, so a network is trained in the smallest bucket that holds it: its hidden layers are padded to `WIDTHS` and
its batches to `BATCHES`, while sizes, rates and scales stay traced values. The bucket cannot be seen in the result: every random number
is a function of its key and its position alone, padded units start and stay at exactly zero (their gradients are zero, and Adam's step
of a zero gradient is zero), padded rows of a batch have weight zero. What is left is rounding: the same sums in another order.
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
from jax.scipy.special import erf, erfinv
from jaxtyping import Array, Bool, Float, Int, UInt32

from experiments.compilation import announced

# Eight programs of about a second each; a finer grid compiles longer than it saves on a data set of a thousand rows.
WIDTHS = (256, 1024)
BATCHES = (32, 128)

THREEFRY_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))

Key = UInt32[Array, " 2"]  # the two words of a threefry key, plain so that the host can make one without compiling a program

Initialiser = Callable[..., Float[Array, "I O"]]


class Hyper(NamedTuple):
    """One configuration of the network, as scalars that a compiled program takes as arguments."""

    learning_rate: Float[Array, ""]
    batch_size: Int[Array, ""]
    dropout: Float[Array, " 2"]
    units: Int[Array, " 2"]
    init_scale: Float[Array, " 2"]


class Data(NamedTuple):
    x_train: Float[Array, "N D"]
    y_train: Int[Array, " N"]
    x_valid: Float[Array, "V D"]
    y_valid: Int[Array, " V"]


class State(NamedTuple):
    """All that the next epoch depends on besides key, configuration and data."""

    params: Any
    optimiser: optax.OptState
    epoch: Int[Array, ""]  # epochs done


class Validation(NamedTuple):
    loss: Float[Array, ""]  # mean cross-entropy in nats
    error: Float[Array, ""]  # fraction of wrong labels


def bucket(size: int, sizes: tuple[int, ...]) -> int:
    """The smallest of `sizes` that holds `size`; beyond them, the smallest power of two that does."""
    fitting = [candidate for candidate in sizes if candidate >= size]
    return min(fitting) if fitting else 1 << (size - 1).bit_length()


def bits_at(key: Array, rows: Int[Array, " I"], cols: Int[Array, " J"]) -> tuple[UInt32[Array, "I J"], UInt32[Array, "I J"]]:
    """Two random words for each cell (row, col) of a table without end: functions of the threefry key and the cell alone.

    A network of any padding thus sees a slice of one and the same table, and pays for its slice only. The rounds of Threefry-2x32
    (Salmon et al. 2011, section 3.3) are written out, so that XLA fuses them with what is made of the words; JAX's own function loops
    over rounds on the CPU, through memory, and takes twice as long.
    """
    row, col = jnp.meshgrid(rows.astype(jnp.uint32), cols.astype(jnp.uint32), indexing="ij")
    first, second = jax.random.key_data(key)
    schedule = (first, second, first ^ second ^ np.uint32(0x1BD11BDA))
    row, col = row + schedule[0], col + schedule[1]
    for group in range(5):
        for rotation in THREEFRY_ROTATIONS[group % 2]:
            row = row + col
            col = row ^ ((col << np.uint32(rotation)) | (col >> np.uint32(32 - rotation)))
        row, col = row + schedule[(group + 1) % 3], col + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return row, col


def as_uniform(bits: UInt32[Array, "*shape"]) -> Float[Array, "*shape"]:
    """U[0, 1) with 24 bits, all that float32 holds."""
    return (bits >> 8).astype(jnp.float32) * 2.0**-24


def _typed(key: Key) -> Array:
    return jax.random.wrap_key_data(key, impl="threefry2x32")


def _table(key: Array, shape: tuple[int, int]) -> Float[Array, "I O"]:
    return as_uniform(bits_at(key, jnp.arange(shape[0]), jnp.arange(shape[1]))[0])


def uniform_init(scale: Float[Array, ""], fan_in: int | Array, fan_out: int | Array) -> Initialiser:
    """U[-scale, scale] for the units that exist, zero for those that pad."""

    def init(key: Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> Float[Array, "I O"]:
        draw = scale * (2 * _table(key, shape) - 1)
        return jnp.where(_exists(shape, fan_in, fan_out), draw, 0).astype(dtype)

    return init


def lecun_normal_init(fan_in: int | Array, fan_out: int | Array) -> Initialiser:
    """Flax's default for a Dense layer (a normal truncated at two of its standard deviations, variance 1 / fan_in), padded with zeros."""

    def init(key: Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> Float[Array, "I O"]:
        edge = erf(2 / jnp.sqrt(2.0))
        truncated = jnp.sqrt(2.0) * erfinv(edge * (2 * _table(key, shape) - 1))
        # .8796 is the standard deviation that truncation leaves of a unit normal.
        draw = truncated / 0.87962566103423978 / jnp.sqrt(jnp.asarray(fan_in, jnp.float32))
        return jnp.where(_exists(shape, fan_in, fan_out), draw, 0).astype(dtype)

    return init


def _exists(shape: tuple[int, int], fan_in: int | Array, fan_out: int | Array) -> Bool[Array, "I O"]:
    return (jnp.arange(shape[0]) < fan_in)[:, None] & (jnp.arange(shape[1]) < fan_out)


class Perceptron(nn.Module):
    """ReLU layers, each followed by dropout, and a linear output; biases begin at zero."""

    widths: tuple[int, int]
    num_classes: int
    inits: tuple[Initialiser, ...] = (nn.initializers.zeros, nn.initializers.zeros, nn.initializers.zeros)  # used by `init` alone

    @nn.compact
    def __call__(self, x: Float[Array, "B D"], masks: tuple[Array, Array] | None = None) -> Float[Array, "B C"]:
        for layer, width in enumerate(self.widths):
            x = nn.relu(nn.Dense(width, kernel_init=self.inits[layer], name=f"hidden_{layer + 1}")(x))
            if masks is not None:
                x = x * masks[layer]
        return nn.Dense(self.num_classes, kernel_init=self.inits[-1], name="output")(x)


def init_state(key: Key, hyper: Hyper, *, num_features: int, widths: tuple[int, int], num_classes: int) -> State:
    """The untrained network of `hyper`, padded to `widths`."""
    first, second = hyper.units
    inits = (
        uniform_init(hyper.init_scale[0], num_features, first),
        uniform_init(hyper.init_scale[1], first, second),
        lecun_normal_init(second, num_classes),
    )
    params = Perceptron(widths, num_classes, inits).init(jax.random.fold_in(_typed(key), 0), jnp.zeros((1, num_features)))
    return State(params, optax.adam(hyper.learning_rate).init(params), jnp.zeros((), jnp.int32))


def train_epoch(state: State, key: Key, hyper: Hyper, data: Data, *, batch: int) -> tuple[State, Validation]:
    """One epoch of Adam in batches of `hyper.batch_size` rows, padded to `batch`; the last batch may be smaller."""
    params = state.params["params"]
    network = Perceptron((params["hidden_1"]["bias"].size, params["hidden_2"]["bias"].size), params["output"]["bias"].size)
    optimiser = optax.adam(hyper.learning_rate)
    num_rows = len(data.x_train)
    epoch_key = jax.random.fold_in(_typed(key), state.epoch + 1)  # of 0: the initial weights
    order = random_order(epoch_key, num_rows)

    def step(i: Array, carry: tuple[Any, optax.OptState]) -> tuple[Any, optax.OptState]:
        params, moments = carry
        rows = i * hyper.batch_size + jnp.arange(batch)
        exists = (jnp.arange(batch) < hyper.batch_size) & (rows < num_rows)
        chosen = order[jnp.where(exists, rows, 0)]
        x = jnp.where(exists[:, None], data.x_train[chosen], 0)
        masks = dropout_masks(epoch_key, rows, hyper.dropout, network.widths)
        grads = jax.grad(lambda p: _mean_loss(_logits(network, p, x, masks), data.y_train[chosen], exists))(params)
        updates, moments = optimiser.update(grads, moments)
        return optax.apply_updates(params, updates), moments

    num_steps = (num_rows + hyper.batch_size - 1) // hyper.batch_size
    trained, moments = jax.lax.fori_loop(0, num_steps, step, (state.params, state.optimiser))
    logits = _logits(network, trained, data.x_valid)
    loss = _mean_loss(logits, data.y_valid, jnp.ones(len(data.y_valid), bool))
    error = jnp.mean(jnp.argmax(logits, axis=-1) != data.y_valid, dtype=jnp.float32)
    return State(trained, moments, state.epoch + 1), Validation(loss, error)


def _logits(network: Perceptron, params: Any, x: Float[Array, "B D"], masks: tuple[Array, Array] | None = None) -> Array:
    return cast(Array, network.apply(params, x, masks))


def random_order(key: Array, num_rows: int) -> Int[Array, " N"]:
    """A random permutation, from a column of the key's table that no unit reaches."""
    bits, _ = bits_at(key, jnp.arange(num_rows), jnp.array([2**32 - 1], jnp.uint32))
    return jnp.argsort(bits[:, 0])


def dropout_masks(key: Array, rows: Int[Array, " B"], rates: Float[Array, " 2"], widths: tuple[int, int]) -> tuple[Array, Array]:
    """Factors of inverted dropout, [B, H] per layer: 0 with probability `rates[layer]`, else 1 / (1 - rate).

    `rows` are places in the epoch's order, so that no two batches share a cell; the layers take one word each of a cell.
    """
    words = bits_at(key, rows, jnp.arange(max(widths)))
    draws = [as_uniform(word[:, :width]) for word, width in zip(words, widths, strict=True)]
    first, second = (jnp.where(draw >= rate, 1 / (1 - rate), 0) for draw, rate in zip(draws, rates, strict=True))
    # The gradient needs them again: without the barrier XLA computes the random words twice rather than keep the factors.
    first, second = jax.lax.optimization_barrier((first, second))
    return first, second


def _mean_loss(logits: Float[Array, "B C"], labels: Int[Array, " B"], exists: Bool[Array, " B"]) -> Float[Array, ""]:
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.sum(jnp.where(exists, losses, 0)) / jnp.sum(exists)


def shapes(data: Data) -> Data:
    """The data as JAX's compiler sees it; hashable, unlike arrays."""
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), data)


@lru_cache(maxsize=8)
def init_program(num_features: int, widths: tuple[int, int], num_classes: int) -> Callable[[Key, Hyper], State]:
    """`init_state`, compiled at its first use in this process."""
    init = partial(init_state, num_features=num_features, widths=widths, num_classes=num_classes)
    with announced(f"the initialisation of networks up to {widths[0]}x{widths[1]}"):
        return jax.jit(init).lower(*_abstract_arguments()).compile()


@lru_cache(maxsize=64)
def epoch_program(
    data: Data, num_classes: int, widths: tuple[int, int], batch: int
) -> Callable[[State, Key, Hyper, Data], tuple[State, Validation]]:
    """`train_epoch`, compiled for one bucket at its first use in this process; it takes over the memory of the state it is given.

    `data` is given by its `shapes` alone.
    """
    init = partial(init_state, num_features=data.x_train.shape[1], widths=widths, num_classes=num_classes)
    key, hyper = _abstract_arguments()
    with announced(f"the training step for widths {widths[0]}x{widths[1]}, batch {batch}"):
        state = jax.eval_shape(init, key, hyper)
        return jax.jit(partial(train_epoch, batch=batch), donate_argnums=0).lower(state, key, hyper, data).compile()


@lru_cache(maxsize=8)
def group_program(
    data: Data, num_classes: int, widths: tuple[int, int], batch: int, size: int
) -> Callable[[State, Key, Hyper, Data], tuple[State, Validation]]:
    """`train_epoch` of `size` networks at a time, along the leading axis of everything but the data; otherwise like `epoch_program`.

    The networks take as many steps as the one with the smallest batches: they should be of similar batch size.
    """
    init = partial(init_state, num_features=data.x_train.shape[1], widths=widths, num_classes=num_classes)
    one = jax.eval_shape(init, *_abstract_arguments())
    stacked = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype), (one, *_abstract_arguments()))
    together = jax.vmap(partial(train_epoch, batch=batch), in_axes=(0, 0, 0, None))
    return jax.jit(together, donate_argnums=0).lower(*stacked, data).compile()


def cut(state: State, widths: tuple[int, int]) -> State:
    """The corner of a wider network's state that a bucket holds. Nothing is lost if the bucket holds all units that exist."""
    limits = {"hidden_1": (None, widths[0]), "hidden_2": widths, "output": (widths[1], None)}

    def slice_of(path: Any, leaf: Array) -> Any:
        names = [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)]
        if not names:
            return leaf  # counters
        rows, cols = limits[names[-2]]
        return np.asarray(leaf)[:rows, :cols] if names[-1] == "kernel" else np.asarray(leaf)[:cols]

    # On the host: eager slices on the device would compile one small program per shape.
    return jax.device_put(jax.tree_util.tree_map_with_path(slice_of, state))


def _abstract_arguments() -> tuple[Any, Any]:
    """Key and configuration as the compiler sees them."""

    def shape(dtype: Any, *lengths: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(lengths, dtype)

    real_pair = shape(jnp.float32, 2)
    return shape(jnp.uint32, 2), Hyper(*[shape(jnp.float32), shape(jnp.int32), real_pair, shape(jnp.int32, 2), real_pair])  # type: ignore[arg-type]
