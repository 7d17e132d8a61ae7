"""Convolutions of few channels: pixels of a row lie side by side in the channels.

A TPU computes `LANES` channels at once, and 64 channels leave half of its registers and three
quarters of its matrix unit idle. Folded, an image [n, h, w, c] lies as [n, h, w / pixels,
pixels * c]: a convolution goes over blocks of pixels with a kernel that is wide, though partly
zeros, and resamples with its filter in the kernel, without a pass over the image more. What is the
same for all pixels is tiled. Costs: docs/tpu.md.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ganjax.layers.convolution import conv2d
from ganjax.layers.filtering import Taps, separate

LANES = 128


def fold(x: Float[Array, "n h w c"], pixels: int) -> Float[Array, "n h w2 c2"]:
    """So many pixels of a row become one of as many times the channels."""
    n, h, w, c = x.shape
    return x.reshape(n, h, w // pixels, pixels * c)


def unfold(x: Float[Array, "n h w c"], pixels: int) -> Float[Array, "n h w2 c2"]:
    """The inverse of `fold`."""
    n, h, w, c = x.shape
    return x.reshape(n, h, w * pixels, c // pixels)


def tiled(values: Float[Array, "*n c"], channels: int) -> Float[Array, "*n c2"]:
    """Values of channels, for the channels of a folded image."""
    return jnp.tile(values, channels // values.shape[-1])


def folded_conv2d(
    x: Float[Array, "n h w i"],
    kernel: Float[Array, "k k i2 o2"],
    taps: Taps = None,
    *,
    pixels: int,
    up: int = 1,
    down: int = 1,
) -> Float[Array, "n h2 w2 o"]:
    """`conv2d_resample` of a folded image; the result is folded, too.

    Args:
        taps: of the resampling; separable.
        pixels: side by side at the higher resolution; `pixels / up` are so in `x`, and
            `pixels / down` in the result.
    """
    n, h, w, _ = x.shape
    size, features = kernel.shape[0], kernel.shape[-1]
    vertical, horizontal = separate(np.ones((1, 1), np.float32) if taps is None else taps)
    columns, across = _blocks(horizontal, size, pixels // up, pixels // down, up, down)
    rows, along = _blocks(vertical, size, down, up, up, down)
    # Kernels are mixed in full precision, which is nothing beside the convolution.
    wide = jnp.einsum("hwio,Bpqw->hBpiqo", kernel, columns, precision=lax.Precision.HIGHEST)
    wide = wide.reshape(size, len(columns), x.shape[-1], (pixels // down) * features)
    if up == down == 1:
        return conv2d(x, wide)
    # A row of `up` or `down` is an axis of its own, on which the image has one row at the lower
    # resolution, and whose taps meet one row each.
    rows = rows[:, 0, ::-1] if up > 1 else rows[:, :, 0]  # [blocks, up or down, size]
    wide = jnp.einsum("hBio,Arh->ArBio", wide, rows, precision=lax.Precision.HIGHEST)
    y = lax.conv_general_dilated(
        x.reshape(n, h // down, down, w, -1),
        wide.astype(x.dtype),
        (1, 1, 1),
        (along, (up - 1, up - 1), across),
        dimension_numbers=("NHRWC", "HRWIO", "NHRWC"),
    )
    return y.reshape(n, h // down * up, w, -1)


def side_by_side(channels: Sequence[int], lanes: int) -> list[int]:
    """Pixels to lay side by side at each resolution, the lowest one first.

    As many as fill the lanes, from where on a doubled resolution has half of the channels: then the
    same number of blocks covers a row at both.
    """
    found: list[int] = []
    for index, count in enumerate(channels):
        halved = index > 0 and 2 * count == channels[index - 1]
        fits = halved and lanes // count == 2 * found[-1]
        found.append(lanes // count if fits else 1)
    return found


def _blocks(
    taps: Any, size: int, ins: int, outs: int, up: int, down: int
) -> tuple[np.ndarray, tuple[int, int]]:
    """What a kernel's taps become along an axis, its filter included, and the padding in blocks.

    Returns:
        [blocks, ins, outs, size]: the weight of each tap between a pixel of a block that goes in,
        and one of the block that comes out.
    """
    extra = len(taps) + up - 1 if up > 1 else len(taps) - down + 1
    pad = size // 2 + extra // 2
    block, reach = ins * up, size + len(taps) - 1
    # Of the kernel and the filter as one, the tap between pixel p and pixel q of the same block.
    between = up * np.arange(ins)[:, None] - down * np.arange(outs) + pad
    low, high = between.max() // block, (reach - 1 - between.min()) // block
    number = between + block * np.arange(-low, high + 1)[:, None, None]
    number = number[..., None] - np.arange(size)
    inside = (number >= 0) & (number < len(taps))
    weights = taps[::-1][np.clip(number, 0, len(taps) - 1)] * inside
    return (up * weights).astype(np.float32), (int(low), int(high))
