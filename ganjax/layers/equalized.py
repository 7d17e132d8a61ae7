"""Layers with an equalised learning rate (Karras et al., 2018, section 4.1).

Weights are drawn from N(0, 1) and scaled by `1 / sqrt(fan in)` at run time, so that an optimizer
that normalises its steps moves all of them alike; StyleGAN's mapping is slowed down further by a
multiplier, weights being stored as much larger.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ganjax.layers.activation import activation_of, bias_act
from ganjax.layers.filtering import Taps, conv2d_resample, setup_filter
from ganjax.layers.folding import folded_conv2d, tiled
from ganjax.layers.initializers import Constant, Normal
from ganjax.layers.linear import lookup


class EqualizedDense(nn.Module):
    """Dense layer and activation; class indices stand for one-hot vectors.

    Parameters: `kernel` [i, o] and `bias` [o], both stored divided by `lr_multiplier`.

    Attributes:
        features: outputs.
        inputs: classes, where the input is class indices; otherwise the input tells.
        initial_scale, initial_bias: what the layer starts with: of the weights' distribution, and
            the bias of all outputs or of each.
        dtype: of the computation; None: as input and kernel promote.
    """

    features: int
    activation: str = "linear"
    lr_multiplier: float = 1.0
    use_bias: bool = True
    initial_scale: float = 1.0
    initial_bias: float | tuple[float, ...] = 0.0
    inputs: int | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "... i"] | Int[Array, "n"]) -> Float[Array, "... o"]:
        indices = jnp.issubdtype(x.dtype, jnp.integer)
        if indices and self.inputs is None:
            raise ValueError(f"{self.name} got class indices; set its `inputs` to the classes")
        inputs = self.inputs or x.shape[-1]
        init = Normal(self.initial_scale / self.lr_multiplier)
        kernel = self.param("kernel", init, (inputs, self.features))
        kernel = kernel * (self.lr_multiplier / math.sqrt(inputs))
        if indices:
            y = lookup(kernel, x).astype(self.dtype or kernel.dtype)
        else:
            dtype = self.dtype or jnp.promote_types(x.dtype, kernel.dtype)
            y = x.astype(dtype) @ kernel.astype(dtype)
        bias = None
        if self.use_bias:
            start = Constant(jax.tree.map(lambda b: b / self.lr_multiplier, self.initial_bias))
            bias = self.param("bias", start, (self.features,)) * self.lr_multiplier
        return bias_act(y, bias, self.activation)


class EqualizedConv(nn.Module):
    """Convolution, possibly halving or doubling the resolution, and activation.

    Parameters: `kernel` [k, k, i, o] and `bias` [o].

    Attributes:
        features: output channels.
        initial_scale: of the weights' distribution at the start.
        up, down: factors of the resolution.
        taps: of the resampling filter.
        clamp: limit of the result for a gain of 1; None for none.
        dtype: of the computation; None: as input and kernel promote.
        pixels: of a row that lie side by side, at the higher resolution (`layers/folding.py`).
    """

    features: int
    kernel_size: int = 3
    activation: str = "linear"
    use_bias: bool = True
    initial_scale: float = 1.0
    up: int = 1
    down: int = 1
    taps: Any = (1, 3, 3, 1)
    clamp: float | None = None
    dtype: Any = None
    pixels: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "n h w i"], gain: float = 1.0) -> Float[Array, "n h2 w2 o"]:
        """`gain` scales the activation's own, and the clamp with it."""
        channels = x.shape[-1] * self.up // self.pixels if self.pixels > 1 else x.shape[-1]
        shape = (self.kernel_size, self.kernel_size, channels, self.features)
        kernel = self.param("kernel", Normal(self.initial_scale), shape)
        bias = self.param("bias", Constant(0.0), (self.features,)) if self.use_bias else None
        x = x.astype(self.dtype or jnp.promote_types(x.dtype, kernel.dtype))
        y = convolve(
            x,
            kernel / math.sqrt(math.prod(shape[:-1])),
            resampling_taps(self.taps, self.up, self.down),
            self.up,
            self.down,
            self.pixels,
        )
        return finish(y, bias, self.activation, gain, self.clamp)


def convolve(
    x: Float[Array, "n h w i"],
    kernel: Float[Array, "k k i2 o2"],
    taps: Taps,
    up: int = 1,
    down: int = 1,
    pixels: int = 1,
) -> Float[Array, "n h2 w2 o"]:
    """`conv2d_resample`, or of an image with `pixels` of a row side by side."""
    if pixels > 1:
        return folded_conv2d(x, kernel, taps, pixels=pixels, up=up, down=down)
    return conv2d_resample(x, kernel, taps, up=up, down=down)


def resampling_taps(taps: Any, up: int = 1, down: int = 1) -> Taps:
    """The filter of a layer, if it resamples."""
    return setup_filter(taps) if up * down > 1 else None


def finish(
    y: Array,
    bias: Array | None,
    activation: str,
    gain: float,
    clamp: float | None,
    dtype: Any = None,
) -> Array:
    """`bias_act`, of folded images too, whose gain and clamp are both scaled by `gain`."""
    return bias_act(
        y,
        None if bias is None else tiled(bias, y.shape[-1]),
        activation,
        gain=activation_of(activation).gain * gain,
        clamp=None if clamp is None else clamp * gain,
        dtype=dtype,
    )
