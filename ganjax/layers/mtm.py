"""The modulated transformation module (Yang et al., "Learning Modulated Transformation in GANs").

A style decides where a convolution looks. The paper leaves the operator's details open; they are
those of Aurora's generator, by some of the same authors: a third of the predicted channels weighs
the taps, all of them pass a learned scale and bias that start from zero, and only convolutions that
keep the resolution are replaced. Which ones, and what the paper's counts say: docs/mtm.md.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Float

from ganjax.layers.deformable import deformable_conv2d
from ganjax.layers.initializers import zeros
from ganjax.layers.modulated import DEMODULATION_EPS, Eps, ModulatedConv


class OffsetField(nn.Module):
    """Where each tap looks, and how much it counts, from features and w (MTM, equation 4).

    Parameters: those of a `ModulatedConv`, and `scale` and `bias` [3 taps], which start from zero:
    no offset and a mask of 1.

    Attributes:
        kernel_size: of the convolution that looks there, and of the one that predicts it.
        demodulate, eps: of the latter.
        dtype: of its computation; None: as input and kernel promote.
    """

    kernel_size: int = 3
    demodulate: bool = True
    eps: Eps = DEMODULATION_EPS
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w i"], w: Float[Array, "n d"]
    ) -> tuple[Float[Array, "n h w taps 2"], Float[Array, "n h w taps"]]:
        """Offsets in pixels, (down, right), and the mask in [0, 2]; float32."""
        taps = self.kernel_size**2
        conv = ModulatedConv(
            3 * taps,
            self.kernel_size,
            demodulate=self.demodulate,
            eps=self.eps,
            dtype=self.dtype,
        )
        nn.share_scope(self, conv)
        y = conv(x, w)
        y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
        y = y * self.param("scale", zeros, (3 * taps,)) + self.param("bias", zeros, (3 * taps,))
        offsets, mask = y[..., : 2 * taps], y[..., 2 * taps :]
        return offsets.reshape(*y.shape[:3], taps, 2), 2 * jax.nn.sigmoid(mask)


class ModulatedTransformConv(nn.Module):
    """Modulated convolution at places that features and w choose: a `conv` as `ModulatedConv` is.

    Until it has learned otherwise, it is the plain one. Parameters: those of `conv`, and `offsets`.

    Attributes:
        features: output channels.
        up: factor of the resolution; other than 1, there are no offsets.
        demodulate, eps, taps, dtype: as of `ModulatedConv`.
        strength: factor of the offsets. 0 shows what they do (figure 4 of the paper).
        conv: makes the modulated convolution, called with the fields above but `strength`.
    """

    features: int
    kernel_size: int = 3
    up: int = 1
    demodulate: bool = True
    eps: Eps = DEMODULATION_EPS
    taps: Any = (1, 3, 3, 1)
    dtype: Any = None
    strength: float = 1.0
    conv: Callable[..., nn.Module] = ModulatedConv

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w i"], w: Float[Array, "n d"]
    ) -> Float[Array, "n h2 w2 o"]:
        conv = self.conv(
            features=self.features,
            kernel_size=self.kernel_size,
            up=self.up,
            demodulate=self.demodulate,
            eps=self.eps,
            taps=self.taps,
            dtype=self.dtype,
        )
        # Its parameters are named as without offsets: a plain checkpoint fits.
        nn.share_scope(self, conv)
        if self.up != 1:
            return conv(x, w)
        field = OffsetField(self.kernel_size, self.demodulate, self.eps, self.dtype, name="offsets")
        offsets, mask = field(x, w)
        places = functools.partial(deformable_conv2d, offsets=offsets * self.strength, mask=mask)
        return conv(x, w, places)


# Resolutions of feature maps (table 4; of "low" as many as its count of parameters says).
GROUPS = {"low": (8, 16), "mid": (32, 64), "high": (128, 256, 512, 1024)}


def conv_at(
    groups: Sequence[str | int],
    sizes: Iterable[int],
    conv: Callable[..., nn.Module] = ModulatedTransformConv,
) -> FrozenDict[int, Callable[..., nn.Module]]:
    """What makes the convolutions at the resolutions where the module is, for a generator.

    Args:
        groups: keys of `GROUPS`, and resolutions by number.
        sizes: the resolutions that the generator has.

    Raises:
        ValueError: a group of which it has none.
    """
    there = set(sizes)
    found: set[int] = set()
    for group in groups:
        own = there & set(GROUPS[group] if group in GROUPS else (group,))
        if not own:
            raise ValueError(
                f"config.model.mtm={tuple(groups)} has {group!r}; set names of {GROUPS}, or"
                f" resolutions, of which this generator has {sorted(there)}"
            )
        found |= own
    return FrozenDict({size: conv for size in sorted(found)})
