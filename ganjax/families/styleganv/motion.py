"""Motion codes: what moves in a video at any real time (StyleGAN-V, section 3.1).

A trajectory of noise, one vector every `distance` frames, becomes codes u. Between two of them a
motion code v follows waves whose periods and phases the left one tells, and meets both ends. A code
is a function of a window of noise, so a frame costs the same wherever in time it is. Times are
counted in frames and may be any real numbers from 0 on.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ganjax.families.stylegan2.networks import Labels, MappingNetwork
from ganjax.layers.activation import bias_act
from ganjax.layers.equalized import EqualizedDense
from ganjax.layers.initializers import Normal, Uniform, zeros

SLOWDOWN = 0.01  # of the learning rate of the layers that make u, as in mapping networks


class Conv(nn.Module):
    """Convolution over time with an equalised learning rate, and a leaky ReLU.

    Parameters: `kernel` [taps, i, o] and `bias` [o], both stored divided by `SLOWDOWN`.
    """

    features: int
    taps: int

    @nn.compact
    def __call__(self, x: Float[Array, "n codes i"]) -> Float[Array, "n codes2 o"]:
        """`taps - 1` codes fewer: nothing is padded."""
        shape = (self.taps, x.shape[-1], self.features)
        kernel = self.param("kernel", Normal(1 / SLOWDOWN), shape)
        bias = self.param("bias", zeros, (self.features,))
        y = lax.conv_general_dilated(
            x,
            kernel * (SLOWDOWN / math.sqrt(shape[0] * shape[1])),
            (1,),
            "VALID",
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        # NOTE: without the gain that keeps the variance, as in the released code.
        return bias_act(y, bias * SLOWDOWN, "lrelu", gain=1.0)


class Convolutions(nn.Module):
    """Noise to codes u by two convolutions without padding (appendix B.1).

    Attributes:
        hidden, features: of the first and of the second one.
        taps: of each.
    """

    hidden: int
    features: int
    taps: int = 11

    @property
    def reach(self) -> int:
        """Vectors of noise beyond a code's own that it depends on."""
        return 2 * (self.taps - 1)

    @nn.compact
    def __call__(self, noise: Float[Array, "n codes d"]) -> Float[Array, "n codes2 e"]:
        """`reach` codes fewer."""
        x = Conv(self.hidden, self.taps, name="conv0")(noise)
        return Conv(self.features, self.taps, name="conv1")(x)


class Recurrence(nn.Module):
    """Noise to codes u by an LSTM, one after the other (ablated in table 2).

    Parameters: `inputs` [d, 4 e] and `states` [e, 4 e], of the gates input, forget, cell and
    output, and a bias of each, as cuDNN keeps them.

    Attributes:
        hidden, features: of codes; the same number.
    """

    hidden: int
    features: int

    @property
    def reach(self) -> None:
        """A code depends on all noise before it."""
        return None

    @nn.compact
    def __call__(self, noise: Float[Array, "n codes d"]) -> Float[Array, "n codes e"]:
        if self.hidden != self.features:
            raise ValueError(
                f"a recurrence of {self.hidden} numbers gives codes of as many, not of"
                f" {self.features}; set model.motion_dim to model.motion_noise_dim"
            )
        init, gates = Uniform(1 / math.sqrt(self.features)), 4 * self.features
        inputs = self.param("inputs", init, (noise.shape[-1], gates))
        states = self.param("states", init, (self.features, gates))
        bias = self.param("inputs_bias", init, (gates,)) + self.param("states_bias", init, (gates,))

        def step(carry: tuple[Array, Array], given: Array) -> tuple[Any, Array]:
            h, cell = carry
            i, f, g, o = jnp.split(given + h @ states, 4, axis=-1)
            cell = nn.sigmoid(f) * cell + nn.sigmoid(i) * jnp.tanh(g)
            h = nn.sigmoid(o) * jnp.tanh(cell)
            return (h, cell), h

        given = jnp.swapaxes(noise @ inputs + bias, 0, 1)  # [codes, n, gates]
        start = jnp.zeros((given.shape[1], self.features), given.dtype)
        _, codes = lax.scan(step, (start, start), given)
        return jnp.swapaxes(codes, 0, 1)


