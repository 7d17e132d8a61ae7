"""Layers of StyleGAN3's synthesis: its input, and a convolution with a filtered nonlinearity.

Parameters are named as in the official PyTorch code; see `networks.py`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ganjax.layers.alias_free import filtered_lrelu, lowpass_taps, symmetric_padding
from ganjax.layers.equalized import EqualizedDense
from ganjax.layers.initializers import Initializer, Normal, ones, zeros
from ganjax.layers.modulated import ModulatedConv

Size = int | tuple[int, int]  # pixels of a square, or (height, width)
Transform = Float[Array, "3 3"] | Float[Array, "n 3 3"]


@dataclasses.dataclass(frozen=True)
class Disc(Initializer):
    """Points [n, 2], uniform in a disc."""

    radius: float

    def traced(self, key, shape):
        angle, area = jax.random.uniform(key, (2, shape[0]))
        direction = jnp.stack([jnp.cos(2 * jnp.pi * angle), jnp.sin(2 * jnp.pi * angle)], axis=1)
        return self.radius * jnp.sqrt(area)[:, None] * direction

    def host(self, rng, shape):
        angle, area = rng.random((2, shape[0]), np.float32)
        direction = np.stack([np.cos(2 * np.pi * angle), np.sin(2 * np.pi * angle)], axis=1)
        return np.float32(self.radius) * np.sqrt(area)[:, None] * direction


@dataclasses.dataclass(frozen=True)
class Phase(Initializer):
    """Uniform in [-0.5, 0.5): parts of a turn."""

    def traced(self, key, shape):
        return jax.random.uniform(key, shape) - 0.5

    def host(self, rng, shape):
        return rng.random(shape, np.float32) - np.float32(0.5)


@dataclasses.dataclass(frozen=True)
class Identity(Initializer):
    """The identity matrix."""

    def traced(self, key, shape):
        return jnp.eye(*shape)

    def host(self, rng, shape):
        return np.eye(*shape, dtype=np.float32)


def fading(
    freqs: Float[Array, "n c 2"], sampling_rate: float, bandwidth: float
) -> Float[Array, "n c"]:
    """Amplitudes of waves: what a transform has made too high for the sampling rate fades out."""
    over = jnp.linalg.norm(freqs, axis=2) - bandwidth
    return jnp.clip(1 - over / (sampling_rate / 2 - bandwidth), 0, 1)


class SynthesisInput(nn.Module):
    """Waves of random directions, turned and shifted as w says (StyleGAN3, section 3.2).

    Collection "fourier": `freqs` [c, 2] and `phases` [c] of the waves, and `transform` [3, 3], the
    user's transform of the coordinates, which is the inverse of what happens to the image.

    Attributes:
        features: channels.
        size: of the output.
        sampling_rate: pixels per unit of length, the image being 1.
        bandwidth: highest frequency of the waves.
        damping: amplitudes from the waves' frequencies, the sampling rate and the bandwidth.
    """

    features: int
    size: Size
    sampling_rate: float
    bandwidth: float
    damping: Callable[[Array, float, float], Array] = fading

    @nn.compact
    def __call__(
        self, w: Float[Array, "n d"], transform: Transform | None = None
    ) -> Float[Array, "n h w c"]:
        """Features.

        Args:
            transform: the user's, in place of the stored one.
        """
        count = self.features
        kernel = self.param("kernel", Normal(), (count, count))
        freqs = self._drawn("freqs", Disc(self.bandwidth), (count, 2))
        phases = self._drawn("phases", Phase(), (count,))
        stored = self._drawn("transform", Identity(), (3, 3))
        still = (1.0, 0.0, 0.0, 0.0)
        t = EqualizedDense(4, initial_scale=0.0, initial_bias=still, name="affine")(w)
        t = t / jnp.linalg.norm(t[:, :2], axis=1, keepdims=True)
        given = stored if transform is None else transform.astype(stored.dtype)
        matrix = _product(_rigid(t), given)  # [n, 3, 3]
        # A shift of the coordinates is one of the phases, a turn is one of the frequencies.
        phases = phases + _product(freqs, matrix[:, :2, 2:])[..., 0]  # [n, c]
        freqs = _product(freqs, matrix[:, :2, :2])  # [n, c, 2]
        amplitudes = self.damping(freqs, self.sampling_rate, self.bandwidth)
        rows, columns = (
            (np.arange(length) + 0.5 - length / 2) / self.sampling_rate
            for length in pair(self.size)
        )
        # Multiplied out: as a matrix product a TPU would round it to bfloat16.
        angle = (
            jnp.asarray(rows, freqs.dtype)[:, None, None] * freqs[:, None, None, :, 1]
            + jnp.asarray(columns, freqs.dtype)[:, None] * freqs[:, None, None, :, 0]
            + phases[:, None, None]
        )
        waves = jnp.sin(2 * jnp.pi * angle) * amplitudes[:, None, None]
        return _product(waves, kernel / math.sqrt(count))

    def _drawn(self, name: str, draw: Initializer, shape: tuple[int, ...]) -> Array:
        """What is drawn once and never trained."""
        return self.variable("fourier", name, lambda: draw(self.make_rng("params"), shape)).value


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def _rigid(t: Float[Array, "n 4"]) -> Float[Array, "n 3 3"]:
    """Of (cosine, sine, x, y): the coordinates are shifted by -(x, y), then turned."""
    cosine, sine, x, y = jnp.unstack(t, axis=1)
    one, none = jnp.ones_like(x), jnp.zeros_like(x)
    turn = jnp.stack([cosine, -sine, none, sine, cosine, none, none, none, one], axis=1)
    shift = jnp.stack([one, none, -x, none, one, -y, none, none, one], axis=1)
    return _product(turn.reshape(-1, 3, 3), shift.reshape(-1, 3, 3))


@dataclasses.dataclass(frozen=True)
class Signal:
    """How the features between two layers are sampled (StyleGAN3, figure 4c).

    Attributes:
        size: pixels, margins included.
        rate: pixels per unit of length, the image being 1.
        cutoff: frequency up to which there is signal.
        half_width: of the transition band above it.
    """

    size: Size
    rate: float
    cutoff: float
    half_width: float


@dataclasses.dataclass(frozen=True)
class Resampling:
    """The way from one signal to another, a nonlinearity at a higher rate in between.

    Attributes:
        up, down: factors of the rate.
        up_taps, down_taps: of the filters; None: none.
        padding: of what is upsampled.
    """

    up: int
    down: int
    up_taps: np.ndarray | None
    down_taps: np.ndarray | None
    padding: tuple[tuple[int, int], tuple[int, int]]


def resampling(
    before: Signal,
    after: Signal,
    *,
    grown: int,
    filter_size: int,
    oversampling: int,
    radial: bool,
) -> Resampling:
    """Filters and padding between two signals (StyleGAN3, appendices C.1 and C.3).

    Args:
        grown: pixels by which a convolution has made the signal before wider.
        filter_size: taps for each pixel of the lower rate; 0: no filters.
        oversampling: the nonlinearity's rate over the higher one of the two.
        radial: the downsampling filter is the same in all directions.
    """
    rate = max(before.rate, after.rate) * oversampling
    up, down = round(rate / before.rate), round(rate / after.rate)
    if before.rate * up != rate or after.rate * down != rate:
        raise ValueError(
            f"rates {before.rate:g} and {after.rate:g} have no common multiple {rate:g}; set"
            " config.data.resolution to a power of two"
        )

    def taps(signal: Signal, factor: int, radial: bool) -> np.ndarray | None:
        count = max(filter_size * factor, 1) if factor > 1 else 1
        return lowpass_taps(count, signal.cutoff, 2 * signal.half_width, rate, radial)

    up_taps, down_taps = taps(before, up, False), taps(after, down, radial)
    lengths = [1 if taps is None else len(taps) for taps in (up_taps, down_taps)]
    height, width = pair(before.size)
    padding = symmetric_padding(
        (height + grown, width + grown), pair(after.size), up=up, down=down, taps=sum(lengths)
    )
    return Resampling(up, down, up_taps, down_taps, padding)


class SynthesisLayer(nn.Module):
    """Modulated convolution and filtered leaky ReLU (StyleGAN3, figure 4b).

    Collection "averages": `magnitude_ema` [], a running mean square of the input, by which it is
    divided; moved where it is mutable, and then the new one divides.

    Attributes:
        features: output channels.
        before, after: how input and output are sampled.
        kernel_size: of the convolution, odd.
        filter_size: taps of the filters for each pixel of the lower rate.
        oversampling: rate of the nonlinearity over the higher one of input and output.
        radial: the downsampling filter is the same in all directions.
        clamp: limit of the nonlinearity; None: none.
        magnitude_beta: share of the old mean square in a new one.
        conv: makes the convolution, called with `features`, `kernel_size` and `dtype`; it is called
            with features and w, and keeps their size.
        dtype: of the computation; None: as input and parameters promote.
    """

    features: int
    before: Signal
    after: Signal
    kernel_size: int = 3
    filter_size: int = 6
    oversampling: int = 2
    radial: bool = False
    clamp: float | None = 256.0
    magnitude_beta: float = 0.999
    conv: Callable[..., nn.Module] = ModulatedConv
    dtype: Any = None

    def resampling(self) -> Resampling:
        """Filters and padding."""
        return resampling(
            self.before,
            self.after,
            grown=self.kernel_size - 1,
            filter_size=self.filter_size,
            oversampling=self.oversampling,
            radial=self.radial,
        )

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w i"], w: Float[Array, "n d"]
    ) -> Float[Array, "n h2 w2 o"]:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"config.model.kernel_size={self.kernel_size}; set an odd number")
        x = normalize_magnitude(self, x, self.magnitude_beta, self.dtype)
        # All that the kernel reaches: the filters' padding, and no border, decides what is kept.
        reach = self.kernel_size // 2
        if reach:
            x = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
        conv = self.conv(features=self.features, kernel_size=self.kernel_size, dtype=self.dtype)
        # Its parameters lie beside the bias, not a level below.
        nn.share_scope(self, conv)
        x = conv(x, w)
        way = self.resampling()
        return filtered_lrelu(
            x,
            self.param("bias", zeros, (self.features,)),
            up_taps=way.up_taps,
            down_taps=way.down_taps,
            up=way.up,
            down=way.down,
            padding=way.padding,
            clamp=self.clamp,
        )


class ToRGB(nn.Module):
    """Features to image channels: a 1x1 modulated convolution without demodulation.

    Collection and attributes as of `SynthesisLayer`.
    """

    features: int
    before: Signal
    after: Signal
    clamp: float | None = 256.0
    magnitude_beta: float = 0.999
    dtype: Any = None

    def resampling(self) -> Resampling:
        """Padding; there are no filters."""
        return resampling(
            self.before, self.after, grown=0, filter_size=0, oversampling=1, radial=False
        )

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w i"], w: Float[Array, "n d"]
    ) -> Float[Array, "n h2 w2 o"]:
        x = normalize_magnitude(self, x, self.magnitude_beta, self.dtype)
        conv = ModulatedConv(self.features, kernel_size=1, demodulate=False, dtype=self.dtype)
        nn.share_scope(self, conv)
        x = conv(x, w)
        way = self.resampling()
        return filtered_lrelu(
            x,
            self.param("bias", zeros, (self.features,)),
            up=way.up,
            down=way.down,
            padding=way.padding,
            gain=1.0,
            slope=1.0,
            clamp=self.clamp,
        )


def normalize_magnitude(
    module: nn.Module, x: Float[Array, "n h w c"], beta: float, dtype: Any
) -> Float[Array, "n h w c"]:
    """Input over the root of its running mean square, which `module` owns (appendix C.2)."""
    average = module.variable("averages", "magnitude_ema", ones, None, ())
    if module.is_mutable_collection("averages") and not module.is_initializing():
        wide = lax.stop_gradient(x).astype(average.value.dtype)
        now = jnp.mean(jnp.square(wide))
        average.value = now + (average.value - now) * beta
    # NOTE: the official code scales the kernel, which is the same.
    y = x * lax.rsqrt(average.value)
    return y.astype(dtype or y.dtype)


def pair(size: Size) -> tuple[int, int]:
    """(height, width) of one number or of two."""
    return (size, size) if isinstance(size, int) else size
