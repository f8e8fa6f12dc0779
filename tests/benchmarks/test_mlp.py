"""The perceptron learns, repeats and resumes its curve exactly, and neither padding nor a diverging run shows in a wrong number."""

import logging
import math
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from omegaconf import OmegaConf
from scipy.stats import kstest, truncnorm

from experiments.benchmarks import mlp, network
from experiments.benchmarks.mlp import MLP
from schedulers.types import Benchmark, Job

SPACE = OmegaConf.load(Path(__file__).parents[2] / "conf" / "benchmark" / "mlp.yaml").space
GOOD: dict[str, Any] = dict(
    learning_rate=3e-3, batch_size=10, dropout_1=0.1, dropout_2=0.2, units_1=30, units_2=50, init_scale_1=0.3, init_scale_2=0.2
)


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp, "WIDTHS", (64,))
    monkeypatch.setattr(mlp, "BATCHES", (32,))
    monkeypatch.setattr(mlp, "OWN_PROGRAM_ROWS", 0)  # wine is small


def wine(seed: int = 0) -> MLP:
    return MLP(SPACE, dataset="wine", r_max=9, seed=seed)


def curve(benchmark: MLP, r_from: int = 0, r_to: int = 9, checkpoint_dir: Path | None = None, **changes: Any) -> list[float]:
    job = Job(0, {**GOOD, **changes}, r_from, r_to)
    items = list(benchmark.train(job, None if checkpoint_dir is None else str(checkpoint_dir)))
    assert [item.r for item in items] == list(range(r_from + 1, r_to + 1))
    assert all(item.seconds > 0 for item in items)
    return [item.metric for item in items]


def test_it_is_a_benchmark() -> None:
    benchmark = wine()
    assert isinstance(benchmark, Benchmark)
    assert (benchmark.r_max, benchmark.mode, len(benchmark.space)) == (9, "min", 8)


def test_it_learns_the_digits() -> None:
    errors = curve(MLP(SPACE), r_to=5)
    assert errors[-1] < 0.1 < errors[0] < 0.9


def test_a_curve_is_fixed_by_seed_and_configuration_alone() -> None:
    first = curve(wine())
    assert curve(wine()) == first
    assert curve(pickle.loads(pickle.dumps(wine()))) == first
    assert curve(wine(seed=1)) != first
    assert curve(wine(), learning_rate=3.001e-3) != first


def test_numpy_values_train_like_python_values() -> None:
    numpy_values = {k: np.int64(v) if isinstance(v, int) else np.float64(v) for k, v in GOOD.items()}
    assert curve(wine(), **numpy_values) == curve(wine())


def test_it_travels_to_a_worker_without_the_data() -> None:
    assert len(pickle.dumps(MLP(SPACE))) < 50_000  # the digits alone take 460 kB


@pytest.mark.parametrize("r", [1, 4, 8])
def test_a_resumed_curve_equals_the_uninterrupted_one(tmp_path: Path, r: int) -> None:
    whole = curve(wine(), checkpoint_dir=tmp_path / "whole")
    parts = tmp_path / "parts"
    assert curve(wine(), 0, r, parts) + curve(wine(), r, 9, parts) == whole


def test_the_state_of_r_is_saved_before_r_is_reported(tmp_path: Path) -> None:
    whole = curve(wine())
    training = wine().train(Job(0, GOOD, 0, 9), str(tmp_path))
    for _ in range(3):
        next(training)
    training.close()  # as a killed worker would leave it
    assert curve(wine(), 3, 9, tmp_path) == whole[3:]
    # The driver died after the worker saved 9, but before it heard of it.
    assert curve(wine(), 8, 9, tmp_path) == whole[8:]
    assert curve(wine(), 4, 9, tmp_path) == whole[4:]