def octaves(count: int, shortest: int | float, longest: int | float) -> Float[np.ndarray, "count"]:
    """Periods whose logarithms are evenly spaced, the longest first: the released code's."""
    return np.exp2(np.linspace(math.log2(shortest), math.log2(longest), count))[::-1].copy()


def linear(count: int, shortest: int | float, longest: int | float) -> Float[np.ndarray, "count"]:
    """Evenly spaced periods, the longest first: the paper's, Eq. 6."""
    return np.linspace(shortest, longest, count)[::-1].copy()


class Waves(nn.Module):
    """Acyclic positional encoding (Eq. 2 to 5): waves, stitched together where codes u lie.

    Attributes:
        count: of waves; a motion code has a sine and a cosine of each.
        shortest, longest: periods at initialisation, in frames.
        spacing: of the periods between them.
    """

    count: int = 256
    shortest: int | float = 16
    longest: int | float = 1024
    spacing: Callable[..., np.ndarray] = octaves

    @property
    def size(self) -> int:
        """Entries of a motion code."""
        return 2 * self.count

    def constants(self) -> tuple[Float[np.ndarray, "count"], Float[np.ndarray, "count"]]:
        """Frequencies at initialisation, in radians a frame, and what phases are scaled by."""
        frequencies = (2 * np.pi / self.spacing(self.count, self.shortest, self.longest)).astype(
            np.float32
        )
        return frequencies, (self.longest / (2 * np.pi / frequencies)).astype(np.float32)

    @nn.compact
    def __call__(
        self,
        left: Float[Array, "n t e"],
        right: Float[Array, "n t e"],
        start: Float[Array, "n t"],
        passed: Float[Array, "n t"],
        distance: int | float,
        labels: Labels = None,
    ) -> Float[Array, "n t size"]:
        """Motion codes.

        Args:
            left, right: codes u that the times lie between.
            start: time of the left one.
            passed: since then, below `distance`.
            distance: between the two.
            labels: not looked at.
        """
        del labels

        def dense(features: int, name: str) -> EqualizedDense:
            # Without biases, which all videos would share.
            return EqualizedDense(features, use_bias=False, name=name)

        frequencies, scales = self.constants()
        rate = frequencies * (jnp.tanh(dense(self.count, "periods_predictor")(left)) + 1)
        phase = dense(self.count, "phase_predictor")(left) * scales
        align = dense(self.size, "aligners_predictor")
        # From the left code on, and less than a turn: after hours angles of a hundred thousand
        # radians are rounded to hundredths, which so moves a whole piece and does not shake.
        phase = jnp.mod(phase + rate * start[..., None], 2 * np.pi)

        def wave(passed: Array | int | float) -> Array:
            angle = phase + rate * passed
            return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)

        share = (passed / distance)[..., None]
        bridge = _between(align(left) - wave(0.0), align(right) - wave(distance), share)
        return wave(passed[..., None]) + bridge


class Mapped(nn.Module):
    """The codes u themselves, in between interpolated, through a mapping network (MoCoGAN's way).

    Attributes:
        size: entries of a motion code.
        classes: as of `MotionEncoder`.
    """

    size: int = 512
    classes: int = 0

    @nn.compact
    def __call__(
        self,
        left: Float[Array, "n t e"],
        right: Float[Array, "n t e"],
        start: Float[Array, "n t"],
        passed: Float[Array, "n t"],
        distance: int | float,
        labels: Labels = None,
    ) -> Float[Array, "n t size"]:
        """As of `Waves`."""
        del start
        n, frames, entries = left.shape
        u = _between(left, right, (passed / distance)[..., None]).reshape(-1, entries)
        mapping = MappingNetwork(
            entries, self.classes, self.size, layers=2, w_avg_beta=None, name="mapping"
        )
        labels = None if labels is None else jnp.repeat(labels, frames, axis=0)
        return mapping(u, labels).reshape(n, frames, self.size)


