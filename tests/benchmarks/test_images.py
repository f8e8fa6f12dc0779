"""The image networks train, resume and pad exactly; their layers and augmentations agree with references."""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from PIL import Image, ImageEnhance, ImageOps

from experiments.benchmarks import augment, image_task, images, layers
from experiments.benchmarks.cells import OPERATIONS
from experiments.benchmarks.nas201 import NAS201
from experiments.benchmarks.resnet import ResidualNetwork, ResNet
from experiments.benchmarks.sequential_cnn import SequentialCNN, SequentialNetwork, Settings
from tests.benchmarks.networks import check_contract, curve, space_of
from tests.benchmarks.small_files import images as small_images

SGD: dict[str, Any] = dict(learning_rate=0.05, batch_size=7, weight_decay=5e-4)
CELL = dict(zip([f"edge_{i}" for i in range(6)], [*OPERATIONS, "nor_conv_3x3"], strict=True))
JAHS: dict[str, Any] = {**SGD, **CELL, "dropout_1": 0.2, "dropout_2": 0.1, "dropout_head": 0.3, "trivial_augment": True}
DEEP: dict[str, Any] = {**SGD, "dropout_conv": 0.1, "dropout_head": 0.3, "num_layers": 2, "channels_1": 5, "channels_2": 9}


def resnet(data_dir: str, **changes: Any) -> ResNet:
    return ResNet(space_of("resnet"), **{"r_max": 3, "blocks": [1, 1], "width": 4, "decay_after": 2, "data_dir": data_dir, **changes})


def test_a_resnet_repeats_and_resumes(small_data: str, tmp_path: Path) -> None:
    check_contract(lambda **changes: resnet(small_data, **changes), {**SGD, "momentum": 0.9}, tmp_path)


def test_a_cell_network_repeats_and_resumes_in_two_folds(small_data: str, tmp_path: Path) -> None:
    space = space_of("jahs")

    def make(**changes: Any) -> NAS201:
        return NAS201(space, r_max=3, channels=4, cells=2, stages=2, folds=2, data_dir=small_data, **changes)

    check_contract(make, JAHS, tmp_path)


def test_a_sequential_network_repeats_and_resumes(small_data: str, tmp_path: Path) -> None:
    check_contract(lambda **changes: SequentialCNN(space_of("sequential_cnn"), r_max=3, data_dir=small_data, **changes), DEEP, tmp_path)


def data_of(num: int, num_valid: int) -> images.Data:
    x, y = small_images(num + num_valid, 5)
    rows = np.arange(num + num_valid, dtype=np.int32)[None]
    return images.Data(*jax.device_put((x, y.astype(np.int32), rows[:, :num], rows[:, num:])))


def trained(recipe: images.Recipe, hyper: images.Hyper, data: images.Data, batch: int, epochs: int, **sizes: int) -> Any:
    key, size = np.array([3, 4], np.uint32), sizes.get("size", 32)
    num_records = np.int32(sizes.get("num_records", data.train_rows.shape[1]))
    state = images.init_program(recipe, images.shapes(hyper), len(data.train_rows), size)(key, hyper)
    losses = []
    for _ in range(epochs):
        epoch = images.epoch_program(recipe, images.shapes(hyper), images.shapes(data), batch, size)
        views = images.augment_program(images.shapes(data), False)(key, state.epoch, data, num_records)
        state, validation = epoch(state, key, jax.device_put(hyper), data, views, num_records)
        losses.append(float(validation.loss))
    return jax.device_get(state), losses


def test_a_resnet_learns() -> None:
    recipe = images.Recipe(ResidualNetwork((1,), 8))
    _, losses = trained(recipe, images.arguments(0.1, 0.9, 0.0, 16), data_of(200, 50), 16, 6)
    assert losses[-1] < 1.8 < losses[0] + 0.5  # guessing scores log 10 = 2.3


