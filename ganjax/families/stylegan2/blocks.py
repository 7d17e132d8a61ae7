"""Blocks of StyleGAN2's networks: what happens at one resolution (StyleGAN2, figures 2 and 7).

Parameters are named as in the official PyTorch code; see `networks.py`.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ganjax.layers.equalized import EqualizedConv, EqualizedDense, finish
from ganjax.layers.filtering import downsample2d, setup_filter, upsample2d
from ganjax.layers.folding import fold, unfold
from ganjax.layers.initializers import Normal, zeros
from ganjax.layers.minibatch import MinibatchStd
from ganjax.layers.modulated import ModulatedConv

# Of each convolution, by name, or a mode; see `Generator.noise_shapes`.
Noise = Mapping[str, Float[Array, "n _ _ 1"]] | str

FIRST = 4  # pixels, width of the first feature map


class SynthesisLayer(nn.Module):
    """Modulated convolution, noise, bias and activation (StyleGAN2, figure 2).

    Collection "noise": `noise_const` [h, w], the noise of mode "const".

    Attributes:
        resolution: of the output, in pixels.
        use_noise: False: the layer has no noise at all.
        pixels: of a row that lie side by side in the output (`layers/folding.py`).
    """

    features: int
    resolution: int
    up: int = 1
    use_noise: bool = True
    activation: str = "lrelu"
    taps: Any = (1, 3, 3, 1)
    clamp: float | None = None
    conv: Callable[..., nn.Module] = ModulatedConv
    dtype: Any = None
    pixels: int = 1

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n h w i"],
        w: Float[Array, "n d"],
        noise: Float[Array, "n _ _ 1"] | str = "const",
        gain: float = 1.0,
    ) -> Float[Array, "n h2 w2 o"]:
        folded = {"pixels": self.pixels} if self.pixels > 1 else {}
        conv = self.conv(
            features=self.features, up=self.up, taps=self.taps, dtype=self.dtype, **folded
        )
        # Its parameters lie beside the noise's strength and the bias, not a level below.
        nn.share_scope(self, conv)
        x = conv(x, w)
        dtype = x.dtype
        if self.use_noise:
            shape = (self.resolution, self.resolution)
            fixed = self.variable("noise", "noise_const", self._fixed_noise, shape)
            strength = self.param("noise_strength", zeros, ())
            if isinstance(noise, str) and noise == "const":
                noise = fixed.value[:, :, None]
            if not isinstance(noise, str):
                noise = noise.reshape(-1, *noise.shape[-3:])
                x = self._noisy(x, noise, strength)
        bias = self.param("bias", zeros, (self.features,))
        return finish(x, bias, self.activation, gain, self.clamp, dtype)

    def _noisy(self, x: Array, noise: Array, strength: Array) -> Array:
        """Each pixel's noise on all of its channels."""
        # Of a strength for each channel, the gradient is a sum over pixels as the bias's is, and
        # made with it: half of the cost of summing over channels first.
        channel = np.arange(x.shape[-1]) // self.features
        for index in range(self.pixels):
            own = jnp.where(channel == index, strength, 0)
            x = x + fold(noise, self.pixels)[..., index : index + 1] * own
        return x

    def _fixed_noise(self, shape: tuple[int, int]) -> Array:
        return Normal()(self.make_rng("params"), shape)


class ToRGB(nn.Module):
    """Features to image channels: a 1x1 modulated convolution without demodulation."""

    features: int
    clamp: float | None = None
    dtype: Any = None
    pixels: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "n h w i"], w: Float[Array, "n d"]) -> Array:
        """An image whose pixels lie in place, whatever those of the features do."""
        conv = ModulatedConv(
            self.features,
            kernel_size=1,
            demodulate=False,
            dtype=self.dtype,
            pixels=self.pixels,
        )
        nn.share_scope(self, conv)
        y = unfold(conv(x, w), self.pixels)
        return finish(y, self.param("bias", zeros, (self.features,)), "linear", 1.0, self.clamp)


