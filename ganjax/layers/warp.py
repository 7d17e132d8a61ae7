"""Affine warps of images, without aliasing (ADA, appendix B.2).

An image is mirrored around its border, doubled in resolution by a wavelet's low-pass filter,
sampled bilinearly where the map says, and halved by the same filter, reversed. Mirroring and
filter are one banded matrix along each axis.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Daubechies' least asymmetric wavelet of six vanishing moments (sym6), low-pass.
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
TAPS = np.array(SYM6) / np.sum(SYM6)
EDGE = len(TAPS) // 4  # pixels around the result that its filter reaches


def warp(images: Float[Array, "n h w c"], to_input: Float[Array, "n 3 3"]) -> Array:
    """Images [n, h, w, c] of which each pixel was looked up at another place.

    NOTE: the official code mirrors as many pixels as the batch's largest warp needs, at most all
    but one; this mirrors so many always, so no sample depends on another and shapes are static.

    Args:
        to_input: from a pixel of the result to its place in the input, as (x, y, 1) in pixels from
            the images' centre.
    """
    height, width = images.shape[1:3]
    rows, columns = _enlarge(height), _enlarge(width)
    large = _along(images, rows, columns)
    # Centres of the doubled result's pixels, in pixels of the result.
    x, y = (jnp.arange(2 * (size + 2 * EDGE)) + 1.0 - size - 2 * EDGE for size in (width, height))
    x, y = x[None, None, :] / 2, y[None, :, None] / 2

    def place(row: int, size: int) -> Array:
        """Number of the doubled input's pixel, [n, 2 h, 2 w]; its first and last are empty."""
        a, b, c = (to_input[:, row, i, None, None] for i in range(3))
        centre = (size - 1) / 2
        return jnp.clip(2 * (a * x + b * y + c) - 0.5 + centre, 0, size - 1)

    warped = bilinear(large, place(1, large.shape[1]), place(0, large.shape[2]))
    return _along(warped, _reduce(height), _reduce(width))


def bilinear(
    images: Float[Array, "n h w c"], y: Float[Array, "n a b"], x: Float[Array, "n a b"]
) -> Float[Array, "n a b c"]:
    """Images between their pixels, at places within the centres of the outermost ones."""
    top = jnp.clip(jnp.floor(y), 0, images.shape[1] - 2)
    left = jnp.clip(jnp.floor(x), 0, images.shape[2] - 2)
    down, right = ((place - corner)[..., None] for place, corner in ((y, top), (x, left)))
    down, right = down.astype(images.dtype), right.astype(images.dtype)
    top, left = top.astype(jnp.int32), left.astype(jnp.int32)

    @jax.vmap  # each sample is looked up where it lies
    def look_up(image: Array, top: Array, left: Array) -> Array:
        return image.at[top, left].get(mode="promise_in_bounds")

    upper = look_up(images, top, left) * (1 - right) + look_up(images, top, left + 1) * right
    lower = (
        look_up(images, top + 1, left) * (1 - right) + look_up(images, top + 1, left + 1) * right
    )
    return upper * (1 - down) + lower * down


def _along(images: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    """A matrix along each axis."""
    images = jnp.einsum("nhwc,Hh->nHwc", images, jnp.asarray(rows, images.dtype))
    return jnp.einsum("nhwc,Ww->nhWc", images, jnp.asarray(columns, images.dtype))


@functools.cache
def _enlarge(size: int) -> np.ndarray:
    """[2 (3 size - 2) + 2, size]: mirrors, doubles, and leaves a pixel of nothing at either end."""
    mirrored = np.pad(np.eye(size), ((size - 1, size - 1), (0, 0)), mode="reflect")
    spread = np.zeros((2 * len(mirrored), size))
    spread[::2] = mirrored
    full = np.apply_along_axis(np.convolve, 0, spread, 2 * TAPS)
    start = (len(TAPS) - 1) // 2
    return np.pad(full[start : start + len(spread)], ((1, 1), (0, 0)))


@functools.cache
def _reduce(size: int) -> np.ndarray:
    """[size, 2 (size + 2 EDGE)]: filters, and keeps every second pixel of the middle."""
    matrix = np.zeros((size, 2 * (size + 2 * EDGE)))
    for row in range(size):
        matrix[row, 2 * row + 1 :][: len(TAPS)] = TAPS
    return matrix
