"""Pairs of pictures that should be alike, compared pixel by pixel.

The equivariance of StyleGAN3 (Karras et al. 2021, appendix E) is such a measure: an image that was
made moved against the same image, moved afterwards.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from ganjax.metrics.blocks import check_features

RANGE = 2.0  # of pixels: -1 to 1


def squares(pairs: Mapping[str, Array]) -> Float[Array, "n 2"]:
    """Of each pair the sum of squared differences, and how many numbers they are of.

    Args:
      pairs: "one" and "other" [n, h, w, c]; "mask" [n, h, w, 1], where only some pixels count.
    """
    one, other = pairs["one"], pairs["other"]
    mask = jnp.broadcast_to(pairs.get("mask", 1.0), one.shape)
    axes = tuple(range(1, one.ndim))
    # Not a product: what the mask leaves out may be anything.
    wrong = jnp.where(mask > 0, jnp.square(one - other) * mask, 0)
    return jnp.stack([wrong.sum(axes), mask.sum(axes)], axis=1)


def psnr(rows: Shaped[np.ndarray, "n 2"]) -> float:
    """The peak signal-to-noise ratio over all pairs together, in dB.

    Args:
      rows: of `squares`.

    Raises:
      ValueError: sums that are not finite; no pixel that can be compared.
    """
    check_features("sums of squares", rows)
    wrong, counted = (rows[:, column].sum(dtype=np.float64) for column in range(2))
    if not counted:
        raise ValueError("the masks of all pairs are empty, so nothing can be compared")
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(RANGE**2 * counted / wrong))