class SynthesisBlock(nn.Module):
    """One resolution: two convolutions, the first one doubling (StyleGAN2, figure 7).

    Attributes:
        features: output channels.
        resolution: of the output; the block of the first one starts from a learned constant.
        residual: a 1x1 convolution leads past the other two.
        to_rgb: the block makes an image and adds it to what came.
        layer: makes a convolution layer, called with `features`, `resolution` and `up`.
        pixels: of a row that lie side by side in the output, and half as many in the input
            (`layers/folding.py`); 1: neither is folded.
    """

    features: int
    resolution: int
    residual: bool
    to_rgb: bool
    image_channels: int
    layer: Callable[..., nn.Module]
    taps: Any = (1, 3, 3, 1)
    clamp: float | None = None
    dtype: Any = None
    pixels: int = 1

    @property
    def convs(self) -> int:
        """Convolutions that take a w and a noise, beside the one to an image."""
        return 1 if self.resolution == FIRST else 2

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n h w i"] | None,
        image: Float[Array, "n _ _ c"] | None,
        ws: Float[Array, "n layers d"],
        noise: Noise = "const",
    ) -> tuple[Array, Array | None]:
        """Features and image.

        Args:
            x: what the block before made; of the first one, what is joined to the constant at all
                of its places, [n, 1, 1, d], if there is anything.
            ws: one for each convolution; one more for the image.
            noise: by "conv0" and "conv1", or a mode.
        """
        layer = functools.partial(
            self.layer,
            features=self.features,
            resolution=self.resolution,
            dtype=self.dtype,
            pixels=self.pixels,
        )

        def apply(name: str, x: Array, index: int, gain: float = 1.0, up: int = 1) -> Array:
            given = noise if isinstance(noise, str) else noise[name]
            return layer(up=up, name=name)(x, ws[:, index], given, gain)

        if self.resolution == FIRST:
            const = self.param("const", Normal(), (FIRST, FIRST, self.features))
            dtype = self.dtype or const.dtype
            start = jnp.broadcast_to(const.astype(dtype), (ws.shape[0], *const.shape))
            if x is not None:
                x = jnp.broadcast_to(x.astype(dtype), (*start.shape[:3], x.shape[-1]))
                start = jnp.concatenate([start, x], axis=-1)
            return self._image(apply("conv1", start, 0), image, ws)
        assert x is not None, "only the first block starts from nothing"
        if self.residual:
            half = math.sqrt(0.5)
            skip = EqualizedConv(
                self.features,
                kernel_size=1,
                use_bias=False,
                up=2,
                taps=self.taps,
                dtype=self.dtype,
                pixels=self.pixels,
                name="skip",
            )(x, half)
            x = skip + apply("conv1", apply("conv0", x, 0, up=2), 1, half)
        else:
            x = apply("conv1", apply("conv0", x, 0, up=2), 1)
        return self._image(x, image, ws)

    def _image(self, x: Array, image: Array | None, ws: Array) -> tuple[Array, Array | None]:
        if image is not None:
            image = upsample2d(image, setup_filter(self.taps))
        if self.to_rgb:
            rgb = ToRGB(self.image_channels, self.clamp, self.dtype, self.pixels, name="torgb")
            y = rgb(x, ws[:, self.convs])
            y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
            image = y if image is None else image + y
        return x, image


class DiscriminatorBlock(nn.Module):
    """One resolution: two convolutions, the second one halving it.

    Attributes:
        features: output channels.
        hidden: channels before the second convolution.
        from_rgb: the image enters here.
        residual: a 1x1 convolution leads past the others.
        skip: the image goes on to the next block, at half its resolution.
        conv: makes the layers, called with `features`.
        first: makes the first 3x3 one instead, which is called with what the block is given, too.
        clamp: limit of what convolutions return, but for the 1x1 one.
        pixels: of a row that lie side by side in the input, and half as many in the output
            (`layers/folding.py`); 1: neither is folded.
    """

    features: int
    hidden: int
    from_rgb: bool
    residual: bool
    skip: bool
    conv: Callable[..., nn.Module]
    first: Callable[..., nn.Module] | None = None
    clamp: float | None = None
    taps: Any = (1, 3, 3, 1)
    pixels: int = 1

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n h w i"] | None,
        image: Float[Array, "n _ _ c"] | None,
        *given: Array,
    ) -> tuple[Array, Array | None]:
        """Features and image, both at half the resolution.

        Args:
            given: to the layer of `first` beside features.
        """
        folded = {"pixels": self.pixels} if self.pixels > 1 else {}
        conv = functools.partial(self.conv, taps=self.taps, **folded)
        layer = functools.partial(conv, clamp=self.clamp)
        if self.from_rgb:
            assert image is not None, "an earlier block has kept the image"
            y = layer(features=self.hidden, kernel_size=1, name="fromrgb")(fold(image, self.pixels))
            x = y if x is None else x + y
            image = downsample2d(image, setup_filter(self.taps)) if self.skip else None
        assert x is not None, "the first block is the one that sees the image"
        gain, past = 1.0, 0.0
        if self.residual:
            gain = math.sqrt(0.5)
            past = conv(
                features=self.features,
                kernel_size=1,
                activation="linear",
                use_bias=False,
                down=2,
                name="skip",
            )(x, gain)
        first = functools.partial(self.first, taps=self.taps, **folded) if self.first else conv
        x = first(features=self.hidden, clamp=self.clamp, name="conv0")(x, *given)
        x = layer(features=self.features, down=2, name="conv1")(x, gain)
        return x + past, image


class DiscriminatorEpilogue(nn.Module):
    """From 4x4 features to one vector a sample, the whole batch in view."""

    features: int
    outputs: int
    skip: bool
    activation: str = "lrelu"
    group_size: int | None = 4
    group_channels: int = 1
    clamp: float | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], image: Array | None) -> Float[Array, "n o"]:
        channels = x.shape[-1]
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.skip:
            assert image is not None
            x = x + EqualizedConv(channels, 1, self.activation, name="fromrgb")(image)
        if self.group_channels:
            x = MinibatchStd(self.group_size, self.group_channels, name="mbstd")(x)
        conv = EqualizedConv(channels, 3, self.activation, clamp=self.clamp, name="conv")
        x = conv(x)
        x = EqualizedDense(self.features, self.activation, name="fc")(x.reshape(len(x), -1))
        return EqualizedDense(self.outputs, name="out")(x)