def test_one_checkpoint_is_kept(tmp_path: Path) -> None:
    (tmp_path / "left.part").write_text("of a killed worker")
    curve(wine(), checkpoint_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.msgpack"]


def test_a_checkpoint_that_does_not_fit_is_one_sentence(tmp_path: Path) -> None:
    curve(wine(), 0, 3, tmp_path)
    with pytest.raises(ValueError, match="belongs to another configuration"):
        curve(wine(), 3, 9, tmp_path, units_1=31)
    with pytest.raises(ValueError, match="belongs to another configuration, data set or seed"):
        curve(wine(seed=1), 3, 9, tmp_path)
    with pytest.raises(ValueError, match="holds resource 3, not 5 or a later one"):
        curve(wine(), 5, 9, tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        curve(wine(), 3, 9, tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="needs the folder of its checkpoint"):
        curve(wine(), 3, 9, None)
    path = tmp_path / "state.msgpack"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is damaged"):
        curve(wine(), 3, 9, tmp_path)


def test_a_part_of_the_records_trains_and_all_of_them_validate() -> None:
    def part(records: int | None) -> MLP:
        return MLP(SPACE, dataset="wine", r_max=9, records=records)

    (few, _), (more, _) = (mlp._on_device("wine", None, records) for records in (40, 80))
    assert len(few.x_train) == len(few.y_train) == 40 and len(few.x_valid) == len(more.x_valid) == 60
    assert np.array_equal(few.x_train, more.x_train[:40])
    assert curve(part(40), r_to=3) == curve(part(40), r_to=3) != curve(part(80), r_to=3)
    with pytest.raises(ValueError, match="benchmark.records=119 must be from 1 to 118, the training rows of wine"):
        part(119)


def test_diverged_weights_report_nan_and_not_an_error_of_a_guess() -> None:
    errors = curve(wine(), learning_rate=1e30, init_scale_1=10.0, init_scale_2=10.0)
    assert all(math.isnan(error) for error in errors)


def state_and_losses(widths: tuple[int, int], batch: int, num_epochs: int = 9) -> tuple[network.State, np.ndarray]:
    data, num_classes = mlp._on_device("wine", None)
    hyper, key = mlp._hyper(GOOD), np.array([1, 2], np.uint32)
    state = network.cut(network.init_program(data.x_train.shape[1], (64, 64), num_classes)(key, hyper), widths)
    epoch = network.epoch_program(network.shapes(data), num_classes, widths, batch)
    losses = []
    for _ in range(num_epochs):
        state, validation = epoch(state, key, hyper, data)
        losses.append(float(validation.loss))
    return jax.device_get(state), np.array(losses)


OTHERS = [GOOD, {**GOOD, "batch_size": 21, "units_1": 17}, {**GOOD, "learning_rate": 1e-3, "dropout_2": 0.5, "units_2": 61}]


@pytest.mark.parametrize("size", [1, 3])
def test_a_network_trained_beside_others_has_the_curve_that_it_has_alone(size: int) -> None:
    alone = np.array([curve(wine(), **config) for config in OTHERS])
    together = wine().train_together(OTHERS, size)
    np.testing.assert_allclose(together[..., 0], alone, atol=1e-5)
    assert len(np.unique(alone[:, -1])) > 1 and (together[..., 1] > 0).all()


def test_losses_of_a_group_are_those_of_its_members_alone() -> None:
    data, num_classes = mlp._on_device("wine", None)
    keys = [np.array([1, i], np.uint32) for i in range(3)]
    hypers = [mlp._hyper(config) for config in OTHERS]
    starts = [network.init_program(13, (64, 64), num_classes)(key, hyper) for key, hyper in zip(keys, hypers, strict=True)]
    group = network.group_program(network.shapes(data), num_classes, (64, 64), 32, 3)
    state, *rest = jax.tree.map(lambda *leaves: jax.device_put(np.stack(leaves)), *zip(starts, keys, hypers, strict=True))
    one = network.epoch_program(network.shapes(data), num_classes, (64, 64), 32)
    for _ in range(5):
        state, validation = group(state, *rest, data)
        pairs = [one(start, key, hyper, data) for start, key, hyper in zip(starts, keys, hypers, strict=True)]
        starts = [pair[0] for pair in pairs]
        np.testing.assert_allclose(validation.loss, [float(pair[1].loss) for pair in pairs], rtol=1e-5)


def test_a_network_that_diverges_is_nan_and_leaves_its_company_alone() -> None:
    diverging = {**GOOD, "learning_rate": 1e30, "init_scale_1": 10.0, "init_scale_2": 10.0}
    together = wine().train_together([diverging, GOOD], 2)
    assert np.isnan(together[0, :, 0]).all() and np.isfinite(together[0, 0, 1])
    np.testing.assert_allclose(together[1, :, 0], curve(wine()), atol=1e-5)


@pytest.mark.parametrize(("widths", "batch"), [((64, 64), 32), ((32, 64), 16), ((64, 50), 10)])
def test_padding_of_widths_and_batches_does_not_change_the_result(widths: tuple[int, int], batch: int) -> None:
    """float32 sums in another order differ by about 1e-7 a step; nine epochs of twelve steps stay under 1e-5."""
    unpadded, losses = state_and_losses((GOOD["units_1"], GOOD["units_2"]), GOOD["batch_size"])
    padded, padded_losses = state_and_losses(widths, batch)
    np.testing.assert_allclose(padded_losses, losses, rtol=1e-5)
    assert losses[-1] < losses[0]
    for (path, small), (_, large) in zip(*(jax.tree_util.tree_leaves_with_path(s) for s in (unpadded, padded)), strict=True):
        corner = tuple(slice(length) for length in small.shape)
        np.testing.assert_allclose(large[corner], small, rtol=1e-3, atol=1e-5, err_msg=str(path))
        outside = large.copy()
        outside[corner] = 0
        assert not outside.any(), path  # padded units stay exactly zero


def test_the_widths_of_the_initial_network_do_not_change_its_weights() -> None:
    hyper, key = mlp._hyper(GOOD), np.array([1, 2], np.uint32)
    narrow = network.init_program(13, (30, 50), 3)(key, hyper)
    cut = network.cut(network.init_program(13, (64, 64), 3)(key, hyper), (30, 50))
    for small, large in zip(jax.tree.leaves(narrow), jax.tree.leaves(cut), strict=True):
        np.testing.assert_allclose(large, small, rtol=1e-6)  # two programs may round the last bit differently


def test_initial_weights_follow_their_laws() -> None:
    hyper = mlp._hyper({**GOOD, "units_1": 64, "units_2": 64})
    params = jax.device_get(network.init_program(13, (64, 64), 10)(np.array([7, 0], np.uint32), hyper).params)["params"]
    for layer, scale in (("hidden_1", 0.3), ("hidden_2", 0.2)):
        assert kstest(params[layer]["kernel"].ravel(), "uniform", (-scale, 2 * scale)).pvalue > 0.01
        assert not params[layer]["bias"].any()
    unit = truncnorm(-2, 2)
    assert kstest(params["output"]["kernel"].ravel() * math.sqrt(64) * unit.std(), unit.cdf).pvalue > 0.01


def test_dropout_drops_its_share_scales_the_rest_and_differs_between_layers_rows_and_keys() -> None:
    key = jax.random.key(3, impl="threefry2x32")
    rates = np.array([0.25, 0.9], np.float32)
    first, second = (np.asarray(mask) for mask in network.dropout_masks(key, np.arange(200), rates, (400, 300)))
    for mask, rate in ((first, 0.25), (second, 0.9)):
        np.testing.assert_allclose(np.unique(mask), [0, 1 / (1 - rate)], rtol=1e-6)
        assert np.mean(mask == 0) == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / mask.size))
    same_rate, other = network.dropout_masks(key, np.arange(200), np.array([0.5, 0.5], np.float32), (300, 300))
    assert abs(np.corrcoef(np.ravel(same_rate), np.ravel(other))[0, 1]) < 0.02
    assert all(not np.array_equal(row, following) for row, following in pairwise(first))


