"""TGANv2's generator and discriminators (Saito et al., 2020, Section 4).

Modules and parameters are named as in the released Chainer code, `block1/c1/W` being
`block1/c1/kernel`.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ganjax.families.tganv2.blocks import (
    Activation,
    ChainerBatchNorm,
    ConvLSTM,
    DiscriminatorBlock,
    FirstDiscriminatorBlock,
    GeneratorBlock,
)
from ganjax.families.tganv2.subsampling import every
from ganjax.layers import initializers
from ganjax.layers.linear import Conv, Dense

COARSEST = 3  # the block after which the first level is rendered
LEVELS = 4  # the paper's


def widths(levels: int) -> tuple[int, ...]:
    """Channels after each upsampling block, as multiples of `channels`.

    NOTE: further levels than the paper's four are as wide as its last two.
    """
    return (16, 8, 4, *(2, *(1,) * levels)[: levels - 1])


class Generator(nn.Module):
    """Latents to videos of `8 bottom_width` pixels across at the first level, twice as many at each
    further one: of the paper's four levels `64 bottom_width` at the last.

    Attributes:
        levels: resolutions that are rendered.
        frames: of a video.
        latent_dim: entries of z, uniform on [-1, 1].
        bottom_width: pixels, width of the recurrent layers' maps.
        channels: of the last block; the others' are multiples of it.
        recurrent_channels: of the recurrent layers.
        recurrent_layers: how many there are.
        forget_bias: as of `ConvLSTM`; 0, as released.
        frame_strides: subsampling between levels, in training: one of so many frames is kept ...
        batch_strides: ... and one of so many videos. 1 for all of them.
        stride: steps of the recurrent layers from one frame to the next, in training.
        max_offset: steps before the first frame, at most, in training.
        image_channels: of the videos.
        norm: makes the batch normalisation.
        dtype: of the computation; None: float32, or whatever the inputs promote to. Parameters are
            float32, and so are statistics and the videos.
    """

    levels: int = LEVELS
    frames: int = 16
    latent_dim: int = 256
    bottom_width: int = 3
    channels: int = 32
    recurrent_channels: int = 1024
    recurrent_layers: int = 1
    forget_bias: float = 0.0
    frame_strides: tuple[int, ...] = (2, 2, 2)
    batch_strides: tuple[int, ...] = (2, 2, 2)
    stride: int = 1
    max_offset: int = 0
    image_channels: int = 3
    norm: Callable[..., nn.Module] = ChainerBatchNorm
    activation: Activation = jax.nn.relu
    dtype: Any = None

    def setup(self) -> None:
        counts = ("levels", "frames", "latent_dim", "bottom_width", "channels", "stride")
        for name in (*counts, "recurrent_channels", "recurrent_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; set {name} to 1 or more")
        for name in ("frame_strides", "batch_strides"):
            strides = getattr(self, name)
            if len(strides) != self.levels - 1 or min(strides, default=1) < 1:
                raise ValueError(f"{name}={strides}; set {self.levels - 1} numbers of 1 or more")
        init = initializers.LecunNormal()
        self.fc = Dense(
            self.bottom_width**2 * self.recurrent_channels, kernel_init=init, dtype=self.dtype
        )
        self.decoders = [
            ConvLSTM(
                self.recurrent_channels,
                forget_bias=self.forget_bias,
                dtype=self.dtype,
                name=f"decoder{layer}",
            )
            for layer in range(self.recurrent_layers)
        ]
        self.blocks = [
            GeneratorBlock(
                width * self.channels,
                norm=self.norm,
                activation=self.activation,
                dtype=self.dtype,
                name=f"block{number}",
            )
            for number, width in enumerate(widths(self.levels), 1)
        ]
        rendered = range(COARSEST, COARSEST + self.levels)
        self.norms = [self.norm(name=f"b{number}") for number in rendered]
        self.convs = [
            Conv(self.image_channels, kernel_init=init, dtype=self.dtype, name=f"c{number}")
            for number in rendered
        ]

    def __call__(
        self,
        z: Float[Array, "n latent_dim"],
        offsets: Sequence[int] | Int[Array, "offsets"],
        frames: int | None = None,
    ) -> tuple[Float[Array, "..."], ...]:
        """Training: videos of every level (Eq. 6), [n, t, h, w, c] in [-1, 1], the coarsest first.

        Batch normalisation has the statistics of what is left at its level, and moves the running
        ones where "batch_stats" is mutable.

        Args:
            offsets: random draws: steps before the first frame, 0 to `max_offset`; then for each
                level after the first the first frame that is kept, below its `frame_strides`.
            frames: another number than the module's.
        """
        if len(offsets) != self.levels:
            raise ValueError(
                f"{len(offsets)} offsets; {self.levels} are wanted: the start, and the first frame"
                " of each level after the first"
            )
        start, *kept = offsets
        frames = self.frames if frames is None else frames
        reach = (frames - 1) * self.stride + 1
        h = self._states(z, self.max_offset + reach)  # [n, t, h, w, c]
        h = lax.dynamic_slice_in_dim(h, start, reach, axis=1)[:, :: self.stride]
        h = _by_frame(functools.partial(self._through, stop=COARSEST, train=True), h)
        videos = [self._rendered(h, 1, train=True)]
        for level in range(1, self.levels):
            index = level - 1
            h = every(h, kept[index], self.frame_strides[index], self.batch_strides[index])
            first = COARSEST + index
            up = functools.partial(self._through, start=first, stop=first + 1, train=True)
            h = _by_frame(up, h)
            videos.append(self._rendered(h, level + 1, train=True))
        return tuple(videos)

    def sample(
        self,
        z: Float[Array, "n latent_dim"],
        level: int | None = None,
        frames: int | None = None,
        times: Int[Array, "n t"] | None = None,
    ) -> Float[Array, "n t h w c"]:
        """Inference: whole videos in [-1, 1], of one level (Eq. 5), by the running statistics.

        Args:
            level: 1 for the coarsest; the last one without it.
            frames: another number than the module's.
            times: which of these frames are made, of each video; all without it.
        """
        level = self.levels if level is None else level
        if not 1 <= level <= self.levels:
            raise ValueError(f"level={level}; set it to a number from 1 to {self.levels}")
        h = self._states(z, self.frames if frames is None else frames)
        if times is not None:
            h = jnp.take_along_axis(h, times[..., None, None, None], axis=1)
        stop = COARSEST + level - 1
        h = _by_frame(functools.partial(self._through, stop=stop, train=False), h)
        return self._rendered(h, level, train=False)

    def _states(self, z: Array, steps: int) -> Array:
        """[n, latent_dim] to [n, steps, h, w, c]."""
        width = self.bottom_width
        h = self.fc(z).reshape(1, len(z), width, width, self.recurrent_channels)
        for decoder in self.decoders:
            h, _ = decoder(h, steps)
        return jnp.swapaxes(h, 0, 1)

    def _through(self, x: Array, *, stop: int, train: bool, start: int = 0) -> Array:
        for block in self.blocks[start:stop]:
            x = block(x, train=train)
        return x

    def _rendered(self, h: Array, level: int, *, train: bool) -> Array:
        def render(x: Array) -> Array:
            x = self.activation(self.norms[level - 1](x, train=train))
            x = self.convs[level - 1](x)
            return jnp.tanh(x.astype(jnp.promote_types(x.dtype, jnp.float32)))

        return _by_frame(render, h)


def _by_frame(function: Callable[[Array], Array], x: Array) -> Array:
    """A function of images [n, h, w, c], of the frames of videos [n, t, h, w, c]."""
    y = function(x.reshape(-1, *x.shape[2:]))
    return y.reshape(*x.shape[:2], *y.shape[1:])


class SubDiscriminator(nn.Module):
    """Three-dimensional residual network: the logits of one level.

    Attributes:
        channels: of the first block; each block doubles them.
        dtype: of the computation; logits are float32 or wider.
    """

    channels: int = 64
    activation: Activation = jax.nn.relu
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "n t h w c"]) -> Float[Array, "n"]:
        fields = dict(activation=self.activation, dtype=self.dtype)
        x = x if self.dtype is None else x.astype(self.dtype)
        # NOTE: a ReLU whatever `activation` is, as released.
        h = FirstDiscriminatorBlock(self.channels, dtype=self.dtype, name="block1")(x)
        for number in range(2, 6):
            features = self.channels * 2 ** (number - 1)
            h = DiscriminatorBlock(features, **fields, name=f"block{number}")(h)
        h = self.activation(h)
        h = jnp.sum(h, axis=(1, 2, 3), dtype=jnp.promote_types(h.dtype, jnp.float32))
        self.sow("intermediates", "feature", h)
        return Dense(1, kernel_init=initializers.XavierUniform(), name="l6")(h)[:, 0]


Logits = Float[Array, "_"]


def concatenated(logits: Sequence[Logits], batch_strides: Sequence[int]) -> Logits:
    """The released code's way to join levels: their logits as those of more videos.

    A loss that is a mean over them weighs a level by its number of videos.
    """
    del batch_strides
    return jnp.concatenate(logits)


def added(logits: Sequence[Logits], batch_strides: Sequence[int]) -> Logits:
    """The paper's way to join levels, Eq. 7: a video's logit is the sum over levels.

    NOTE: the paper does not say what becomes of videos that the later levels leave out. Here their
    logits are the sums over the levels that they reach.
    """
    n, between = len(logits[0]), itertools.accumulate(batch_strides, lambda a, b: a * b)
    total = logits[0]
    for stride, later in zip(between, logits[1:], strict=True):
        if len(later) != -(-n // stride):
            raise ValueError(
                f"{len(later)} logits of a level that keeps one of {stride} of {n} videos; set"
                " batch_strides to the generator's"
            )
        rest = n - (len(later) - 1) * stride - 1
        total = total + lax.pad(later, jnp.zeros((), later.dtype), [(0, rest, stride - 1)])
    return total


class Discriminator(nn.Module):
    """A sub-discriminator for each level, none of whose weights are shared.

    Attributes:
        channels: of the first blocks.
        join: `(logits of each level, batch_strides) -> logits`: `concatenated`, as the released
            code has it, or `added`, as the paper has it.
        batch_strides: as of the generator.
        dtype: of the computation.
    """

    channels: int = 64
    join: Callable[[Sequence[Logits], Sequence[int]], Logits] = concatenated
    batch_strides: tuple[int, ...] = (2, 2, 2)
    activation: Activation = jax.nn.relu
    dtype: Any = None

    @nn.compact
    def __call__(self, videos: Sequence[Float[Array, "_ _ _ _ c"]]) -> Float[Array, "m"]:
        """Logits, the higher, the more real; `join` says which.

        Args:
            videos: of each level, the coarsest first, [n, t, h, w, c] in [-1, 1].
        """
        if len(videos) != len(self.batch_strides) + 1:
            raise ValueError(
                f"videos of {len(videos)} levels; the discriminator has"
                f" {len(self.batch_strides) + 1}; set batch_strides to one number less than levels"
            )
        logits = [
            SubDiscriminator(self.channels, self.activation, self.dtype, name=f"level{level}")(x)
            for level, x in enumerate(videos)
        ]
        return self.join(logits, self.batch_strides)


def example_inputs(
    module: nn.Module, image_channels: int = 3
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments (shapes only) and keyword arguments for `module.init` and `init_on_host`.

    Args:
        image_channels: of a discriminator's videos, on whose sizes no parameter depends.
    """
    if isinstance(module, Generator):
        z = jax.ShapeDtypeStruct((1, module.latent_dim), jnp.float32)
        return (z,), {"offsets": (0,) * module.levels}  # known ones: any number of frames will do
    if isinstance(module, Discriminator):
        video = jax.ShapeDtypeStruct((1, 2, 64, 64, image_channels), jnp.float32)
        return ([video] * (len(module.batch_strides) + 1),), {}
    raise ValueError(f"{type(module).__name__} is no network of TGANv2")
