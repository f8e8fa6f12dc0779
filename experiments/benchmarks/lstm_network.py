"""Training of a word-level language model, in Flax and optax: two LSTM layers whose input and output embeddings are one matrix.

The text is cut into as many columns as the batch has, read side by side in windows; the state of the LSTM passes from window to window
of an epoch, gradients do not. SGD with clipped gradients, dropout on the embedding, between the layers and before the output, as in
PyTorch's word-level example. Batches are padded to a bucket; rates, batch size and clipping are traced.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from experiments.benchmarks.network import Key, as_uniform, bits_at
from experiments.compilation import announced

NUM_LAYERS = 2
VALIDATION_COLUMNS = 16
# Rows of the vocabulary's softmax at a time: few for the cache of a CPU (half the time of 256 rows), many for an accelerator.
CHUNK_CPU, CHUNK_ACCELERATOR = 64, 1024


class Hyper(NamedTuple):
    learning_rate: Float[Array, ""]  # at the beginning; `State.learning_rate` is where it has fallen to
    batch_size: Int[Array, ""]
    dropout: Float[Array, ""]
    clip: Float[Array, ""]  # greatest norm of the gradient
    decay: Float[Array, ""]  # what the learning rate is divided by when the validation loss has not fallen


class State(NamedTuple):
    params: Any
    learning_rate: Float[Array, ""]
    best_loss: Float[Array, ""]  # lowest validation loss so far, nats per word
    epoch: Int[Array, ""]


class Data(NamedTuple):
    train: Int[Array, " N"]
    valid: Int[Array, " V"]


class Size(NamedTuple):
    num_words: int
    units: int
    window: int


class LanguageModel(nn.Module):
    """Words to the hidden states that predict their successors. Gates are in the order input, forget, cell, output."""

    size: Size
    dtype: str = "float32"

    def setup(self) -> None:
        num_words, units = self.size.num_words, self.size.units
        edge = units**-0.5
        self.embedding = self.param("embedding", _uniform(0.1), (num_words, units))
        self.bias = self.param("bias", nn.initializers.zeros, (num_words,))
        self.inputs = [self.param(f"input_{i}", _uniform(edge), (units, 4 * units)) for i in range(NUM_LAYERS)]
        self.recurrent = [self.param(f"recurrent_{i}", _uniform(edge), (units, 4 * units)) for i in range(NUM_LAYERS)]
        self.shifts = [self.param(f"shift_{i}", _uniform(edge), (4 * units,)) for i in range(NUM_LAYERS)]

    def __call__(
        self, words: Int[Array, "T B"], carry: Float[Array, "L 2 B H"], masks: Float[Array, "L+1 T B H"] | None = None
    ) -> tuple[Float[Array, "T B H"], Float[Array, "L 2 B H"]]:
        x = self.embedding[words].astype(self.dtype)
        carries = []
        for layer in range(NUM_LAYERS):
            if masks is not None:
                x = x * masks[layer].astype(self.dtype)
            x, last = self._layer(x, carry[layer], layer)
            carries.append(last)
        if masks is not None:
            x = x * masks[NUM_LAYERS].astype(self.dtype)
        return x, jnp.stack(carries)

    def _layer(self, x: Array, carry: Array, layer: int) -> tuple[Array, Array]:
        recurrent = self.recurrent[layer].astype(self.dtype)
        # The inputs of all steps in one product; only the recurrent one is left for the loop.
        projected = x @ self.inputs[layer].astype(self.dtype) + self.shifts[layer].astype(self.dtype)

        def step(carry: tuple[Array, Array], at: Array) -> tuple[tuple[Array, Array], Array]:
            hidden, cell = carry
            i, f, g, o = jnp.split((at + hidden.astype(self.dtype) @ recurrent).astype(jnp.float32), 4, axis=-1)
            cell = nn.sigmoid(f) * cell + nn.sigmoid(i) * jnp.tanh(g)
            hidden = nn.sigmoid(o) * jnp.tanh(cell)
            return (hidden, cell), hidden.astype(self.dtype)

        last, outputs = lax.scan(step, (carry[0], carry[1]), projected)
        return outputs, jnp.stack(last)


def _outputs(model: LanguageModel, params: Any, words: Array, carry: Array, masks: Array | None = None) -> tuple[Array, Array]:
    return cast(tuple[Array, Array], model.apply({"params": params}, words, carry, masks))


def _uniform(edge: float) -> Callable[..., Array]:
    return lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -edge, edge)


def init_state(key: Key, hyper: Hyper, *, size: Size) -> State:
    words, carry = jnp.zeros((1, 1), jnp.int32), jnp.zeros((NUM_LAYERS, 2, 1, size.units))
    params = LanguageModel(size).init(_typed(key, 0), words, carry)["params"]
    return State(params, hyper.learning_rate, jnp.array(jnp.inf), jnp.zeros((), jnp.int32))


def train_epoch(state: State, key: Key, hyper: Hyper, data: Data, *, size: Size, batch: int, dtype: str) -> tuple[State, Float[Array, ""]]:
    """One pass over the text; also the validation loss in nats per word. The learning rate falls where that loss does not."""
    model = LanguageModel(size, dtype)
    epoch_key = _typed(key, state.epoch + 1)
    columns = _Columns(len(data.train), hyper.batch_size)
    exists = jnp.arange(batch) < hyper.batch_size
    optimiser = optax.chain(optax.clip_by_global_norm(hyper.clip), optax.sgd(state.learning_rate))

    def step(i: Array, carry: tuple[Any, Array]) -> tuple[Any, Array]:
        params, hidden = carry
        words, targets, counts = columns.window(data.train, i * size.window, size.window, batch)
        masks = _dropout_masks(epoch_key, i, hyper.dropout, (NUM_LAYERS + 1, size.window, batch, size.units))

        def loss_of(params: Any) -> tuple[Array, Array]:
            outputs, last = _outputs(model, params, words, hidden, masks)
            return _sum_loss(params, outputs, targets, counts & exists) / jnp.sum(counts & exists), last

        grads, last = jax.grad(loss_of, has_aux=True)(params)
        updates, _ = optimiser.update(grads, optimiser.init(params))
        return optax.apply_updates(params, updates), last

    start = jnp.zeros((NUM_LAYERS, 2, batch, size.units))
    params, _ = lax.fori_loop(0, columns.num_windows(size.window), step, (state.params, start))
    loss = _validation_loss(model, params, data.valid, size)
    rate = jnp.where(loss < state.best_loss, state.learning_rate, state.learning_rate / hyper.decay)
    return State(params, rate, jnp.minimum(loss, state.best_loss), state.epoch + 1), loss


class _Columns(NamedTuple):
    """The text in `num_columns` columns; the words after the last full row are left out, as each has its successor as target."""

    num_words: int
    num_columns: Int[Array, ""] | int

    def num_windows(self, window: int) -> Array:
        return (self.length + window - 1) // window

    @property
    def length(self) -> Any:
        return (self.num_words - 1) // self.num_columns

    def window(self, text: Array, start: Array, window: int, batch: int) -> tuple[Array, Array, Bool[Array, "T B"]]:
        """Words and targets from row `start` of each column, and which of them exist; those of columns that pad are any."""
        rows = start + jnp.arange(window)[:, None]
        exists = jnp.broadcast_to(rows < self.length, (window, batch))
        places = jnp.where(exists, rows + jnp.arange(batch) * self.length, 0)
        places = jnp.minimum(places, self.num_words - 2)
        return text[places], text[places + 1], exists


def _validation_loss(model: LanguageModel, params: Any, text: Array, size: Size) -> Float[Array, ""]:
    """Nats per word of the whole text (but for a rest of fewer words than columns), read in columns of its own number."""
    num_columns = min(VALIDATION_COLUMNS, len(text) - 1)
    columns = _Columns(len(text), num_columns)

    def step(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        total, hidden = carry
        words, targets, exists = columns.window(text, i * size.window, size.window, num_columns)
        outputs, hidden = _outputs(model, params, words, hidden)
        return total + _sum_loss(params, outputs, targets, exists), hidden

    start = jnp.zeros(()), jnp.zeros((NUM_LAYERS, 2, num_columns, size.units))
    total, _ = lax.fori_loop(0, columns.num_windows(size.window), step, start)
    return total / (columns.length * num_columns)


def _sum_loss(params: Any, outputs: Float[Array, "T B H"], targets: Int[Array, "T B"], exists: Bool[Array, "T B"]) -> Float[Array, ""]:
    """Summed cross-entropy of the words that exist; the output matrix is the embedding."""
    weights = params["embedding"].astype(outputs.dtype)
    return cross_entropy(outputs.reshape(-1, outputs.shape[-1]), weights, params["bias"], targets.ravel(), exists.ravel())


@jax.custom_vjp
def cross_entropy(
    hidden: Float[Array, "M H"],
    weights: Float[Array, "W H"],
    bias: Float[Array, " W"],
    targets: Int[Array, " M"],
    exists: Bool[Array, " M"],
) -> Float[Array, ""]:
    """Sum over rows that exist of -log softmax(hidden weights' + bias)[target], a chunk of the M x W logits at a time.

    The gradient of a sum is known once the sum is, so the backward pass needs no logits: they never exist all at once.
    """

    return _forward(hidden, weights, bias, targets, exists, with_gradients=False)[0]


def _chunks(*arrays: Array) -> list[Array]:
    """Rows in chunks, padded with rows of zero that do not exist."""
    rows = len(arrays[0])
    size = min(CHUNK_CPU if jax.default_backend() == "cpu" else CHUNK_ACCELERATOR, rows)
    padding = -rows % size
    return [jnp.pad(a, [(0, padding), *[(0, 0)] * (a.ndim - 1)]).reshape(-1, size, *a.shape[1:]) for a in arrays]


def _forward(
    hidden: Array, weights: Array, bias: Array, targets: Array, exists: Array, with_gradients: bool = True
) -> tuple[Array, tuple[Array, ...]]:
    """The sum and, unless it is only validated, its gradients.

    With p = softmax(logits), the gradient by the logits is p less 1 at the target. The division by the softmax's sum is left to the
    narrow factors, and the targets to gathers and scatters, so that few passes go over the wide matrix.
    """

    def add(total: Any, chunk: Any) -> tuple[Any, Any]:
        loss, by_weights, by_bias = total
        rows, targets, exists = chunk
        logits = (rows @ weights.T).astype(jnp.float32) + bias
        highest = jnp.max(logits, axis=-1, keepdims=True)
        powers = jnp.exp(logits - highest)
        sums = jnp.sum(powers, axis=-1)
        at_target = jnp.sum(rows * weights[targets], axis=-1, dtype=jnp.float32) + bias[targets]
        loss += jnp.sum(jnp.where(exists, highest[:, 0] + jnp.log(sums) - at_target, 0))
        if not with_gradients:
            return (loss, by_weights, by_bias), None
        share = jnp.where(exists, 1 / sums, 0)
        powers = powers.astype(rows.dtype)
        by_rows = (powers @ weights).astype(jnp.float32) * share[:, None] - jnp.where(exists[:, None], weights[targets], 0)
        by_weights += (powers.T @ (rows * share[:, None].astype(rows.dtype))).astype(jnp.float32)
        by_weights = by_weights.at[targets].add(jnp.where(exists[:, None], -rows, 0).astype(jnp.float32))
        by_bias = (by_bias + share.astype(rows.dtype) @ powers).at[targets].add(-exists.astype(jnp.float32))
        return (loss, by_weights, by_bias), by_rows.astype(rows.dtype)

    empty = (jnp.zeros(weights.shape, jnp.float32), jnp.zeros_like(bias)) if with_gradients else (None, None)
    (loss, by_weights, by_bias), by_hidden = lax.scan(add, (jnp.zeros(()), *empty), _chunks(hidden, targets, exists))
    if not with_gradients:
        return loss, ()
    return loss, (by_hidden.reshape(-1, hidden.shape[-1])[: len(hidden)], by_weights.astype(weights.dtype), by_bias)


def _backward(saved: tuple[Array, ...], grad: Array) -> tuple[Array | None, ...]:
    return (*((grad * value).astype(value.dtype) for value in saved), None, None)


cross_entropy.defvjp(_forward, _backward)


def _dropout_masks(key: Array, step: Array, rate: Array, shape: tuple[int, int, int, int]) -> Float[Array, "L T B H"]:
    """Factors of inverted dropout; the draw of a cell depends on its column of the text, not on how many columns pad the batch."""
    layers, window, batch, units = shape
    words, _ = bits_at(jax.random.fold_in(key, step), jnp.arange(batch), jnp.arange(layers * window * units))
    draws = as_uniform(words).reshape(batch, layers, window, units).transpose(1, 2, 0, 3)
    return jnp.where(draws >= rate, 1 / (1 - rate), 0)


def _typed(key: Key, epoch: int | Array) -> Array:
    return jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), epoch)


KEY = jax.ShapeDtypeStruct((2,), jnp.uint32)


@lru_cache(maxsize=8)
def init_program(size: Size, hyper: Hyper) -> Callable[[Key, Hyper], State]:
    """`init_state`, compiled at its first use in this process; `hyper` is given by its shapes alone."""
    with announced(f"the initialisation of an LSTM of {size.units} units"):
        return jax.jit(partial(init_state, size=size)).lower(KEY, hyper).compile()


@lru_cache(maxsize=16)
def epoch_program(
    size: Size, hyper: Hyper, data: Data, batch: int, dtype: str
) -> Callable[[State, Key, Hyper, Data], tuple[State, Float[Array, ""]]]:
    """`train_epoch`, compiled at its first use in this process; it takes over the memory of the state it is given."""
    with announced(f"the training epoch of an LSTM of {size.units} units, batch {batch}"):
        state = jax.eval_shape(partial(init_state, size=size), KEY, hyper)
        program = jax.jit(partial(train_epoch, size=size, batch=batch, dtype=dtype), donate_argnums=0)
        return program.lower(state, KEY, hyper, data).compile()
