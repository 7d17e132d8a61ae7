"""Images moved as exactly as their pixels allow, and which pixels of the result are right.

What StyleGAN3 compares a generator's own motions with (Karras et al. 2021, appendices E.1 to E.3):
shifts by Lanczos filters, turns by filters that are band-limited before and after. Each sample of a
batch moves on its own. Masks are [n, h, w, 1], 1 where a result depends on no pixel beyond the
image's borders.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ganjax.layers.convolution import LAYOUT
from ganjax.layers.warp import bilinear

LOBES = 3  # of the Lanczos windows
REACH = 2 * LOBES  # pixels from a filter's centre to its end
SPAN = 64  # pixels either way in which filters are made, before they are cut
UP = 4  # resolution of what is turned, for bilinear lookup

Moved = tuple[Float[Array, "n h w c"], Float[Array, "n h w 1"]]


def shifted(x: Any, y: Any) -> Float[Array, "*n 3 3"]:
    """The transform of coordinates that moves the image by (x, y) widths, right and down."""
    x, y = jnp.broadcast_arrays(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))
    one, none = jnp.ones_like(x), jnp.zeros_like(x)
    rows = [one, none, -x, none, one, -y, none, none, one]
    return jnp.stack(rows, axis=-1).reshape(*x.shape, 3, 3)


def turned(angle: Any) -> Float[Array, "*n 3 3"]:
    """The transform of coordinates that turns the image by an angle, clockwise."""
    angle = jnp.asarray(angle, jnp.float32)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    one, none = jnp.ones_like(angle), jnp.zeros_like(angle)
    rows = [cosine, sine, none, -sine, cosine, none, none, none, one]
    return jnp.stack(rows, axis=-1).reshape(*angle.shape, 3, 3)


def transformed(image: Float[Array, "h w c"], matrix: Float[Array, "3 3"]) -> Float[Array, "h w c"]:
    """An image under a transform of its coordinates, looked up bilinearly, borders repeated."""
    height, width = image.shape[:2]
    x = (jnp.arange(width) + 0.5) / width - 0.5
    y = (jnp.arange(height)[:, None] + 0.5) / height - 0.5
    column, row = (matrix[i, 0] * x + matrix[i, 1] * y + matrix[i, 2] for i in range(2))
    row = jnp.clip((row + 0.5) * height - 0.5, 0, height - 1)
    column = jnp.clip((column + 0.5) * width - 0.5, 0, width - 1)
    return bilinear(image[None], row[None], column[None])[0]


def shift_whole(images: Float[Array, "n h w c"], pixels: Int[Array, "n 2"]) -> Moved:
    """Images moved by whole pixels, (down, right)."""
    moved = jax.vmap(lambda image, by: jnp.roll(image, by, axis=(0, 1)))(images, pixels)
    return moved, _inside(images, pixels, pixels)


def shift(images: Float[Array, "n h w c"], pixels: Float[Array, "n 2"]) -> Moved:
    """Images moved by parts of pixels, (down, right), by a Lanczos filter along each axis."""

    def matrices(size: int, by: Array) -> Array:
        """[n, out, in]."""
        whole = jnp.floor(by).astype(jnp.int32)[:, None, None]
        tap = jnp.arange(size)[:, None] - jnp.arange(size) - whole
        taps = jnp.arange(1 - LOBES, LOBES + 1) - (by - jnp.floor(by))[:, None]
        weights = jnp.sinc(taps) * jnp.sinc(taps / LOBES)
        weights = weights / jnp.sum(weights, axis=1, keepdims=True)
        number = jnp.clip(tap + LOBES - 1, 0, 2 * LOBES - 1)
        there = (tap > -LOBES) & (tap <= LOBES)
        rows = jax.vmap(lambda w, i: w[i])(weights, number)
        return jnp.where(there, rows, 0).astype(images.dtype)

    down, right = (matrices(images.shape[axis + 1], pixels[:, axis]) for axis in (0, 1))
    moved = jnp.einsum("nhwc,nHh,nWw->nHWc", images, down, right, precision="highest")
    whole = jnp.floor(pixels).astype(jnp.int32)
    return moved, _inside(images, whole + LOBES, whole - (LOBES - 1))


def turn(images: Float[Array, "n h w c"], angles: Float[Array, "n"]) -> Moved:
    """Images turned around their centres, counter-clockwise, in radians."""
    turned, masks = lax.map(lambda pair: _turn(*pair), (images, angles))
    return turned, masks


def turn_spectrum(images: Float[Array, "n h w c"], angles: Float[Array, "n"]) -> Moved:
    """Images that stay in place and lose what they would, were they turned back and forth again.

    Args:
        angles: by which the images have been turned already.
    """

    def filtered(pair: tuple[Array, Array]) -> Array:
        image, angle = pair
        taps = turn_filter(-angle, 1).astype(image.dtype)
        return _correlate(image, jnp.flip(taps)[..., None], taps.shape[0] // 2)[..., 0]

    border = REACH - 1
    mask = np.zeros((1, *images.shape[1:3], 1), images.dtype)
    mask[:, border:-border, border:-border] = 1
    return lax.map(filtered, (images, angles)), jnp.broadcast_to(
        mask, (len(images), *mask.shape[1:])
    )


def turn_filter(angle: Float[Array, ""], up: int) -> Float[Array, "k k"]:
    """What is within the band before and after a turn, at `up` times the resolution, of unit gain.

    The product of two convolutions: of both orientations' sinc filters, and of their Lanczos
    windows. `2 * up * REACH - 1` taps, to be convolved with.
    """
    x, y, straight, window = _straight(up)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    right, down = cosine * x + sine * y, cosine * y - sine * x

    def both(transform: np.ndarray, filtered: Array) -> Array:
        return jnp.fft.irfft2(transform * jnp.fft.rfft2(filtered), s=x.shape)

    sinc, lanczos = (jnp.sinc(right) * jnp.sinc(down), _window(right) * _window(down))
    product = both(straight, sinc) * both(window, lanczos)
    cut = (SPAN - REACH) * up
    middle = jnp.roll(product, (SPAN * up - 1,) * 2, axis=(0, 1))[cut:-cut, cut:-cut]
    phases = jnp.pad(middle, ((0, 1), (0, 1))).reshape(2 * REACH, up, 2 * REACH, up)
    phases = phases / jnp.sum(phases, axis=(0, 2), keepdims=True)
    return phases.reshape(2 * REACH * up, 2 * REACH * up)[:-1, :-1] / up**2


def _window(x: Any) -> Array:
    return jnp.where(jnp.abs(x) < LOBES, jnp.sinc(x / LOBES), 0)


@functools.cache
def _straight(up: int) -> tuple[np.ndarray, ...]:
    """Places (x, y), and the transforms of sinc filter and window without a turn."""
    taps = np.roll((np.arange(2 * SPAN * up - 1) + 1) / up - SPAN, 1 - SPAN * up)
    y, x = np.meshgrid(taps, taps, indexing="ij")
    window = np.where(np.abs(taps) < LOBES, np.sinc(taps / LOBES), 0)
    both = (np.sinc(x) * np.sinc(y), np.outer(window, window))
    transforms = (np.fft.rfft2(filtered).astype(np.complex64) for filtered in both)
    return (x.astype(np.float32), y.astype(np.float32), *transforms)


def _turn(image: Array, angle: Array) -> tuple[Array, Array]:
    height, width, _ = image.shape
    taps = turn_filter(angle, UP).astype(image.dtype)
    half = taps.shape[0] // 2
    # Tap t of phase p is number UP t + p - UP / 2 of the filter.
    front = UP // 2
    back = -(len(taps) + front) % UP
    phases = jnp.pad(taps * UP**2, ((front, back), (front, back)))
    count = phases.shape[0] // UP
    kernel = phases.reshape(count, UP, count, UP).transpose(0, 2, 1, 3).reshape(count, count, -1)
    large = _correlate(image, jnp.flip(kernel, (0, 1)), count - 1)  # [h + t, w + t, c, UP UP]
    large = large.reshape(*large.shape[:3], UP, UP).transpose(0, 3, 1, 4, 2)
    large = large.reshape(large.shape[0] * UP, large.shape[2] * UP, -1)
    x = jnp.arange(width) + 0.5 - width / 2
    y = (jnp.arange(height) + 0.5 - height / 2)[:, None]
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    # Pixels of the enlarged image, whose border of `half` pixels is no part of the image.
    column = UP * (cosine * x - sine * y + width / 2) + half
    row = UP * (sine * x + cosine * y + height / 2) + half
    limits = (UP * height + 2 * half - 1, UP * width + 2 * half - 1)
    looked = bilinear(
        large[None], jnp.clip(row, 0, limits[0])[None], jnp.clip(column, 0, limits[1])[None]
    )[0]
    border = 2 * half + 1
    inside = [
        (jnp.round(place) >= border) & (jnp.round(place) <= limit - border)
        for place, limit in zip((row, column), limits, strict=True)
    ]
    return looked, (inside[0] & inside[1]).astype(image.dtype)[..., None]


def _correlate(image: Array, kernel: Array, padding: int) -> Array:
    """[h, w, c] with [k, k, o], channel by channel: [h2, w2, c, o]."""
    y = lax.conv_general_dilated(
        image.transpose(2, 0, 1)[..., None],
        kernel[:, :, None],
        (1, 1),
        [(padding, padding)] * 2,
        dimension_numbers=LAYOUT,
        precision="highest",
    )
    return y.transpose(1, 2, 0, 3)


def _inside(images: Array, low: Array, high: Array) -> Array:
    """1 from `low` on, (down, right), and until `high` beyond the other border."""

    def along(axis: int) -> Array:
        size = images.shape[axis + 1]
        place = jnp.arange(size)
        first, last = jnp.maximum(low[:, axis], 0), jnp.minimum(high[:, axis], 0) + size
        return (place >= first[:, None]) & (place < last[:, None])

    mask = along(0)[:, :, None] & along(1)[:, None, :]
    return mask.astype(images.dtype)[..., None]