def test_random_words_are_those_of_jax_and_of_the_published_test_vectors() -> None:
    rng = np.random.default_rng(0)
    words, rows, cols = (rng.integers(0, 2**32, size, dtype=np.uint32) for size in (2, 50, 33))
    found = network.bits_at(jax.random.wrap_key_data(words, impl="threefry2x32"), rows, cols)
    for ours, jaxs in zip(found, threefry_2x32(tuple(words), np.stack(np.meshgrid(rows, cols, indexing="ij"))), strict=True):
        np.testing.assert_array_equal(ours, jaxs)
    # Random123's known answers for Threefry-2x32 with 20 rounds: (key, counter) -> words.
    for key, at, answer in (
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ):
        row, col = (np.array([word], np.uint32) for word in at)
        first, second = network.bits_at(jax.random.wrap_key_data(np.array(key, np.uint32), impl="threefry2x32"), row, col)
        assert (int(first[0, 0]), int(second[0, 0])) == answer


def test_each_row_is_seen_once_in_an_epoch() -> None:
    orders = [np.asarray(network.random_order(jax.random.key(k, impl="threefry2x32"), 1000)) for k in range(3)]
    assert all(sorted(order) == list(range(1000)) for order in orders)
    assert abs(np.corrcoef(orders[0], orders[1])[0, 1]) < 0.15
    assert abs(np.corrcoef(orders[0], np.arange(1000))[0, 1]) < 0.15


