"""Residual blocks and the recurrent layer of TGANv2 (the paper's supplementary material).

The generator sees frames as images, `[n t, h, w, c]` with a video's frames together; the
discriminators see clips, `[n, t, h, w, c]`.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ganjax.layers import initializers
from ganjax.layers.convolution import conv2d, upsample_conv2d
from ganjax.layers.linear import Conv
from ganjax.layers.norm import BatchNorm
from ganjax.layers.resample import upsample

Activation = Callable[[Array], Array]

# Of convolutions on a block's main path; shortcuts have a scale of 1.
WIDE = initializers.XavierUniform(math.sqrt(2))


class ChainerBatchNorm(BatchNorm):
    """Batch normalisation by Chainer's defaults; the running variance is that of n - 1.

    NOTE: in two passes, and two all-reduces on several devices. The recurrent layers' outputs are
    small: taken about a running mean that is many deviations off, as one pass does, their variance
    is off by 1e-4 of itself in float32.
    """

    eps: float = 2e-5

    def _moments(self, x: Array, centre: Array) -> tuple[Array, Array]:
        mean = jnp.mean(x, axis=(0, 1, 2))
        return mean, jnp.mean(jnp.square(x - mean), axis=(0, 1, 2))


class ConvLSTM(nn.Module):
    """A long short-term memory whose products are convolutions (Shi et al., 2015).

    Attributes:
        features: channels of the state.
        kernel_size: taps along each axis.
        peephole: gates see the cell, too, by a weight for each of its entries.
        forget_bias: of the gates that keep the cell, at initialisation. At 0 they halve it in each
            step: until they have learnt better, what was seen first is soon lost.
        dtype: of convolutions; None: as inputs and kernels promote. Gates and cell are in float32.
    """

    features: int
    kernel_size: int = 3
    peephole: bool = False
    forget_bias: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "s n h w i"], steps: int
    ) -> tuple[Float[Array, "t n h w c"], Float[Array, "t n h w c"]]:
        """Outputs and cells of all steps, from a state of zeros.

        Args:
            x: inputs of the first steps; those of the others are zeros.
            steps: how many there are.
        """
        inputs, n, height, width, _ = x.shape
        if not 1 <= inputs <= steps:
            raise ValueError(f"{inputs} inputs for {steps} steps; set frames to {inputs} or more")
        conv = Conv(
            4 * self.features,
            self.kernel_size,
            use_bias=False,
            kernel_init=initializers.LecunNormal(),
            dtype=self.dtype,
            name="w_xifoc",
        )
        given = conv(x.reshape(-1, *x.shape[2:])).reshape(inputs, n, height, width, -1)
        given = jnp.pad(given, [(0, steps - inputs), *[(0, 0)] * 4])
        shape = (self.kernel_size, self.kernel_size, self.features, 4 * self.features)
        kernel = self.param("w_hifoc", initializers.LecunNormal(), shape)
        of_gates = (0.0, self.forget_bias, 0.0, 0.0)  # i, f, o, candidate
        biases = tuple(bias for bias in of_gates for _ in range(self.features))
        bias = self.param("bias", initializers.Constant(biases), (len(biases),))
        of_cell: dict[str, Array | float] = dict.fromkeys("ifo", 0.0)
        if self.peephole:
            entries = (height, width, self.features)
            of_cell = {
                gate: self.param(f"peep_c_{gate}", initializers.zeros, entries) for gate in "ifo"
            }

        def step(state, given):
            h, cell = state
            gates = given + conv2d(h, kernel) + bias
            i, f, o, candidate = jnp.split(gates, 4, axis=-1)
            kept = jax.nn.sigmoid(f + cell * of_cell["f"]) * cell
            cell = kept + jax.nn.sigmoid(i + cell * of_cell["i"]) * jnp.tanh(candidate)
            h = jax.nn.sigmoid(o + cell * of_cell["o"]) * jnp.tanh(cell)
            h = h.astype(given.dtype)
            return (h, cell), (h, cell)

        start = jnp.zeros((n, height, width, self.features), given.dtype)
        state = start, start.astype(jnp.promote_types(start.dtype, bias.dtype))
        # XLA's CPU compiler has no fast gradient of a convolution in a loop.
        return lax.platform_dependent(
            state,
            given,
            cpu=lambda state, given: lax.scan(step, state, given, unroll=True)[1],
            default=lambda state, given: lax.scan(step, state, given)[1],
        )


class GeneratorBlock(nn.Module):
    """Doubles the resolution, or keeps it.

    Attributes:
        features: output channels.
        up: double the resolution.
        norm: makes a normalisation.
        dtype: of convolutions.
    """

    features: int
    up: bool = True
    norm: Callable[..., nn.Module] = ChainerBatchNorm
    activation: Activation = jax.nn.relu
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w i"], *, train: bool) -> Float[Array, "n h2 w2 o"]:
        conv = functools.partial(Conv, self.features, dtype=self.dtype)
        h = self.activation(self.norm(name="b1")(x, train=train))
        operation = upsample_conv2d if self.up else conv2d
        h = conv(operation=operation, kernel_init=WIDE, name="c1")(h)
        h = self.activation(self.norm(name="b2")(h, train=train))
        h = conv(kernel_init=WIDE, name="c2")(h)
        if not self.up and x.shape[-1] == self.features:
            return x + h
        init = initializers.XavierUniform()
        # A 1x1 convolution commutes with the upsampling; here it sees a quarter of the pixels.
        shortcut = conv(kernel_size=1, kernel_init=init, name="c_sc")(x)
        return h + (upsample(shortcut) if self.up else shortcut)


class Conv3D(nn.Module):
    """Convolution over frames and pixels with an odd kernel and zero padding, that keeps the size.

    Attributes:
        features: output channels.
        kernel_size: taps along each axis.
        dtype: of the computation; None: as input and kernel promote.
    """

    features: int
    kernel_size: int = 3
    kernel_init: Callable[..., Array] = WIDE
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "n t h w i"]) -> Float[Array, "n t h w o"]:
        shape = (*[self.kernel_size] * 3, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        dtype = self.dtype or jnp.promote_types(x.dtype, kernel.dtype)
        # XLA's CPU compiler has no fast gradients of convolutions in three dimensions.
        y = lax.platform_dependent(
            x.astype(dtype), kernel.astype(dtype), cpu=_conv_of_frames, default=_conv3d
        )
        return (y + self.param("bias", initializers.zeros, (self.features,))).astype(dtype)


def _conv3d(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )


def _conv_of_frames(x: Array, kernel: Array) -> Array:
    """As `_conv3d`: each frame convolved together with its neighbours, as further channels."""
    taps, height, width, _, features = kernel.shape
    n, frames = x.shape[:2]
    padded = jnp.pad(x, ((0, 0), (taps // 2,) * 2, (0, 0), (0, 0), (0, 0)))
    near = jnp.concatenate([padded[:, tap : tap + frames] for tap in range(taps)], axis=-1)
    flat = kernel.transpose(1, 2, 0, 3, 4).reshape(height, width, -1, features)
    y = conv2d(near.reshape(n * frames, *near.shape[2:]), flat)
    return y.reshape(n, frames, *y.shape[1:])


def mean_pool(
    x: Float[Array, "n t h w c"], window: tuple[int, int, int], pad: tuple[int, int, int] = (0,) * 3
) -> Float[Array, "n t2 h2 w2 c"]:
    """Means of adjacent windows; what is padded counts as zeros, what is left over is dropped."""
    sizes = (1, *window, 1)
    padding = [(0, 0), *((p, p) for p in pad), (0, 0)]
    total = lax.reduce_window(x, np.zeros((), x.dtype)[()], lax.add, sizes, sizes, padding)
    return total / math.prod(window)


def halve(x: Float[Array, "n t h w c"]) -> Float[Array, "n t2 h2 w2 c"]:
    """Means of 2x2x2 as the released discriminators take them.

    Odd sizes are padded by a zero at both ends, of which the last one is dropped: 5 becomes 3.

    NOTE: a size of 1 becomes 3, its one entry between two zeros: the released code pads it, too,
    and then has windows of 1.
    """
    sizes = x.shape[1:4]
    frames, height, width = (min(size, 2) for size in sizes)
    before, above, left = (size % 2 for size in sizes)
    return mean_pool(x, (frames, height, width), (before, above, left))


class FirstDiscriminatorBlock(nn.Module):
    """Sees the clip: no activation first, pixels are halved and frames are not.

    Attributes:
        features: output channels.
        dtype: of convolutions.
    """

    features: int
    activation: Activation = jax.nn.relu
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "n t h w i"]) -> Float[Array, "n t h/2 w/2 o"]:
        conv = functools.partial(Conv3D, self.features, dtype=self.dtype)
        h = self.activation(conv(name="c1")(x))
        h = mean_pool(conv(name="c2")(h), (1, 2, 2))
        shortcut = conv(kernel_size=1, kernel_init=initializers.XavierUniform(), name="c_sc")
        return h + shortcut(mean_pool(x, (1, 2, 2)))


class DiscriminatorBlock(nn.Module):
    """Halves frames and pixels, or keeps them.

    Attributes:
        features: output channels.
        down: take means, see `halve`.
        dtype: of convolutions.
    """

    features: int
    down: bool = True
    activation: Activation = jax.nn.relu
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "n t h w i"]) -> Float[Array, "n t2 h2 w2 o"]:
        channels = x.shape[-1]
        conv = functools.partial(Conv3D, dtype=self.dtype)
        h = conv(channels, name="c1")(self.activation(x))
        h = conv(self.features, name="c2")(self.activation(h))
        if self.down or channels != self.features:
            init = initializers.XavierUniform()
            x = conv(self.features, kernel_size=1, kernel_init=init, name="c_sc")(x)
        # Both paths end in the same means, zeros at the borders included.
        return halve(x + h) if self.down else x + h
