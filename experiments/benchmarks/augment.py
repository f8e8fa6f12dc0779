"""Augmentation of images on the device: pad-and-crop with flips, and TrivialAugment (Müller & Hutter 2021).

Images are float32 in [0, 255] whose values stay whole numbers, as the 8-bit images that the operations are defined on. Each image's
draws are words of its own, WORDS of them.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt8, UInt32

WORDS = 8  # random words an image: rows, columns, flip; operation, strength, sign
STRENGTHS = 31  # m = 0, ..., 30, as a share m / 30 of the strongest
GREY = (299 / 1000, 587 / 1000, 114 / 1000)  # ITU-R 601-2, as PIL converts to grey

Image = Float[Array, "S S 3"]


def crop_and_flip(x: UInt8[Array, "B S S 3"], words: UInt32[Array, "B W"]) -> Float[Array, "B S S 3"]:
    """A random crop of the image padded with black by an eighth of its side (4 pixels of 32), mirrored every other time."""
    side = x.shape[1]
    pad = max(1, side // 8)
    padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows, cols = (below(words[:, i], 2 * pad + 1) for i in (0, 1))
    crops = jax.vmap(lambda image, row, col: lax.dynamic_slice(image, (row, col, 0), (side, side, 3)))(padded, rows, cols)
    flips = (words[:, 2] >> 31).astype(bool)
    return jnp.where(flips[:, None, None, None], crops[:, :, ::-1], crops).astype(jnp.float32)


def trivial_augment(x: Float[Array, "B S S 3"], words: UInt32[Array, "B W"]) -> Float[Array, "B S S 3"]:
    """One operation of the wide space, drawn uniformly, at one of 31 strengths, drawn uniformly; half of the signed ones negative."""
    operation, strength = below(words[:, 3], len(OPERATIONS)), below(words[:, 4], STRENGTHS)
    sign = jnp.where(words[:, 5] >> 31, -1.0, 1.0)

    def one(image: Array, chosen: Array, share: Array, sign: Array) -> Array:
        return lax.switch(chosen, OPERATIONS, image, share, sign)

    return jax.vmap(one)(x, operation, strength / (STRENGTHS - 1), sign)


def below(words: UInt32[Array, " B"], limit: int) -> Int[Array, " B"]:
    """Uniform in 0, ..., limit - 1, up to one part in 2^16 / limit."""
    return ((words >> 16) * jnp.uint32(limit) >> 16).astype(jnp.int32)


def _rounded(x: Array) -> Array:
    """To whole numbers in [0, 255] by cutting off, as 8-bit images do."""
    return jnp.clip(jnp.floor(x), 0, 255)


def grey(image: Image) -> Float[Array, "S S 1"]:
    return jnp.floor(image @ jnp.array(GREY) + 0.5)[..., None]


def _blend(other: Array, image: Image, factor: Array) -> Image:
    """`other` at factor 0, the image at 1; factors above 1 go beyond the image."""
    return _rounded(other + factor * (image - other))


def _factor(share: Array, sign: Array) -> Array:
    return 1 + sign * 0.99 * share


def brightness(image: Image, factor: Array) -> Image:
    return _blend(jnp.zeros_like(image), image, factor)


def colour(image: Image, factor: Array) -> Image:
    return _blend(grey(image), image, factor)


def contrast(image: Image, factor: Array) -> Image:
    return _blend(jnp.floor(jnp.mean(grey(image)) + 0.5), image, factor)


def sharpness(image: Image, factor: Array) -> Image:
    """Against the image smoothed by [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13, but for its border."""
    side = image.shape[0]
    window = sum((image[i : i + side - 2, j : j + side - 2] for i in range(3) for j in range(3)), start=4 * image[1:-1, 1:-1])
    smooth = image.at[1:-1, 1:-1].set(jnp.floor(window / 13 + 0.5))
    return _blend(smooth, image, factor)


def posterise(image: Image, bits: Array) -> Image:
    step = 2.0 ** (8 - bits)
    return jnp.floor(image / step) * step


def solarise(image: Image, threshold: Array) -> Image:
    return jnp.where(image < threshold, image, 255 - image)


def autocontrast(image: Image) -> Image:
    """Each channel stretched to [0, 255]; a channel of one value stays."""
    low, high = image.min((0, 1)), image.max((0, 1))
    stretched = _rounded((image - low) * (255 / jnp.maximum(high - low, 1)))
    return jnp.where(high > low, stretched, image)


def equalise(image: Image) -> Image:
    """Each channel's histogram flattened by a lookup table, in whole numbers as PIL does."""
    return jax.vmap(_equalise_channel, in_axes=-1, out_axes=-1)(image)


def _equalise_channel(channel: Float[Array, "S S"]) -> Float[Array, "S S"]:
    pixels = channel.astype(jnp.int32)
    # Counts of values up to v by sorting; counting into a histogram runs one pixel after the other on a CPU.
    up_to = jnp.searchsorted(jnp.sort(pixels.ravel()), jnp.arange(256), side="right")
    counts = jnp.diff(up_to, prepend=0)
    last = counts[pixels.max()]
    step = (pixels.size - last) // 255
    table = jnp.clip((step // 2 + up_to - counts) // jnp.maximum(step, 1), 0, 255)
    return jnp.where(step > 0, table[pixels], pixels).astype(channel.dtype)


def warp(image: Image, matrix: Float[Array, "2 3"]) -> Image:
    """The pixel at output (x, y) is the input's at `matrix` (x, y, 1), nearest neighbour, black outside; pixel centres lie at 1/2."""
    side = image.shape[0]
    y, x = jnp.meshgrid(jnp.arange(side) + 0.5, jnp.arange(side) + 0.5, indexing="ij")
    source_x, source_y = (jnp.floor(a * x + b * y + c).astype(jnp.int32) for a, b, c in matrix)
    inside = (source_x >= 0) & (source_x < side) & (source_y >= 0) & (source_y < side)
    pixels = image[jnp.clip(source_y, 0, side - 1), jnp.clip(source_x, 0, side - 1)]
    return jnp.where(inside[..., None], pixels, 0)


def _shear(image: Image, along_x: Array | float, along_y: Array | float) -> Image:
    return warp(image, jnp.array([[1.0, along_x, 0.0], [along_y, 1.0, 0.0]]))


def _shift(image: Image, x: Array | float, y: Array | float) -> Image:
    return warp(image, jnp.array([[1.0, 0.0, x], [0.0, 1.0, y]]))


def rotate(image: Image, degrees: Array) -> Image:
    """Counter-clockwise about the image's centre."""
    centre, angle = image.shape[0] / 2, -jnp.deg2rad(degrees)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return warp(image, jnp.array([[cos, sin, centre - cos * centre - sin * centre], [-sin, cos, centre + sin * centre - cos * centre]]))


# image, strength as a share of the strongest, sign -> image. Ranges: the wide space of the paper's table 1.
OPERATIONS: tuple[Callable[[Array, Array, Array], Array], ...] = (
    lambda image, share, sign: image,
    lambda image, share, sign: autocontrast(image),
    lambda image, share, sign: equalise(image),
    lambda image, share, sign: rotate(image, sign * 135 * share),
    lambda image, share, sign: solarise(image, 255 * (1 - share)),
    lambda image, share, sign: colour(image, _factor(share, sign)),
    lambda image, share, sign: posterise(image, 8 - jnp.round(6 * share)),
    lambda image, share, sign: contrast(image, _factor(share, sign)),
    lambda image, share, sign: brightness(image, _factor(share, sign)),
    lambda image, share, sign: sharpness(image, _factor(share, sign)),
    lambda image, share, sign: _shear(image, sign * 0.99 * share, 0.0),
    lambda image, share, sign: _shear(image, 0.0, sign * 0.99 * share),
    lambda image, share, sign: _shift(image, sign * 32 * share, 0.0),
    lambda image, share, sign: _shift(image, 0.0, sign * 32 * share),
)
