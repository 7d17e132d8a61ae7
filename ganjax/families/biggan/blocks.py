"""Residual blocks of BigGAN and BigGAN-deep (BigGAN, appendix B).

Blocks take their layers as callables: `conv(features=..., kernel_size=..., operation=...)` and
`norm()`, so that spectral norm, initialisation and precision are decided once, by the network.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ganjax.layers.convolution import conv2d, conv2d_downsample, upsample_conv2d
from ganjax.layers.resample import downsample, upsample

Activation = Callable[[Array], Array]


class GeneratorBlock(nn.Module):
    """Doubles the resolution (BigGAN, figure 15b).

    Attributes:
        features: output channels.
        norm: makes a conditional normalisation, called with the block's condition.
    """

    features: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    activation: Activation = jax.nn.relu

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], y: Array, *, train: bool) -> Array:
        h = self.activation(self.norm(name="bn1")(x, y, train=train))
        h = self.conv(features=self.features, operation=upsample_conv2d, name="conv1")(h)
        h = self.activation(self.norm(name="bn2")(h, y, train=train))
        h = self.conv(features=self.features, name="conv2")(h)
        # A 1x1 convolution commutes with the upsampling; here it sees a quarter of the pixels.
        shortcut = self.conv(features=self.features, kernel_size=1, name="conv_sc")(x)
        return h + upsample(shortcut)


class DiscriminatorBlock(nn.Module):
    """Halves the resolution, or keeps it (BigGAN, figure 15c).

    Attributes:
        features: output channels.
        down: halve the resolution.
        first: the block sees the image: no activation before its first convolution.
        wide: the inner channels are those of the output, otherwise those of the input.
    """

    features: int
    conv: Callable[..., nn.Module]
    down: bool = True
    first: bool = False
    wide: bool = True
    activation: Activation = jax.nn.relu

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Array:
        channels = x.shape[-1]
        hidden = self.features if self.wide else channels
        h = x if self.first else self.activation(x)
        h = self.activation(self.conv(features=hidden, name="conv1")(h))
        operation = conv2d_downsample if self.down else conv2d
        h = self.conv(features=self.features, operation=operation, name="conv2")(h)
        # The official code pools before this 1x1 convolution in the first block alone; the two
        # commute, and pooling first is cheaper.
        shortcut = downsample(x) if self.down else x
        if self.down or channels != self.features:
            shortcut = self.conv(features=self.features, kernel_size=1, name="conv_sc")(shortcut)
        return h + shortcut


BOTTLENECK = 4  # BigGAN-deep's inner convolutions have a quarter of the channels


class DeepGeneratorBlock(nn.Module):
    """BigGAN-deep's bottleneck; its shortcut drops channels and has no weights (figure 16b).

    Attributes:
        features: output channels, at most those of the input.
        up: double the resolution.
    """

    features: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    up: bool = False
    activation: Activation = jax.nn.relu

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], y: Array, *, train: bool) -> Array:
        hidden = x.shape[-1] // BOTTLENECK

        def normalised(h: Array, name: str) -> Array:
            return self.activation(self.norm(name=name)(h, y, train=train))

        operation = upsample_conv2d if self.up else conv2d
        h = self.conv(features=hidden, kernel_size=1, name="conv1")(normalised(x, "bn1"))
        h = self.conv(features=hidden, operation=operation, name="conv2")(normalised(h, "bn2"))
        h = self.conv(features=hidden, name="conv3")(normalised(h, "bn3"))
        h = self.conv(features=self.features, kernel_size=1, name="conv4")(normalised(h, "bn4"))
        shortcut = x[..., : self.features]
        return h + (upsample(shortcut) if self.up else shortcut)


class DeepDiscriminatorBlock(nn.Module):
    """BigGAN-deep's bottleneck; its shortcut makes only the channels that are new (figure 16c).

    Attributes:
        features: output channels, at least those of the input.
        down: halve the resolution.
    """

    features: int
    conv: Callable[..., nn.Module]
    down: bool = False
    activation: Activation = jax.nn.relu

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Array:
        hidden, new = self.features // BOTTLENECK, self.features - x.shape[-1]
        h = self.conv(features=hidden, kernel_size=1, name="conv1")(self.activation(x))
        h = self.conv(features=hidden, name="conv2")(self.activation(h))
        h = self.activation(self.conv(features=hidden, name="conv3")(self.activation(h)))
        h = downsample(h) if self.down else h
        h = self.conv(features=self.features, kernel_size=1, name="conv4")(h)
        shortcut = downsample(x) if self.down else x
        if new:
            added = self.conv(features=new, kernel_size=1, name="conv_sc")(shortcut)
            shortcut = jnp.concatenate([shortcut, added], axis=-1)
        return h + shortcut
