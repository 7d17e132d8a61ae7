"""Resampling with finite impulse response filters, alone and around a convolution.

Images are upsampled by zeros between pixels, padded or cropped, filtered, and every so many pixels
kept, in this order (the definition of StyleGAN2's `upfirdn2d`). A separable filter is applied as a
banded matrix along each axis. On a CPU that is some thirty times faster than a depthwise
convolution, and by the TPU compiler's estimate it is the fastest as well, but for `LARGE` images of
`MANY` channels that a short filter upsamples. Its estimates for v5e, bfloat16, in 10^6 cycles with
gradients:

    filter, 4 images      up 128, 128 ch    up 256, 128 ch    up 512, 32 ch    down 256, 128 ch
    banded                          1.47             11.00             5.32                1.86
    depthwise                       2.01              8.04            24.24                5.11

    3x3 up, 8 images    16, 512 ch    32, 512 ch    64, 256 ch    128, 256 to 128    128 to 64 ch
    transposed, filter        0.78          2.83          1.90              11.07            9.98
    filter, convolution       1.04          4.03          2.68              11.84            5.40
    phases as channels        2.16          6.08          2.53
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ganjax.layers.convolution import LAYOUT, conv2d, conv2d_full, conv2d_valid

LARGE = 256  # pixels along an axis of what upsampling makes
MANY = 128  # channels
SEPARABLE_FROM = 8  # taps; `setup_filter` makes shorter filters two-dimensional

Taps = Any  # a NumPy array [k] or [kh, kw]; a traced one where it is one-dimensional
Factors = int | tuple[int, int]  # one number, or (vertical, horizontal)
Padding = int | tuple[tuple[int, int], tuple[int, int]]  # or ((top, bottom), (left, right))


def setup_filter(
    taps: Sequence[Any] | np.ndarray | None,
    *,
    normalize: bool = True,
    flip: bool = False,
    gain: float = 1.0,
    separable: bool | None = None,
) -> np.ndarray:
    """A filter [k] or [kh, kw], float32, from its taps; None is the identity.

    Args:
        taps: [k], for both axes, or [kh, kw].
        normalize: make the taps sum to 1.
        flip: reverse their order.
        gain: of the whole two-dimensional filter.
        separable: keep one-dimensional taps so; None: from `SEPARABLE_FROM` taps on.
    """
    f = np.atleast_1d(np.asarray(1.0 if taps is None else taps, np.float64))
    if f.ndim > 2 or not f.size:
        raise ValueError(f"taps have shape {f.shape}; give [k] for both axes, or [kh, kw]")
    if separable is None:
        separable = f.ndim == 1 and f.size >= SEPARABLE_FROM
    if f.ndim == 1 and not separable:
        f = np.outer(f, f)
    if normalize:
        f = f / f.sum()
    if flip:
        f = np.flip(f)
    return (f * gain ** (f.ndim / 2)).astype(np.float32)


def upfirdn2d(
    x: Float[Array, "n h w c"],
    taps: Taps,
    *,
    up: Factors = 1,
    down: Factors = 1,
    padding: Padding = 0,
    flip: bool = False,
    gain: float = 1.0,
) -> Float[Array, "n h2 w2 c"]:
    """Upsample with zeros, pad, filter, downsample.

    Args:
        taps: as `setup_filter` gives them; None is the identity.
        up: each pixel is followed by `up - 1` zeros.
        padding: zeros around the upsampled image; negative ones crop.
        flip: correlate instead of convolving.
        gain: factor of the result.
    """
    ups, downs, pads = _pair(up), _pair(down), _padding(padding)
    if taps is None and (*ups, *downs, *pads[0], *pads[1], gain) == (1, 1, 1, 1, 0, 0, 0, 0, 1):
        return x
    taps = np.ones((1, 1), np.float32) if taps is None else taps
    vertical, horizontal = separate(taps)

    def depthwise(x: Array) -> Array:
        kernel = taps if taps.ndim == 2 else taps[:, None] * taps[None, :]
        return _depthwise(x, kernel, ups, downs, pads, flip) * jnp.asarray(gain, x.dtype)

    def banded(x: Array) -> Array:
        rows = _band(vertical, x.shape[1], ups[0], downs[0], pads[0], flip) * gain
        return _along(x, rows, _band(horizontal, x.shape[2], ups[1], downs[1], pads[1], flip))

    if vertical is None:
        return _summed(x, taps * gain, ups, downs, pads, flip)
    long = len(vertical) >= SEPARABLE_FROM  # a depthwise kernel has the square of so many taps
    if x.shape[-1] < MANY or long or not _grows_large(x, max(ups)):
        return banded(x)
    return lax.platform_dependent(x, cpu=banded, default=depthwise)


def _summed(x, taps, ups, downs, pads, flip):
    """For filters that no two axes make: the sum of few that do, as banded matrices.

    On a CPU some forty times faster than a depthwise convolution. Round filters have rank 2 to 4.
    """
    vertical, strengths, horizontal = np.linalg.svd(np.asarray(taps, np.float64))
    rank = int(np.sum(strengths > 1e-7 * strengths[0]))

    def bands(factors: np.ndarray, axis: int) -> np.ndarray:
        size, up, down, pad = x.shape[axis + 1], ups[axis], downs[axis], pads[axis]
        return np.stack([_band(f, size, up, down, pad, flip) for f in factors])

    rows = bands((vertical[:, :rank] * strengths[:rank]).T, 0)
    y = jnp.einsum("nhwc,rHh->nrHwc", x, jnp.asarray(rows, x.dtype))
    return jnp.einsum("nrHwc,rWw->nHWc", y, jnp.asarray(bands(horizontal[:rank], 1), x.dtype))


def _grows_large(x: Array, up: int) -> bool:
    return up > 1 and max(x.shape[1:3]) * up >= LARGE


def upsample2d(
    x: Float[Array, "n h w c"], taps: Taps, up: int = 2, *, flip: bool = False, **more: Any
) -> Float[Array, "n h2 w2 c"]:
    """`up` times as many pixels, of the same brightness and in the same place.

    Args:
        more: `padding` beyond what keeps the size at `up` times, and `gain`.
    """
    extra, gain = _padding(more.get("padding", 0)), more.get("gain", 1.0)
    pads = _widened(extra, [((k + up - 1) // 2, (k - up) // 2) for k in _sizes(taps)])
    return upfirdn2d(x, taps, up=up, padding=pads, flip=flip, gain=float(gain * up**2))


def downsample2d(
    x: Float[Array, "n h w c"], taps: Taps, down: int = 2, *, flip: bool = False, **more: Any
) -> Float[Array, "n h2 w2 c"]:
    """One in `down` pixels; `more` as of `upsample2d`."""
    extra, gain = _padding(more.get("padding", 0)), more.get("gain", 1.0)
    pads = _widened(extra, [((k - down + 1) // 2, (k - down) // 2) for k in _sizes(taps)])
    return upfirdn2d(x, taps, down=down, padding=pads, flip=flip, gain=gain)


def filter2d(
    x: Float[Array, "n h w c"], taps: Taps, *, flip: bool = False, **more: Any
) -> Float[Array, "n h2 w2 c"]:
    """The filter alone; `more` as of `upsample2d`."""
    extra, gain = _padding(more.get("padding", 0)), more.get("gain", 1.0)
    pads = _widened(extra, [(k // 2, (k - 1) // 2) for k in _sizes(taps)])
    return upfirdn2d(x, taps, padding=pads, flip=flip, gain=gain)


def conv2d_resample(
    x: Float[Array, "n h w i"],
    kernel: Float[Array, "k k i_in_group o"],
    taps: Taps = None,
    *,
    up: int = 1,
    down: int = 1,
    padding: Padding | None = None,
    groups: int = 1,
    flip: bool = False,
) -> Float[Array, "n h2 w2 o"]:
    """Upsample, correlate with a kernel, downsample; each resampling through the filter.

    Filters and kernel commute, so they are applied where it costs least: a 1x1 kernel at the lower
    resolution; others doubling as a transposed convolution before the filter, halving as a strided
    one after it.

    Args:
        taps: of the resampling, as `setup_filter` gives them.
        padding: in pixels of the image that the kernel sees; None keeps the size.
        groups: of channels.
        flip: correlate with the filter instead of convolving.
    """
    size = kernel.shape[0]
    taps = np.ones((1, 1), np.float32) if taps is None else taps
    pads = _padding(size // 2 if padding is None else padding)
    if up > 1:
        pads = _widened(pads, [((k + up - 1) // 2, (k - up) // 2) for k in _sizes(taps)])
    if down > 1:
        pads = _widened(pads, [((k - down + 1) // 2, (k - down) // 2) for k in _sizes(taps)])
    plain = groups == 1 and size % 2 == 1 and padding is None
    if up == down == 1:
        return conv2d(x, kernel) if plain else _correlate(x, kernel, pads, groups)
    if size == 1 and up == 1:
        x = upfirdn2d(x, taps, down=down, padding=pads, flip=flip)
        return _correlate(x, kernel, _padding(0), groups)
    if size == 1 and down == 1:
        x = _correlate(x, kernel, _padding(0), groups)
        return upfirdn2d(x, taps, up=up, padding=pads, flip=flip, gain=float(up**2))
    phased = plain and separate(taps)[0] is not None
    if up == 2 and down == 1 and phased:
        few = kernel.shape[-1] < MANY and _grows_large(x, up)
        accelerated = _filter_first if few else _up
        return lax.platform_dependent(
            x,
            kernel,
            cpu=lambda x, kernel: _up_by_phases(x, kernel, taps, pads, flip),
            default=lambda x, kernel: accelerated(x, kernel, taps, up, pads, groups, flip),
        )
    if up == 1 and down == 2 and phased and x.shape[1] % 2 == x.shape[2] % 2 == 0:
        return lax.platform_dependent(
            x,
            kernel,
            cpu=lambda x, kernel: _down_by_phases(x, kernel, taps, pads, flip),
            default=lambda x, kernel: _down(x, kernel, taps, down, pads, groups, flip),
        )
    if down == 1:
        return _up(x, kernel, taps, up, pads, groups, flip)
    if up == 1:
        return _down(x, kernel, taps, down, pads, groups, flip)
    x = _filter_first(x, kernel, taps, up, pads, groups, flip)
    return upfirdn2d(x, taps, down=down, flip=flip)


def _up(x, kernel, taps, up, pads, groups, flip):
    """A transposed convolution, which makes everything that touches a pixel, then the filter."""
    reach = kernel.shape[0] - 1
    y = _correlate(x, kernel, _padding(reach), groups, spread=up)
    # Without the zeros after the last pixel, and with what the convolution has padded.
    pads = _widened(pads, [(-reach, up - 1 - reach)] * 2)
    return upfirdn2d(y, taps, padding=pads, flip=flip, gain=float(up**2))


def _filter_first(x, kernel, taps, up, pads, groups, flip):
    """As `_up`, in the plain order: cheaper where it makes many pixels of few channels."""
    x = upfirdn2d(x, taps, up=up, padding=pads, flip=flip, gain=float(up**2))
    return _correlate(x, kernel, _padding(0), groups)


def _down(x, kernel, taps, down, pads, groups, flip):
    x = upfirdn2d(x, taps, padding=pads, flip=flip)
    return _correlate(x, kernel, _padding(0), groups, stride=down)


def _up_by_phases(x, kernel, taps, pads, flip):
    """As `_up` by 2. XLA's CPU compiler has no fast form of an input with holes, this has none.

    One convolution at the lower resolution makes the even and the odd pixels as channels, and the
    banded matrices of the filter read them from there.
    """
    n, h, w, _ = x.shape
    size, out = kernel.shape[0], kernel.shape[-1]
    half = size // 2
    # Pixel 2 a + p sees inputs a + d - half through taps 2 d - p: of a kernel with a zero in front,
    # number 2 d + (1 - p).
    k = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
    k = k.reshape(half + 1, 2, half + 1, 2, -1, out)[:, ::-1, :, ::-1]
    k = k.transpose(0, 2, 4, 1, 3, 5).reshape(half + 1, half + 1, -1, 4 * out)
    y = conv2d_full(x, k)
    y = y.reshape(n, h + half, w + half, 2, 2, out)
    # The transposed convolution has a pixel less than there are phases.
    pads = _widened(pads, [(1 - size, 1 - size)] * 2)
    rows, columns = (
        _band(t, 2 * (length + half), 1, 1, pad, flip).reshape(-1, length + half, 2)
        for t, length, pad in zip(separate(taps), (h, w), pads)
    )
    y = jnp.einsum("nabpqo,Hap->nHbqo", y, (4 * rows).astype(y.dtype))
    return jnp.einsum("nHbqo,Wbq->nHWo", y, columns.astype(y.dtype))


def _down_by_phases(x, kernel, taps, pads, flip):
    """As `_down` by 2, without the gradient of a strided convolution, an input with holes."""
    n, h, w, c = x.shape
    size, out = kernel.shape[0], kernel.shape[-1]
    half = size // 2
    pads = _widened(pads, [(0, 1)] * 2)  # an even number of pixels
    rows, columns = (
        _band(t, length, 1, 1, pad, flip) for t, length, pad in zip(separate(taps), (h, w), pads)
    )
    y = _along(x, rows, columns)
    heights, widths = y.shape[1] // 2, y.shape[2] // 2
    y = y.reshape(n, heights, 2, widths, 2, c).transpose(0, 1, 3, 2, 4, 5)
    k = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    k = k.reshape(half + 1, 2, half + 1, 2, c, out).transpose(0, 2, 1, 3, 4, 5)
    return conv2d_valid(
        y.reshape(n, heights, widths, 4 * c), k.reshape(half + 1, half + 1, 4 * c, out)
    )


def _correlate(x, kernel, pads, groups, *, stride=1, spread=1):
    return lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        (stride, stride),
        pads,
        lhs_dilation=(spread, spread),
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
    )


def _depthwise(x, taps, ups, downs, pads, flip):
    """For any filter: a kernel a channel."""
    channels = x.shape[-1]
    kernel = jnp.asarray(taps if flip else taps[::-1, ::-1], x.dtype)[:, :, None, None]
    # A dilation has no zeros after the last pixel.
    pads = [(low, high + up - 1) for (low, high), up in zip(pads, ups)]
    return lax.conv_general_dilated(
        x,
        jnp.tile(kernel, (1, 1, 1, channels)),
        downs,
        pads,
        lhs_dilation=ups,
        dimension_numbers=LAYOUT,
        feature_group_count=channels,
    )


def _along(x: Array, rows: Any, columns: Any) -> Array:
    """A matrix along each axis."""
    x = jnp.einsum("nhwc,Hh->nHwc", x, jnp.asarray(rows, x.dtype))
    return jnp.einsum("nhwc,Ww->nhWc", x, jnp.asarray(columns, x.dtype))


def _band(taps: Taps, size: int, up: int, down: int, pads: tuple[int, int], flip: bool) -> Any:
    """[out, in]: what `upfirdn2d` does along an axis of `size` pixels."""
    count = len(taps)
    length = size * up + sum(pads) - count + 1
    if length < 1:
        raise ValueError(
            f"{size} pixels upsampled by {up} and padded by {pads} are fewer than the {count} taps"
            " of the filter; pad more"
        )
    out = np.arange(-(-length // down))[:, None]
    number = np.arange(size)[None, :] * up + pads[0] - out * down
    inside = (number >= 0) & (number < count)
    number = np.clip(number if flip else count - 1 - number, 0, count - 1)
    return taps[number] * inside


def separate(taps: Taps) -> tuple[Any, Any]:
    """Vertical and horizontal taps whose product the filter is; (None, None) if there are none."""
    if taps.ndim == 1:
        return taps, taps
    row, column = np.unravel_index(np.argmax(np.abs(taps)), taps.shape)
    vertical, horizontal = taps[:, column], taps[row] / taps[row, column]
    if np.allclose(np.outer(vertical, horizontal), taps, rtol=0, atol=1e-6 * np.abs(taps).max()):
        return vertical, horizontal
    return None, None


def _sizes(taps: Taps) -> tuple[int, int]:
    if taps is None:
        return 1, 1
    return taps.shape[0], taps.shape[-1]


def _pair(factors: Factors) -> tuple[int, int]:
    return (factors, factors) if isinstance(factors, int) else factors


def _padding(padding: Padding) -> tuple[tuple[int, int], tuple[int, int]]:
    return ((padding, padding),) * 2 if isinstance(padding, int) else padding


def _widened(pads: Any, by: Sequence[tuple[int, int]]) -> Any:
    return tuple((low + a, high + b) for (low, high), (a, b) in zip(pads, by))