def test_buckets_hold_their_sizes() -> None:
    assert [network.bucket(size, (64, 256)) for size in (1, 64, 65, 256, 257, 1000)] == [64, 64, 256, 256, 512, 1024]


def test_a_program_is_announced_and_compiled_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp, "WIDTHS", (48,))  # a bucket that no other test uses
    monkeypatch.setattr(mlp, "BATCHES", (24,))
    with caplog.at_level(logging.INFO, logger="experiments.compilation"):
        curve(wine(), r_to=1, units_1=20, units_2=40)
        curve(wine(), r_to=2, units_1=48, units_2=33, batch_size=24)
    steps = [record for record in caplog.records if "training step for widths 48x48, batch 24" in record.message]
    assert len(steps) == 1
    done = [record for record in caplog.records if hasattr(record, "compile_seconds")]
    assert done and all(record.compile_seconds > 0 and isinstance(record.cache_hit, bool) for record in done)
    assert all("compiled in" in record.message or "taken from the compilation cache in" in record.message for record in done)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"units_1": None}, "misses parameter 'units_1'"),
        ({"momentum": {"type": "uniform_float", "lower": 0, "upper": 1}}, "has the unknown parameter 'momentum'"),
        ({"dropout_1": {"type": "uniform_float", "lower": 0, "upper": 1}}, r"dropout_1=1\.0 lies in its space"),
        ({"units_1": {"type": "uniform_float", "lower": 16.5, "upper": 64}}, r"units_1=16\.5 lies in its space; valid are int"),
        ({"units_1": {"type": "uniform_float", "lower": 16, "upper": 64}}, "units_1 must be of whole numbers"),
        ({"units_2": {"type": "categorical", "choices": ["wide", "narrow"]}}, "units_2='wide' lies in its space"),
        ({"learning_rate": {"type": "constant", "value": -1.0}}, r"learning_rate=-1\.0 lies in its space"),
    ],
)
def test_a_space_that_the_network_cannot_use_is_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    space = OmegaConf.to_container(SPACE)
    with pytest.raises(ValueError, match=sentence):
        MLP({"hyperparameters": {**space["hyperparameters"], **changes}})


def test_a_constant_and_a_choice_fix_what_is_not_tuned() -> None:
    hyperparameters = OmegaConf.to_container(SPACE)["hyperparameters"]
    hyperparameters |= {"dropout_1": {"type": "constant", "value": 0}, "units_1": {"type": "ordinal", "sequence": [16, 32]}}
    benchmark = MLP({"hyperparameters": hyperparameters}, dataset="wine")
    assert len(curve(benchmark, r_to=1, dropout_1=0, units_1=16)) == 1


def test_other_bad_settings_are_one_sentence_before_any_trial() -> None:
    with pytest.raises(ValueError, match="r_max=0 must be at least 1"):
        MLP(SPACE, r_max=0)
    with pytest.raises(ValueError, match="dataset='mnist' is unknown"):
        MLP(SPACE, dataset="mnist")
    with pytest.raises(ValueError, match="has conditions"):
        condition = {"type": "GT", "child": "units_2", "parent": "units_1", "value": 32}
        MLP({**OmegaConf.to_container(SPACE), "conditions": [condition]})
