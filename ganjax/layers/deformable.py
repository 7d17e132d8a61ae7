"""Convolution at variable places (Dai et al., 2017), weighted (Zhu et al., 2019).

Each tap reads its input at a place of its own, between pixels by bilinear interpolation, which is
the same as a matrix from all pixels to all places, most of it zero: a product of two hats, one
along each axis. What is cheapest depends on the machine; `_places` is where it is chosen:

- CPU: gather the four pixels around each place;
- others: that matrix, made on the fly and multiplied, up to `DENSE` pixels; a gather for more.

By the TPU compiler's estimate a gather of 512 channels takes 2 to 7 times as long as the matrix,
from 4x4 to 32x32, and that without looking up, of which it has none (`benchmarks/blocks.py`). The
matrix costs 16 times as much at twice the resolution, the gather 4 times.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

DENSE = 64 * 64  # pixels of an image whose matrix is multiplied out
ENTRIES = 9 * 2**20  # of the matrix of one sample that are in memory at a time: 3x3 at 32x32


def deformable_conv2d(
    x: Float[Array, "n h w i"],
    kernel: Float[Array, "k k i o"],
    offsets: Float[Array, "n h w taps 2"],
    mask: Float[Array, "n h w taps"] | None = None,
) -> Float[Array, "n h w o"]:
    """`y(p) = sum_k kernel_k mask_k(p) x(p + p_k + offsets_k(p))`, in the dtype of `x`.

    Equation 2 of MTM, with the mask of Deformable ConvNets v2 (equation 1). Outside of the image is
    zero; a place less than a pixel outside still sees the border.

    Args:
        kernel: of an odd size; its taps are counted row by row.
        offsets: in pixels, (down, right), of each tap at each place of the output. Where a place
            lies on a pixel, its gradient is that towards the next pixel down and right.
        mask: factor of each tap at each place; None: 1.

    Raises:
        ValueError: offsets that are not of this image and kernel.
    """
    n, h, w, _ = x.shape
    size = kernel.shape[0]
    if offsets.shape != (n, h, w, size * size, 2):
        raise ValueError(
            f"offsets have shape {offsets.shape}; images {x.shape} and a {size}x{size} kernel want"
            f" {(n, h, w, size * size, 2)}: (down, right) of each tap at each pixel"
        )
    if mask is None:
        mask = jnp.ones(offsets.shape[:-1], jnp.float32)
    wide = jnp.promote_types(offsets.dtype, jnp.float32)
    grid = _indices(h, w)[:, None] + _indices(size, size) - size // 2  # [p, taps, 2]
    places = offsets.astype(wide).reshape(n, h * w, -1, 2) + grid
    mask = mask.astype(wide).reshape(n, h * w, -1)
    y = _places(x, kernel.astype(x.dtype), places, mask)
    return y.reshape(n, h, w, -1)


def _indices(h: int, w: int) -> np.ndarray:
    """[p, 2]: (row, column) of all pixels."""
    return np.indices((h, w)).reshape(2, -1).T


def _places(x: Array, kernel: Array, places: Array, mask: Array) -> Array:
    """[n, p, o] from places [n, p, taps, 2], by the formulation that suits the machine."""
    if x.shape[1] * x.shape[2] > DENSE:
        return gathered(x, kernel, places, mask)
    return lax.platform_dependent(x, kernel, places, mask, cpu=gathered, default=multiplied)


def gathered(
    x: Float[Array, "n h w i"],
    kernel: Float[Array, "k k i o"],
    places: Float[Array, "n p taps 2"],
    mask: Float[Array, "n p taps"],
) -> Float[Array, "n p o"]:
    """By reading the four pixels around each place."""
    n, h, w, channels = x.shape
    # Each pixel with its neighbours right, down, and down right; there is a border of zeros.
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    four = [x[:, down : h + 1 + down, right : w + 1 + right] for down in (0, 1) for right in (0, 1)]
    pixels = jnp.stack(four, axis=3).reshape(n, -1, 4 * channels)
    low = jnp.floor(lax.stop_gradient(places))
    share = places - low  # of the pixel after, along each axis
    inside = jnp.all((low >= -1) & (low < np.array([h, w])), axis=-1)
    row, column = jnp.moveaxis(jnp.clip(low + 1, 0, np.array([h, w])).astype(jnp.int32), -1, 0)
    index = (row * (w + 1) + column).reshape(n, -1, 1)
    found = jnp.take_along_axis(pixels, index, axis=1).reshape(*inside.shape, 2, 2, channels)
    shares = jnp.stack([1 - share, share], axis=-1)  # [n, p, taps, 2, 2]: axis, before or after
    shares = shares[..., 0, :, None] * shares[..., 1, None, :]
    shares = (shares * jnp.where(inside, mask, 0)[..., None, None]).astype(x.dtype)
    columns = jnp.einsum("npkyxc,npkyx->npkc", found, shares)
    return jnp.einsum("npkc,kco->npo", columns, kernel.reshape(-1, channels, kernel.shape[-1]))


def multiplied(
    x: Float[Array, "n h w i"],
    kernel: Float[Array, "k k i o"],
    places: Float[Array, "n p taps 2"],
    mask: Float[Array, "n p taps"],
) -> Float[Array, "n p o"]:
    """By a matrix from all pixels of all taps to all places, some places at a time."""
    n, h, w, _ = x.shape
    taps = places.shape[2]
    # First to the output's channels, so that the taps are summed within one product.
    seen = jnp.einsum("nhwc,kco->nkhwo", x, kernel.reshape(taps, -1, kernel.shape[-1]))
    seen = seen.reshape(n, taps * h * w, -1)
    pixels = _indices(h, w)

    def block(places: Array, mask: Array) -> Array:
        hats = (_hat(jnp.subtract(pixels[:, axis], places[..., axis, None])) for axis in (0, 1))
        matrix = math.prod(hats, start=mask[..., None]).astype(x.dtype)  # [n, b, taps, pixels]
        return jnp.einsum("nbq,nqo->nbo", matrix.reshape(n, -1, taps * h * w), seen)

    return _in_blocks(block, places, mask, max(ENTRIES // (taps * h * w), 1))


def _hat(distance: Array) -> Array:
    """`max(1 - |distance|, 0)` whose gradients are those from the right of a place.

    By the symmetric rule a place on a pixel has none, and MTM starts with all places on pixels.
    """
    within = (distance > -1) & (distance <= 1)
    return jnp.where(within, jnp.where(distance <= 0, 1 + distance, 1 - distance), 0)


def _in_blocks(
    function: Callable[[Array, Array], Array], places: Array, mask: Array, size: int
) -> Array:
    """`function(places, mask)` over `size` places at a time; what it makes is not kept."""
    n, count = places.shape[:2]
    if count <= size:
        return function(places, mask)
    blocks = -(-count // size)
    while count % blocks:
        blocks += 1

    def split(a: Array) -> Array:
        return a.reshape(n, blocks, -1, *a.shape[2:]).swapaxes(0, 1)

    y = lax.map(lambda block: jax.checkpoint(function)(*block), (split(places), split(mask)))
    return y.swapaxes(0, 1).reshape(n, count, -1)