def test_padding_the_batch_does_not_change_the_result() -> None:
    """Batch normalisation, augmentation and losses see the rows that exist; sums in another order stay within 1e-4."""
    recipe = images.Recipe(ResidualNetwork((1,), 4))
    hyper, data = images.arguments(0.02, 0.9, 1e-3, 6), data_of(20, 10)
    exact, padded = (trained(recipe, hyper, data, batch, 2) for batch in (6, 16))
    np.testing.assert_allclose(exact[1], padded[1], rtol=1e-4)
    for one, other in zip(jax.tree.leaves(exact[0]), jax.tree.leaves(padded[0]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_padding_the_channels_does_not_change_the_result() -> None:
    rates: Any = [np.float32(rate) for rate in (0.2, 0.3)]
    hyper = images.arguments(0.05, 0.9, 1e-3, 8, Settings(np.array([5, 3], np.int32), *rates))  # type: ignore[arg-type]
    exact, padded = (trained(images.Recipe(SequentialNetwork(2, width)), hyper, data_of(24, 10), 8, 2) for width in (5, 8))
    np.testing.assert_allclose(exact[1], padded[1], rtol=1e-4)
    for one, other in zip(jax.tree.leaves(exact[0].params), jax.tree.leaves(padded[0].params), strict=True):
        corner = tuple(slice(length) for length in one.shape)
        # The second layer has three channels: beyond them both networks hold padding.
        np.testing.assert_allclose(other[corner][..., :3], one[..., :3], rtol=1e-3, atol=1e-4)


def test_the_first_records_alone_are_trained_on() -> None:
    recipe, hyper = images.Recipe(ResidualNetwork((1,), 4)), images.arguments(0.05, 0.9, 0.0, 8)
    data = data_of(24, 10)
    others = data._replace(x=jax.device_put(np.concatenate([data.x[:16], 255 - data.x[16:24], data.x[24:]])))
    partly, unseen, changed = (trained(recipe, hyper, d, 8, 1, num_records=n)[1] for d, n in ((data, 16), (others, 16), (others, 24)))
    assert partly == unseen != changed


@pytest.mark.parametrize("trivial", [False, True])
def test_an_epochs_views_are_its_images_shuffled_and_augmented_one_by_one(trivial: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks, of which the last overlaps; here each image alone, from the draws of its place. What is past the records is not made."""
    monkeypatch.setattr(images, "AUGMENTED", 4)
    data, key, num_records = data_of(10, 4), np.array([3, 4], np.uint32), 6
    views = jax.jit(lambda: images.augment_epoch(key, jnp.array([2]), data, jnp.int32(num_records), trivial=trivial))()
    order_key, image_key, _ = images._epoch_keys(key, jnp.int32(2), jnp.int32(0))
    order = images._random_order(order_key, 10, jnp.int32(num_records))
    assert sorted(np.asarray(order)[:num_records]) == list(range(num_records))
    np.testing.assert_array_equal(views.y[0], data.y[order])
    for place in range(num_records):
        words, _ = images.bits_at(image_key, jnp.array([place]), jnp.arange(augment.WORDS))
        image = augment.crop_and_flip(data.x[order[place]][None], words)
        expected = augment.trivial_augment(image, words) if trivial else image
        # A rounding may fall on either side, and where an image is rotated move a pixel.
        assert np.mean(np.asarray(views.x[0, place], float) != expected[0]) <= (0.01 if trivial else 0)
    assert not np.asarray(views.x[0, 8:]).any()


@pytest.mark.parametrize("resource", ["records", "image_size"])
def test_other_resources_resume_and_end_with_everything(small_data: str, tmp_path: Path, resource: str) -> None:
    task = image_task.ImageTask(4, data_dir=small_data, resource=resource)
    units = [(task._num_records(r, 48), task._size(r)) for r in range(1, 5)]
    assert units == ([(12, 32), (24, 32), (36, 32), (48, 32)] if resource == "records" else [(48, 8), (48, 16), (48, 24), (48, 32)])
    config = {**SGD, "momentum": 0.9}
    whole = curve(resnet(small_data, resource=resource), config)
    assert curve(resnet(small_data, resource=resource), config, 0, 2, tmp_path) == whole[:2]
    assert curve(resnet(small_data, resource=resource), config, 2, 3, tmp_path) == whole[2:]


def test_the_learning_rate_falls_after_its_unit(small_data: str) -> None:
    config = {**SGD, "momentum": 0.9}
    early, late = (curve(resnet(small_data, decay_after=after), config) for after in (1, 2))
    assert early[0] == late[0]
    assert resnet(small_data, decay_after=1).r_max == 3


def test_folds_cover_the_images_once_and_keep_the_classes() -> None:
    labels = np.arange(50) % 10
    train, valid = image_task.split(labels, 2, 0.5)
    assert sorted(valid.ravel()) == list(range(50))
    for fit, held in zip(train, valid, strict=True):
        assert not set(fit) & set(held)
        assert np.bincount(labels[fit]).max() - np.bincount(labels[fit]).min() <= 1
    again = image_task.split(labels, 2, 0.5)
    np.testing.assert_array_equal(train, again[0])


def test_the_test_error_is_of_the_test_images_after_training_on_all_others(small_data: str) -> None:
    task = image_task.ImageTask(3, data_dir=small_data, evaluate="test")
    data = image_task.on_device(task)
    assert sorted(np.ravel(data.train_rows)) == list(range(60)) and list(np.ravel(data.valid_rows)) == list(range(60, 80))
    benchmark = resnet(small_data, evaluate="test")
    assert benchmark.metric_name == "test error"
    assert curve(benchmark, {**SGD, "momentum": 0.9}, r_to=1)[0] in [pytest.approx(i / 20) for i in range(21)]


def test_a_diverged_network_reports_nan(small_data: str) -> None:
    assert all(math.isnan(v) for v in curve(resnet(small_data), {**SGD, "momentum": 0.9, "learning_rate": 1e38}, r_to=2))


def test_bfloat16_trains_close_to_float32(small_data: str) -> None:
    hyper, data = images.arguments(0.05, 0.9, 0.0, 16), data_of(100, 50)
    wide, narrow = (trained(images.Recipe(ResidualNetwork((1,), 8), dtype=dtype), hyper, data, 16, 2) for dtype in ("float32", "bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow[0].params)} == {np.dtype(np.float32)}
    assert narrow[1] == pytest.approx(wide[1], rel=0.3)
    assert narrow[1] != wide[1]


@pytest.mark.parametrize(("size", "stride", "side"), [(3, 1, 8), (3, 2, 8), (3, 2, 7), (1, 2, 8), (1, 2, 7), (1, 1, 5)])
def test_the_convolution_for_cpus_has_the_gradients_of_the_ordinary_one(size: int, stride: int, side: int) -> None:
    keys = jax.random.split(jax.random.key(1), 2)
    x, kernel = jax.random.normal(keys[0], (4, side, side, 3)), jax.random.normal(keys[1], (size, size, 3, 5))

    def total(convolve: Any) -> Any:
        return jax.grad(lambda x, kernel: jnp.sum(jnp.sin(convolve(x, kernel, stride))), argnums=(0, 1))(x, kernel)

    for ours, theirs in zip(total(layers._conv_for_cpu), total(layers._conv), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_average_pooling_leaves_out_what_lies_outside() -> None:
    x = jax.random.normal(jax.random.key(2), (2, 5, 6, 3))
    window = lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")  # noqa: E731
    np.testing.assert_allclose(layers.average_3x3(x), window(x) / window(jnp.ones_like(x)), rtol=1e-5, atol=1e-6)


ENHANCERS = {
    "colour": (augment.colour, ImageEnhance.Color),
    "contrast": (augment.contrast, ImageEnhance.Contrast),
    "brightness": (augment.brightness, ImageEnhance.Brightness),
    "sharpness": (augment.sharpness, ImageEnhance.Sharpness),
}


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (32, 32, 3))
    smooth = np.add.outer(np.arange(32) ** 2 // 9, np.arange(32) * 2)[..., None] % 170 + np.array([10, 40, 80])
    return [noise.astype(np.uint8), smooth.astype(np.uint8), small_images(1, 0)[0][0]]


@pytest.mark.parametrize("name", ENHANCERS)
@pytest.mark.parametrize("factor", [0.3, 1.7])
def test_enhancements_are_those_of_pil(name: str, factor: float) -> None:
    ours, theirs = ENHANCERS[name]
    for number, picture in enumerate(pictures()):
        expected = np.asarray(theirs(Image.fromarray(picture)).enhance(factor), float)
        assert number == 1 or (expected != picture).any()  # the smooth picture cannot be sharpened
        np.testing.assert_allclose(ours(jnp.asarray(picture, jnp.float32), jnp.float32(factor)), expected, atol=1)


def test_other_operations_are_those_of_pil() -> None:
    for picture in pictures():
        x, pil = jnp.asarray(picture, jnp.float32), Image.fromarray(picture)
        affine = lambda *matrix: pil.transform(pil.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)  # noqa: B023, E731
        pairs = [
            (augment.autocontrast(x), ImageOps.autocontrast(pil)),
            (augment.equalise(x), ImageOps.equalize(pil)),
            (augment.solarise(x, jnp.float32(100)), ImageOps.solarize(pil, 100)),
            (augment.posterise(x, jnp.float32(3)), ImageOps.posterize(pil, 3)),
            (augment.rotate(x, jnp.float32(33)), pil.rotate(33, Image.Resampling.NEAREST)),
            (augment.rotate(x, jnp.float32(-100)), pil.rotate(-100, Image.Resampling.NEAREST)),
            (augment._shear(x, 0.4, 0.0), affine(1, 0.4, 0, 0, 1, 0)),
            (augment._shear(x, 0.0, -0.4), affine(1, 0, 0, -0.4, 1, 0)),
            (augment._shift(x, 7.0, 0.0), affine(1, 0, 7, 0, 1, 0)),
        ]
        for number, (ours, theirs) in enumerate(pairs):
            # Autocontrast cuts off products that PIL has in double precision.
            np.testing.assert_allclose(ours, np.asarray(theirs, float), atol=1 if number == 0 else 0, err_msg=str(number))


def test_each_operation_is_drawn_equally_often_and_crops_differ() -> None:
    words = jax.random.bits(jax.random.key(3), (14_000,), jnp.uint32)
    counts = np.bincount(augment.below(words, 14), minlength=14)
    assert counts.size == 14 and abs(counts - 1000).max() < 5 * math.sqrt(1000)
    x = jnp.asarray(np.stack([pictures()[0]] * 40))
    words = jax.random.bits(jax.random.key(4), (40, augment.WORDS), jnp.uint32)
    crops = np.asarray(augment.crop_and_flip(x, words))
    assert len({crop.tobytes() for crop in crops}) > 30
    row, col, flip = int(augment.below(words[:1, 0], 9)[0]), int(augment.below(words[:1, 1], 9)[0]), int(words[0, 2] >> 31)
    padded = np.pad(pictures()[0], ((4, 4), (4, 4), (0, 0)))[row : row + 32, col : col + 32]
    np.testing.assert_array_equal(crops[0], padded[:, ::-1] if flip else padded)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"resource": "hours"}, "resource='hours' is unknown; valid are epochs, records, image_size"),
        ({"evaluate": "train"}, "evaluate='train' is unknown; valid are validation, test"),
        ({"blocks": [1, 0]}, r"blocks\[1\]=0 must be a whole number"),
        ({"r_max": 0}, "r_max=0 must be at least 1"),
    ],
)
def test_bad_settings_are_one_sentence(small_data: str, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        resnet(small_data, **settings)


def test_spaces_that_the_networks_cannot_use_are_one_sentence(small_data: str) -> None:
    with pytest.raises(ValueError, match="edge_0='conv_7x7' lies in its space; valid are none, skip_connect"):
        NAS201(space_of("nas201", edge_0="conv_7x7"), data_dir=small_data)
    with pytest.raises(ValueError, match="misses parameter 'dropout_4'"):
        NAS201(space_of("nas201"), stages=4, data_dir=small_data)
    space = space_of("sequential_cnn")
    space["conditions"][0]["value"] = 2  # two layers, but no width of the second
    with pytest.raises(ValueError, match="channels_2 is inactive in its space where num_layers=2"):
        SequentialCNN(space, data_dir=small_data)
    space = space_of("resnet")
    space["conditions"] = [{"type": "GT", "child": "momentum", "parent": "batch_size", "value": 32}]
    with pytest.raises(ValueError, match="has conditions on momentum"):
        ResNet(space, data_dir=small_data)
