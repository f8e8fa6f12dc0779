"""Layers of the image networks, as functions of arrays: convolution, batch normalisation of padded batches, dropout, pooling.

XLA's CPU compiler knows fast kernels for convolutions in its own layout only, and inside a loop it leaves the others as they are: the
two gradients of an ordinary convolution then run fifty times slower than the convolution (jax issue 12868, jax 0.10.2). `conv` states
them in that layout. On accelerators it is the ordinary convolution.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from experiments.benchmarks.network import as_uniform, bits_at

Pads = tuple[tuple[int, int], tuple[int, int]]
LAYOUT = ("NHWC", "HWIO", "NHWC")
BN_MOMENTUM, BN_EPSILON = 0.9, 1e-5

conv_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")  # He et al. 2015, eq. 10


def conv(x: Float[Array, "B H W I"], kernel: Float[Array, "K K I O"], stride: int = 1) -> Float[Array, "B h w O"]:
    """Convolution with zero padding of K // 2 on each side, as PyTorch pads (SAME would shift a kernel of stride 2 by one pixel)."""
    if jax.default_backend() == "cpu":
        return _conv_for_cpu(x, kernel, stride)
    return _conv(x, kernel, stride)


def _conv(x: Array, kernel: Array, stride: int) -> Array:
    pad = kernel.shape[0] // 2
    return lax.conv_general_dilated(x, kernel, (stride, stride), ((pad, pad), (pad, pad)), dimension_numbers=LAYOUT)


_conv_for_cpu = jax.custom_vjp(_conv, nondiff_argnums=(2,))


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return _conv(x, kernel, stride), (x, kernel)


def _backward(stride: int, saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, kernel = saved
    size, pad = kernel.shape[0], kernel.shape[0] // 2
    # Rows and columns of the padded input at the far end that no window of the stride reaches.
    missed = [x.shape[axis] + 2 * pad - size - (grad.shape[axis] - 1) * stride for axis in (1, 2)]
    to_input: Any = [(size - 1 - pad, size - 1 - pad + m) for m in missed]
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    by_input = lax.conv_general_dilated(grad, flipped, (1, 1), to_input, lhs_dilation=(stride, stride), dimension_numbers=LAYOUT)
    # Channels of the input as a batch, the batch as channels: the gradient is the kernel.
    to_kernel: Any = [(pad, pad - m) for m in missed]
    by_kernel = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0), grad.transpose(1, 2, 0, 3), (1, 1), to_kernel, rhs_dilation=(stride, stride), dimension_numbers=LAYOUT
    )
    return by_input, by_kernel.transpose(1, 2, 0, 3)


_conv_for_cpu.defvjp(_forward, _backward)


def batch_norm(
    x: Float[Array, "B H W C"], mean: Float[Array, " C"], var: Float[Array, " C"], exists: Bool[Array, " B"] | None
) -> tuple[Float[Array, "B H W C"], Float[Array, " C"], Float[Array, " C"]]:
    """Normalised `x` and the next running mean and variance (Ioffe & Szegedy 2015), in float32; the result has the type of `x`.

    Training: moments of the rows that exist. `exists` None, validation: the running moments, which come back as they are.
    """
    wide = x.astype(jnp.float32)
    if exists is not None:
        rows = exists[:, None, None, None]
        batch_mean = jnp.mean(wide, axis=(0, 1, 2), where=rows)
        batch_var = jnp.mean((wide - batch_mean) ** 2, axis=(0, 1, 2), where=rows)
        normalised = (wide - batch_mean) * lax.rsqrt(batch_var + BN_EPSILON)
        mean = BN_MOMENTUM * mean + (1 - BN_MOMENTUM) * lax.stop_gradient(batch_mean)
        var = BN_MOMENTUM * var + (1 - BN_MOMENTUM) * lax.stop_gradient(batch_var)
    else:
        normalised = (wide - mean) * lax.rsqrt(var + BN_EPSILON)
    return normalised.astype(x.dtype), mean, var


class Norm(nn.Module):
    """Batch normalisation with scale and shift, both float32; running moments in the collection `batch_stats`."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], exists: Bool[Array, " B"] | None) -> Float[Array, "B H W C"]:
        channels = x.shape[-1]
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        var = self.variable("batch_stats", "var", jnp.ones, channels)
        normalised, next_mean, next_var = batch_norm(x, mean.value, var.value, exists)
        if exists is not None and not self.is_initializing():
            mean.value, var.value = next_mean, next_var
        scale = self.param("scale", nn.initializers.ones, (channels,))
        shift = self.param("shift", nn.initializers.zeros, (channels,))
        return normalised * scale.astype(x.dtype) + shift.astype(x.dtype)


class Conv(nn.Module):
    """`conv` without bias, computed in the type of its input."""

    channels: int
    size: int = 3
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B h w O"]:
        kernel = self.param("kernel", conv_init, (self.size, self.size, x.shape[-1], self.channels))
        return conv(x, kernel.astype(x.dtype), self.stride)


def dropout(x: Float[Array, "B *HW C"], rate: Float[Array, ""], key: Array, rows: Int[Array, " B"]) -> Float[Array, "B *HW C"]:
    """Inverted dropout of whole channels; what is dropped depends on key, row and channel alone, so that padding does not show."""
    draw = as_uniform(bits_at(key, rows, jnp.arange(x.shape[-1]))[0])
    mask = jnp.where(draw >= rate, 1 / (1 - rate), 0).astype(x.dtype)
    return x * mask.reshape(mask.shape[0], *(1,) * (x.ndim - 2), mask.shape[1])


def average_3x3(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """Mean over the 3x3 window around each pixel, of those pixels that lie in the image."""
    ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    return _sum_3x3(x) / _sum_3x3(ones)


def _sum_3x3(x: Array) -> Array:
    # Two sums of three shifted slices: on the CPU far faster than a window reduction and its gradient.
    for axis in (1, 2):
        padded = jnp.pad(x, [(1, 1) if a == axis else (0, 0) for a in range(4)])
        x = sum((lax.slice_in_dim(padded, i, i + x.shape[axis], axis=axis) for i in range(3)), start=jnp.zeros_like(x))
    return x