class MotionEncoder(nn.Module):
    """Noise and times to motion codes.

    Attributes:
        classes: each code depends on the class, too; 0: on none.
        noise_dim: entries of a vector of noise.
        features: of a code u.
        distance: between codes, in frames.
        trajectory: makes what turns noise into codes u, called with `hidden` and `features`.
        encoding: makes what turns codes u and times into motion codes.
    """

    classes: int = 0
    noise_dim: int = 512
    features: int = 512
    distance: int = 16
    trajectory: Callable[..., Any] = Convolutions
    encoding: Callable[..., Any] = Waves

    def setup(self) -> None:
        self.codes = self.trajectory(hidden=self.noise_dim, features=self.features)
        self.waves = self.encoding()

    @property
    def size(self) -> int:
        """Entries of a motion code."""
        return self.encoding(parent=None).size

    @property
    def reach(self) -> int | None:
        """Vectors of noise beyond a code's own that it depends on; None: on all before it."""
        return self.trajectory(hidden=1, features=1, parent=None).reach

    def window(self, span: int | float, last: int | float) -> int:
        """Vectors of noise that times need.

        Args:
            span: between the first and the last one, at most.
            last: the last one, at most; where all noise before a code counts.
        """
        if self.reach is None:
            return math.ceil(last / self.distance) + 2
        return math.ceil(span / self.distance) + 2 + self.reach

    def first(self, times: Float[Array, "*n t"]) -> Int[Array, "*n"]:
        """Number, from 0, of the first vector of noise that ascending times need."""
        if self.reach is None:
            return jnp.zeros(times.shape[:-1], jnp.int32)
        return jnp.floor(times[..., 0] / self.distance).astype(jnp.int32)

    def __call__(
        self,
        times: Float[Array, "n t"],
        noise: Float[Array, "n codes d"],
        first: Int[Array, "n"] | None = None,
        labels: Labels = None,
    ) -> Float[Array, "n t size"]:
        """Motion codes.

        Args:
            times: in frames, from 0 on.
            noise: of the standard normal distribution, `window` vectors or more.
            first: their first one's number, `first`; None: 0.
        """
        with jax.default_matmul_precision("highest"):
            left, right, number = self.neighbours(times, noise, first, labels)
            start = number * self.distance
            return self.waves(left, right, start, times - start, self.distance, labels)

    def neighbours(
        self,
        times: Float[Array, "n t"],
        noise: Float[Array, "n codes d"],
        first: Int[Array, "n"] | None = None,
        labels: Labels = None,
    ) -> tuple[Float[Array, "n t e"], Float[Array, "n t e"], Float[Array, "n t"]]:
        """The codes u that times lie between, and the left ones' numbers."""
        given = noise
        if self.classes:
            shown = as_weights(labels, self.classes)[:, None].astype(noise.dtype)
            shown = jnp.broadcast_to(shown, (*noise.shape[:2], self.classes))
            given = jnp.concatenate([noise, shown], axis=-1)
        codes = self.codes(given)
        number = jnp.floor(times / self.distance)
        place = number.astype(jnp.int32) - (0 if first is None else first[:, None])
        left, right = (
            jnp.take_along_axis(codes, (place + by)[..., None], axis=1, mode="fill")
            for by in (0, 1)
        )
        return left, right, number


def as_weights(labels: Labels, classes: int) -> Float[Array, "n classes"]:
    """Labels as weights of classes.

    Raises:
        ValueError: there are none.
    """
    if labels is None:
        raise ValueError(f"labels are None, and the network has {classes} classes")
    if jnp.issubdtype(labels.dtype, jnp.integer):
        return jax.nn.one_hot(labels, classes)
    return labels


def _between(left: Array, right: Array, share: Array) -> Array:
    return left * (1 - share) + right * share
