"""Low-pass filters, and a nonlinearity between two of them that makes no aliases (StyleGAN3).

A pointwise function makes frequencies that the sampling rate cannot hold. So an image is upsampled
first, the function applied there, and what is too high filtered away on the way back.
"""

import functools
import math

import numpy as np
from jaxtyping import Array, Float
from scipy import signal, special

from ganjax.layers.activation import bias_act
from ganjax.layers.filtering import Padding, Taps, upfirdn2d


@functools.lru_cache(maxsize=256)
def lowpass_taps(
    count: int, cutoff: float, width: float, rate: float, radial: bool = False
) -> np.ndarray | None:
    """Kaiser-windowed filter, float32, that sums to 1 (StyleGAN3, section 3.2 and appendix C.1).

    Args:
        count: of taps; 1: none is needed.
        cutoff: frequency, in the units of `rate`.
        width: of the transition band around it.
        rate: samples per unit.
        radial: the same in all directions, [count, count]; else [count], for either axis.
    """
    if count < 1:
        raise ValueError(f"a filter of {count} taps; set 1 (none) or more")
    if count == 1:
        return None
    if not radial:
        return signal.firwin(count, cutoff, width=width, fs=rate).astype(np.float32)
    x = (np.arange(count) - (count - 1) / 2) / rate
    r = np.pi * np.hypot(*np.meshgrid(x, x))
    # The transform of a disc: J1(2 c r) / r, which is c in the middle.
    jinc = np.where(r > 0, special.j1(2 * cutoff * r) / np.where(r > 0, r, 1.0), cutoff)
    beta = signal.kaiser_beta(signal.kaiser_atten(count, width / (rate / 2)))
    window = np.kaiser(count, beta)
    taps = jinc * np.outer(window, window)
    return (taps / taps.sum()).astype(np.float32)


def filtered_lrelu(
    x: Float[Array, "n h w c"],
    bias: Float[Array, "c"] | None = None,
    *,
    up_taps: Taps = None,
    down_taps: Taps = None,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    gain: float = math.sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip: bool = False,
) -> Float[Array, "n h2 w2 c"]:
    """Bias, upsampling, leaky ReLU, gain, clamp, downsampling (StyleGAN3, section 3.2).

    Args:
        up_taps, down_taps: [k] or [kh, kw]; None is the identity.
        padding: zeros around the upsampled image; negative ones crop.
        slope: of the leaky ReLU below zero.
        clamp: limit before downsampling; None: none.
        flip: correlate with the filters instead of convolving.
    """
    x = bias_act(x, bias)
    x = upfirdn2d(x, up_taps, up=up, padding=padding, flip=flip, gain=float(up**2))
    x = bias_act(x, None, "lrelu", slope=slope, gain=gain, clamp=clamp)
    return upfirdn2d(x, down_taps, down=down, flip=flip)


def symmetric_padding(
    before: tuple[int, int],
    after: tuple[int, int],
    *,
    up: int,
    down: int,
    taps: int,
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Padding of `filtered_lrelu` with which both grids have the same centre (appendix C.3).

    Args:
        before: (height, width) of what comes.
        after: (height, width) of what is wanted.
        taps: of both filters together.
    """

    def along(size: int, wanted: int) -> tuple[int, int]:
        # What downsampling needs, less what upsampling makes; filters take taps - 1 each.
        total = (wanted - 1) * down + 1 - size * up + taps - 2
        low = (total + up) // 2
        return low, total - low

    return along(before[0], after[0]), along(before[1], after[1])
