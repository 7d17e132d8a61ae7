"""Blocks of Aurora's generator without attention: where features start, and convolutions.

Parameters are named as in the released code; see `networks.py`.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ganjax.families.stylegan3.blocks import SynthesisInput
from ganjax.layers.adaptive import AdaptiveModulatedConv
from ganjax.layers.equalized import EqualizedConv, finish
from ganjax.layers.initializers import Normal, zeros
from ganjax.layers.modulated import DEMODULATION_EPS, ModulatedConv
from ganjax.layers.mtm import ModulatedTransformConv


def of_sample(
    styles: Float[Array, "n i"], kernel: Float[Array, "#n o"], eps: float = DEMODULATION_EPS
) -> Float[Array, "#n o"]:
    """What demodulation adds, in units of each sample's style and kernel: an `Eps`."""
    return eps * jnp.mean(jnp.square(styles), axis=1, keepdims=True) * kernel


def of_batch(
    styles: Float[Array, "n i"], kernel: Float[Array, "#n o"], eps: float = DEMODULATION_EPS
) -> Float[Array, "#n o"]:
    """What demodulation adds, in units of the styles of the whole batch: an `Eps`.

    NOTE: the released code brings kernels, and styles over the batch, to a mean square of 1 before
    it modulates. Demodulation undoes any scale, but for that of its eps: `W / r` and `s / q` give
    `1 / sqrt(L / (r q)^2 + eps)`, which is r q times `1 / sqrt(L + eps (r q)^2)`.
    """
    return eps * jnp.mean(jnp.square(styles)) * kernel


def convolutions(
    kernels: int, transform: Callable[..., nn.Module] | None = None, **options: Any
) -> tuple[Callable[..., nn.Module], Callable[..., nn.Module]]:
    """What makes the first and the second convolution of the blocks at a resolution.

    Args:
        kernels: of which a sample mixes its own; 1: all have the same.
        transform: what makes the second one, such as `ModulatedTransformConv`, called with the
            first as `conv`; None: as the first.
        options: fields of both.
    """
    conv: Callable[..., nn.Module] = functools.partial(ModulatedConv, **options)
    if kernels > 1:
        conv = functools.partial(AdaptiveModulatedConv, kernels=kernels, **options)
    if transform is None:
        return conv, conv
    return conv, functools.partial(transform, conv=conv, **options)


def waves(freqs: Float[Array, "n c 2"], sampling_rate: float, bandwidth: float) -> Array:
    """Amplitudes of 1: waves do not fade, whatever their frequency."""
    del sampling_rate, bandwidth
    return jnp.ones(freqs.shape[:2], freqs.dtype)


def fourier_input(features: int, size: int, name: str | None = None) -> SynthesisInput:
    """StyleGAN3's input of up to one wave an image, without margin; no wave fades."""
    return SynthesisInput(features, size, float(size), 1.0, waves, name=name)


class ConstantInput(nn.Module):
    """The same learned features for all samples (StyleGAN2)."""

    features: int
    size: int

    @nn.compact
    def __call__(self, w: Float[Array, "n d"]) -> Float[Array, "n h w c"]:
        const = self.param("const", Normal(), (self.size, self.size, self.features))
        return jnp.broadcast_to(const, (len(w), *const.shape))


class StyledConv(nn.Module):
    """Modulated convolution, bias and activation.

    Parameters: those of `conv`, and `bias`.

    Attributes:
        features: output channels.
        conv: makes the convolution, called with `features` and, unless None, the fields below.
        activation: after the bias.
        clamp: limit of what comes out; None: none.
    """

    features: int
    conv: Callable[..., nn.Module] = ModulatedConv
    kernel_size: int = 3
    up: int = 1
    demodulate: bool | None = None
    taps: Any = (1, 3, 3, 1)
    activation: str = "lrelu"
    clamp: float | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w i"], w: Float[Array, "n d"]
    ) -> Float[Array, "n h2 w2 o"]:
        own = {} if self.demodulate is None else {"demodulate": self.demodulate}
        conv = self.conv(
            features=self.features, kernel_size=self.kernel_size, up=self.up, taps=self.taps, **own
        )
        nn.share_scope(self, conv)
        bias = self.param("bias", zeros, (self.features,))
        return finish(conv(x, w), bias, self.activation, 1.0, self.clamp)


class ResidualConvBlock(nn.Module):
    """Two convolutions beside a connection that skips them (Eq. 3).

    NOTE: offsets are in the second convolution alone, where the paper has two MTMs.

    Attributes:
        features: output channels.
        conv, second: make the two convolutions, as of `StyledConv`.
        up: factor of the resolution.
        gain: of the sum.
        taps: of the resampling filters.
        clamp: limit of what the convolutions return.
    """

    features: int
    conv: Callable[..., nn.Module] = ModulatedConv
    second: Callable[..., nn.Module] = ModulatedTransformConv
    up: int = 1
    gain: float = 0.4
    taps: Any = (1, 3, 3, 1)
    clamp: float | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w i"], w: Float[Array, "n d"]
    ) -> Float[Array, "n h2 w2 o"]:
        layer = functools.partial(StyledConv, self.features, taps=self.taps, clamp=self.clamp)
        # The name says that its taps are in the reverse of the released order.
        first = layer(self.conv, up=self.up, name="conv1" if self.up == 1 else "up")
        y = layer(self.second, name="conv2")(first(x, w), w)
        if self.up != 1 or x.shape[-1] != self.features:
            x = EqualizedConv(
                self.features,
                kernel_size=1,
                use_bias=False,
                up=self.up,
                taps=self.taps,
                name="skip_connection",
            )(x)
        return (y + x) * self.gain


class Start(nn.Module):
    """The first features, and a convolution of them.

    Attributes:
        features: output channels.
        conv: makes the convolution, as of `StyledConv`.
        source: makes the first features, called with `features`, `size` and `name`.
        source_features: channels of those.
        size: of the features, in pixels.
        clamp: limit of what the convolution returns.
    """

    features: int
    size: int
    source_features: int
    source: Callable[..., nn.Module] = fourier_input
    conv: Callable[..., nn.Module] = ModulatedTransformConv
    clamp: float | None = None

    @nn.compact
    def __call__(self, w: Float[Array, "n d"]) -> Float[Array, "n h w c"]:
        x = self.source(features=self.source_features, size=self.size, name="input")(w)
        return StyledConv(self.features, self.conv, clamp=self.clamp, name="conv")(x, w)
