"""Affine warps of images, without aliasing (ADA, appendix B.2).

An image is mirrored around its border, doubled in resolution by a wavelet's low-pass filter,
sampled bilinearly where the map says, and halved by the same filter, reversed. Mirroring and
filter are one banded matrix along each axis.

Sampling looks up four pixels for each. A TPU has no fast way to do so, nor to add gradients up
where they were looked up. There, images up to `DENSE_UP_TO` pixels are sampled by matrices: the
weights of all rows, and of all columns, in every pixel. Forward and backward on a v5e, ms by the
TPU compiler, which has no estimate of looking up (`python benchmarks/warp.py`, 2026-11-21):

    images                                  32 of 32   8 of 64   8 of 128   8 of 256
    matrices                                    0.25      0.56       4.93      38.79
    lookups, all but looking up                 0.50      0.45       2.08      11.31
    pixels looked up or added to, millions      1.48      1.25       4.60      17.57
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
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
DENSE_UP_TO = 256  # pixels along an axis
EDGE = len(TAPS) // 4  # pixels around the result that its filter reaches


def warp(images: Float[Array, "n h w c"], to_input: Float[Array, "n 3 3"]) -> Array:
    """Images [n, h, w, c] of which each pixel was looked up at another place.

    NOTE: the official code mirrors as many pixels as the batch's largest warp needs, at most all
    but one; this mirrors so many always, so no sample depends on another and shapes are static.

    Args:
        to_input: from a pixel of the result to its place in the input, as (x, y, 1) in pixels from
            the images' centre.
    """
    if max(images.shape[1:3]) > DENSE_UP_TO:
        return warp_by_lookup(images, to_input)
    found: Array = lax.platform_dependent(
        images, to_input, tpu=warp_by_matrices, default=warp_by_lookup
    )
    return found


def warp_by_lookup(images: Float[Array, "n h w c"], to_input: Float[Array, "n 3 3"]) -> Array:
    """As `warp`: four pixels for each."""
    height, width = images.shape[1:3]
    large = _along(images, _enlarge(height), _enlarge(width))
    x, y = _places(to_input, height, width)
    # Outside there is nothing, as in the first and the last pixel.
    x, y = jnp.clip(x, 0, large.shape[2] - 1), jnp.clip(y, 0, large.shape[1] - 1)
    return _along(bilinear(large, y, x), _reduce(height), _reduce(width))


def warp_by_matrices(images: Float[Array, "n h w c"], to_input: Float[Array, "n 3 3"]) -> Array:
    """As `warp`: all pixels for each."""
    n, height, width, _ = images.shape
    x, y = _places(to_input, height, width)

    def weights(place: Array, enlarge: np.ndarray) -> Array:
        """Of an axis' pixels, in each pixel of the doubled result: [n, 2 h 2 w, size]."""
        distance = jnp.abs(place.reshape(n, -1, 1) - jnp.arange(len(enlarge)))
        hats = jax.nn.relu(1 - distance).astype(images.dtype)
        return jnp.einsum("npj,ji->npi", hats, jnp.asarray(enlarge, images.dtype))

    rows, columns = weights(y, _enlarge(height)), weights(x, _enlarge(width))
    part = jnp.einsum("npw,nhwc->npch", columns, images)
    warped = jnp.sum(part * rows[:, :, None, :], axis=-1).reshape(n, *y.shape[1:], -1)
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
    def pixel(image: Array, row: Array, column: Array) -> Array:
        return image.at[row, column].get(mode="promise_in_bounds")

    def between(row: Array) -> Array:
        return pixel(images, row, left) * (1 - right) + pixel(images, row, left + 1) * right

    return between(top) * (1 - down) + between(top + 1) * down


def _places(to_input: Array, height: int, width: int) -> tuple[Array, Array]:
    """x and y [n, 2 h, 2 w] of the doubled result's pixels, as numbers of the doubled input's.

    Both sizes are those of the banded matrices, which add what is beyond an image's border.
    """
    x, y = (jnp.arange(2 * (size + 2 * EDGE)) + 1.0 - size - 2 * EDGE for size in (width, height))
    x, y = x[None, None, :] / 2, y[None, :, None] / 2  # in pixels from the centre

    def place(row: int, size: int) -> Array:
        a, b, c = (to_input[:, row, i, None, None] for i in range(3))
        return 2 * (a * x + b * y + c) - 0.5 + (len(_enlarge(size)) - 1) / 2

    return place(0, width), place(1, height)


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
