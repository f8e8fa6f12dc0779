"""The language model learns, resumes exactly, and neither padding nor chunks show in its numbers."""

import math
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.benchmarks import lstm_network
from experiments.benchmarks.lstm import LSTM
from tests.benchmarks.networks import check_contract, curve, space_of

CONFIG: dict[str, Any] = dict(learning_rate=10.0, batch_size=8, dropout=0.1, clip=0.5, decay=4.0)


def small(data_dir: str, seed: int = 0) -> LSTM:
    return LSTM(space_of("lstm"), r_max=9, units=12, window=5, data_dir=data_dir, seed=seed)


def test_it_learns_repeats_and_resumes(small_data: str, tmp_path: Path) -> None:
    check_contract(lambda **changes: small(small_data, **changes), CONFIG, tmp_path)
    losses = curve(small(small_data), dict(CONFIG, learning_rate=5.0, dropout=0.0, decay=1.0), r_to=30)
    assert losses[-1] < 2.0 < math.log(20) - 0.9  # each word has two successors among 20


def test_the_learning_rate_falls_where_the_loss_does_not(small_data: str) -> None:
    stuck = dict(CONFIG, learning_rate=1e-30)  # the loss cannot fall after the first epoch
    states, _ = trained(small_data, stuck, 3, 8)
    np.testing.assert_allclose([float(s.learning_rate) for s in states], np.array([1, 1 / 4, 1 / 16]) * 1e-30, rtol=1e-6)
    rate, best, rates = 5.0, math.inf, []
    states, losses = trained(small_data, dict(CONFIG, learning_rate=5.0, decay=1.1), 8, 8)
    for loss in losses:
        rate, best = (rate if loss < best else rate / 1.1), min(loss, best)
        rates.append(rate)
    np.testing.assert_allclose([float(s.learning_rate) for s in states], rates, rtol=1e-5)
    assert float(states[0].learning_rate) == 5.0


def trained(data_dir: str, config: dict[str, Any], epochs: int, batch: int) -> tuple[list[lstm_network.State], list[float]]:
    from experiments.benchmarks import wikitext
    from experiments.benchmarks.images import shapes

    text = wikitext.load(data_dir)
    data = lstm_network.Data(*jax.device_put((text.train, text.valid)))
    scalars = {k: np.asarray(v, np.int32 if k == "batch_size" else np.float32) for k, v in config.items()}
    hyper = jax.device_put(lstm_network.Hyper(**scalars))
    size, key = lstm_network.Size(text.num_words, 12, 5), np.array([1, 2], np.uint32)
    state = lstm_network.init_program(size, shapes(hyper))(key, hyper)
    states, losses = [], []
    for _ in range(epochs):
        state, loss = lstm_network.epoch_program(size, shapes(hyper), shapes(data), batch, "float32")(state, key, hyper, data)
        losses.append(float(loss))
        states.append(jax.device_get(state))
        state = jax.device_put(states[-1])
    return states, losses


def test_padding_the_batch_does_not_change_the_result(small_data: str) -> None:
    """float32 sums in another order: two epochs of a dozen steps stay within 1e-5."""
    exact, _ = trained(small_data, CONFIG, 2, 8)
    padded, _ = trained(small_data, CONFIG, 2, 16)
    for one, other in zip(jax.tree.leaves(exact[-1]), jax.tree.leaves(padded[-1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_the_chunked_cross_entropy_and_its_gradients_equal_the_plain_ones() -> None:
    keys = jax.random.split(jax.random.key(0), 5)
    rows, words, units = 2 * lstm_network.CHUNK_CPU + 7, 30, 6
    hidden, weights = jax.random.normal(keys[0], (rows, units)), jax.random.normal(keys[1], (words, units))
    bias, targets = jax.random.normal(keys[2], (words,)), jax.random.randint(keys[3], (rows,), 0, words)
    exists = jax.random.uniform(keys[4], (rows,)) < 0.8

    def plain(hidden: Any, weights: Any, bias: Any) -> Any:
        losses = optax.softmax_cross_entropy_with_integer_labels(hidden @ weights.T + bias, targets)
        return jnp.sum(jnp.where(exists, losses, 0)) ** 1.5

    def chunked(hidden: Any, weights: Any, bias: Any) -> Any:
        return lstm_network.cross_entropy(hidden, weights, bias, targets, exists) ** 1.5

    np.testing.assert_allclose(chunked(hidden, weights, bias), plain(hidden, weights, bias), rtol=1e-5)
    ours, theirs = (jax.grad(f, argnums=(0, 1, 2))(hidden, weights, bias) for f in (chunked, plain))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * float(jnp.abs(other).max()))


def test_the_validation_loss_is_that_of_a_plain_loop_over_the_words(small_data: str) -> None:
    """Sixteen columns read side by side, each from an empty state, computed here one word after the other in NumPy."""
    from experiments.benchmarks import wikitext

    text = wikitext.load(small_data)
    states, _ = trained(small_data, CONFIG, 1, 8)
    p = {name: np.float64(value) for name, value in states[0].params.items()}
    length = (len(text.valid) - 1) // 16
    total = 0.0
    for column in range(16):
        carry = [(np.zeros(12), np.zeros(12)) for _ in range(2)]
        for place in range(column * length, (column + 1) * length):
            x = p["embedding"][text.valid[place]]
            for layer in range(2):
                gates = x @ p[f"input_{layer}"] + carry[layer][0] @ p[f"recurrent_{layer}"] + p[f"shift_{layer}"]
                i, f, g, o = np.split(gates, 4)
                sigmoid = [1 / (1 + np.exp(-gate)) for gate in (i, f, o)]
                cell = sigmoid[1] * carry[layer][1] + sigmoid[0] * np.tanh(g)
                x = sigmoid[2] * np.tanh(cell)
                carry[layer] = (x, cell)
            logits = p["embedding"] @ x + p["bias"]
            total += np.log(np.exp(logits).sum()) - logits[text.valid[place + 1]]
    assert float(states[0].best_loss) == pytest.approx(total / (16 * length), rel=1e-5)


def test_a_diverged_model_reports_nan(small_data: str) -> None:
    assert all(math.isnan(loss) for loss in curve(small(small_data), dict(CONFIG, learning_rate=1e38, clip=1e30), r_to=2))


def test_bad_settings_are_one_sentence(small_data: str) -> None:
    with pytest.raises(ValueError, match=r"benchmark\.units=0 must be a whole number"):
        LSTM(space_of("lstm"), units=0, data_dir=small_data)
    with pytest.raises(ValueError, match="precision='half' is unknown; valid are auto"):
        LSTM(space_of("lstm"), precision="half", data_dir=small_data)
    with pytest.raises(ValueError, match="batch_size=1000000 lies in its space, but the text has only"):
        LSTM(space_of("lstm", batch_size=1_000_000), data_dir=small_data)
    with pytest.raises(ValueError, match=r"decay=0\.5 lies in its space"):
        LSTM(space_of("lstm", decay=0.5), data_dir=small_data)


@pytest.mark.skipif("MFGP_DATA_DIR" not in os.environ, reason="MFGP_DATA_DIR names no folder with the real files")
def test_the_real_text_has_its_published_size() -> None:
    from experiments.benchmarks import wikitext

    text = wikitext.load(os.environ["MFGP_DATA_DIR"])
    assert (len(text.train), len(text.valid), len(text.test), text.num_words) == (2088628, 217646, 245569, 33278)
