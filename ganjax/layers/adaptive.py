"""Modulated convolutions whose kernel a sample mixes for itself (GigaGAN, section 3.1; Aurora)."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ganjax.layers.convolution import conv2d
from ganjax.layers.equalized import EqualizedDense
from ganjax.layers.initializers import Normal
from ganjax.layers.modulated import DEMODULATION_EPS, Eps, resampled


def adaptive_conv2d(
    x: Float[Array, "n h w i"],
    kernels: Float[Array, "e k k i o"],
    weights: Float[Array, "n e"],
    styles: Float[Array, "n i"],
    *,
    demodulate: bool = True,
    eps: Eps = DEMODULATION_EPS,
    operation: Callable[[Array, Array], Array] = conv2d,
) -> Float[Array, "n h2 w2 o"]:
    """`modulated_conv2d` with the kernel `sum_e weights_e kernels_e` of each sample.

    As the mixture is linear, it is one convolution for the whole batch, of the input repeated with
    each kernel's weight. A kernel for each sample would be a grouped convolution, which costs a TPU
    more as long as there are fewer than about six kernels.

    Args:
        demodulate, eps, operation: as of `modulated_conv2d`.
    """
    n, h, w, channels = x.shape
    count, size = kernels.shape[:2]
    scales = weights[:, :, None] * styles[:, None]  # [n, e, i]
    x = (x[:, :, :, None] * scales[:, None, None]).astype(x.dtype).reshape(n, h, w, -1)
    kernel = jnp.moveaxis(kernels, 0, 2).reshape(size, size, count * channels, -1)
    y = operation(x, kernel)
    if not demodulate:
        return y
    # The mixture's squares, summed over its taps, without making the mixture. NOTE: as products of
    # matrices a TPU would lay kernels out with their few taps along 128 lanes: 43 times the memory.
    products = jnp.sum(kernels[:, None] * kernels, axis=(2, 3))  # [e, f, i, o]
    pairs = weights[:, :, None] * weights[:, None]  # [n, e, f]
    length = jnp.einsum("ni,efio->nefo", jnp.square(styles), products, precision="highest")
    length = jnp.sum(pairs[..., None] * length, axis=(1, 2))
    # Rounding may leave a length of zero a little below it.
    length = jnp.maximum(length, 0.0)
    mean = jnp.sum(products, axis=2) / (size * size * channels)  # [e, f, o]
    mean = jnp.sum(pairs[..., None] * mean, axis=(1, 2))
    length = length + (eps(styles, jnp.maximum(mean, 0.0)) if callable(eps) else eps)
    return (y * lax.rsqrt(length)[:, None, None]).astype(y.dtype)


class AdaptiveModulatedConv(nn.Module):
    """Modulated convolution that mixes several kernels by w; a `conv` as `ModulatedConv` is.

    Parameters: `kernel` [e, k, k, i, o], the dense layers `affine`, to the style, and `selection`,
    to the kernels' weights before a softmax.

    Attributes:
        features: output channels.
        kernels: how many are mixed.
        up, demodulate, eps, taps, dtype: as of `ModulatedConv`.
    """

    features: int
    kernels: int
    kernel_size: int = 3
    up: int = 1
    demodulate: bool = True
    eps: Eps = DEMODULATION_EPS
    taps: Any = (1, 3, 3, 1)
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n h w i"],
        w: Float[Array, "n d"],
        operation: Callable[[Array, Array], Array] | None = None,
    ) -> Float[Array, "n h2 w2 o"]:
        """`operation`: as of `modulated_conv2d`; None: a convolution."""
        channels = x.shape[-1]
        shape = (self.kernels, self.kernel_size, self.kernel_size, channels, self.features)
        kernels = self.param("kernel", Normal(), shape)
        styles = EqualizedDense(channels, initial_bias=1.0, name="affine")(w)
        logits = EqualizedDense(self.kernels, initial_bias=1.0, name="selection")(w)
        weights = jax.nn.softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
        if not self.demodulate:
            styles = styles / math.sqrt(math.prod(shape[1:-1]))
        x = x.astype(self.dtype or jnp.promote_types(x.dtype, kernels.dtype))
        return adaptive_conv2d(
            x,
            kernels,
            weights,
            styles,
            demodulate=self.demodulate,
            eps=self.eps,
            operation=operation or resampled(self.taps, self.up),
        )
