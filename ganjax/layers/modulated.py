"""Convolutions whose weights a style scales, sample by sample (StyleGAN2, section 2.2)."""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ganjax.layers.convolution import conv2d
from ganjax.layers.equalized import EqualizedDense, convolve, resampling_taps
from ganjax.layers.folding import tiled
from ganjax.layers.initializers import Normal

DEMODULATION_EPS = 1e-8

# What is added to the squared length of modulated weights: a number, or what makes one for each
# sample and output channel of the styles and the kernel's mean squares.
Eps = float | Callable[[Float[Array, "n i"], Float[Array, "#n o"]], Float[Array, "#n o"]]


def modulated_conv2d(
    x: Float[Array, "n h w _"],
    kernel: Float[Array, "k k i o"],
    styles: Float[Array, "n i"],
    *,
    demodulate: bool = True,
    eps: Eps = DEMODULATION_EPS,
    operation: Callable[[Array, Array], Array] = conv2d,
) -> Float[Array, "n h2 w2 _"]:
    """Convolution with `kernel * styles`, each output channel divided by its weights' length.

    Scales go to the input and to the output instead, where they mean the same: one convolution for
    the whole batch. A kernel for each sample costs a TPU 5 to 70 times as much.

    Args:
        demodulate: divide by the length; the expected variance of the output is then 1.
        eps: added to the squared length.
        operation: `(x, kernel) -> y`, linear in both and with a kernel common to all pixels; images
            may be folded (`layers/folding.py`).
    """
    # NOTE: the official half-precision path also rescales weights and styles, lest float16
    # overflows; bfloat16 has the range of float32.
    y = operation(_scaled(x, styles), kernel)
    return _scaled(y, demodulation(kernel, styles, eps)) if demodulate else y


def _scaled(x: Array, scale: Array) -> Array:
    """`x`, which may be folded, with its channels scaled, in its own dtype."""
    # Multiplied wide, so that the scale's gradient, a sum over all pixels, is wide, too.
    return (x * tiled(scale, x.shape[-1])[:, None, None, :]).astype(x.dtype)


def demodulation(
    kernel: Float[Array, "k k i o"],
    styles: Float[Array, "n i"],
    eps: Eps = DEMODULATION_EPS,
) -> Float[Array, "n o"]:
    """What output channels are scaled by: 1 over the length of the modulated weights."""
    squares = jnp.sum(jnp.square(kernel), axis=(0, 1))  # [i, o]
    length = jnp.matmul(jnp.square(styles).astype(kernel.dtype), squares, precision="highest")
    mean = jnp.mean(jnp.square(kernel), axis=(0, 1, 2))[None]
    return lax.rsqrt(length + (eps(styles, mean) if callable(eps) else eps))


def resampled(taps: Any, up: int, pixels: int = 1) -> Callable[[Array, Array], Array]:
    """A convolution that multiplies the resolution, as `modulated_conv2d` takes it."""
    taps = resampling_taps(taps, up)
    return functools.partial(convolve, taps=taps, up=up, pixels=pixels)


class ModulatedConv(nn.Module):
    """Modulated convolution with the affine map from w to its style.

    The module that a family passes as `conv`, and that a variant replaces: called with features
    and w, it returns features. Parameters: `kernel` [k, k, i, o] and the dense layer `affine`.

    Attributes:
        features: output channels.
        up: factor of the resolution.
        demodulate: False: the style is scaled by `1 / sqrt(fan in)` instead.
        eps: of the demodulation.
        taps: of the resampling filter.
        dtype: of the computation; None: as input and kernel promote.
        pixels: of a row that lie side by side, at the higher resolution (`layers/folding.py`).
    """

    features: int
    kernel_size: int = 3
    up: int = 1
    demodulate: bool = True
    eps: Eps = DEMODULATION_EPS
    taps: Any = (1, 3, 3, 1)
    dtype: Any = None
    pixels: int = 1

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n h w i"],
        w: Float[Array, "n d"],
        operation: Callable[[Array, Array], Array] | None = None,
    ) -> Float[Array, "n h2 w2 o"]:
        """`operation`: as of `modulated_conv2d`; None: a convolution."""
        channels = x.shape[-1] * self.up // self.pixels if self.pixels > 1 else x.shape[-1]
        shape = (self.kernel_size, self.kernel_size, channels, self.features)
        kernel = self.param("kernel", Normal(), shape)
        styles = EqualizedDense(channels, initial_bias=1.0, name="affine")(w)
        if not self.demodulate:
            styles = styles / math.sqrt(math.prod(shape[:-1]))
        operation = operation or resampled(self.taps, self.up, self.pixels)
        x = x.astype(self.dtype or jnp.promote_types(x.dtype, kernel.dtype))
        return modulated_conv2d(
            x, kernel, styles, demodulate=self.demodulate, eps=self.eps, operation=operation
        )
