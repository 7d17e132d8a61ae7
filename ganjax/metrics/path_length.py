"""Perceptual path length, as NVIDIA's StyleGAN2 code measures it (Karras et al. 2019, 2020).

How much LPIPS changes over a short step between two random latents, over the step squared. The
generator and LPIPS are the caller's: draw `endpoints`, step between them in Z (`slerp`) or in W
(`lerp`), render both ends with the same noise, `prepare` the pictures, and pass their LPIPS over
the squared step to `perceptual_path_length`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from ganjax.metrics.blocks import check_features

SIDE = 256  # pixels that LPIPS looks at
REJECTED = 1.0  # percent of the distances at either end


def endpoints(
    key: Key[Array, ""], indices: Int[Array, "n"], latent_dim: int, sampling: str = "end"
) -> tuple[Float[Array, "n"], Float[Array, "n z"], Float[Array, "n z"]]:
    """Where steps begin, and the latents between which they lead.

    Args:
      indices: of the steps; step i is a pure function of the key and i.
      sampling: steps begin at the first latent ("end", StyleGAN2), or anywhere ("full").

    Returns:
      t in [0, 1); two normal latents.
    """
    if sampling not in ("end", "full"):
        raise ValueError(f"sampling={sampling!r}; set 'end' or 'full'")

    def draw(index: Array) -> tuple[Array, Array]:
        where, which = jax.random.split(jax.random.fold_in(key, index))
        t = jax.random.uniform(where) if sampling == "full" else jnp.zeros(())
        return t, jax.random.normal(which, (2, latent_dim))

    t, both = jax.vmap(draw)(indices)
    return t, both[:, 0], both[:, 1]


def lerp(
    a: Float[Array, "n ..."], b: Float[Array, "n ..."], t: Float[Array, "n"]
) -> Float[Array, "n ..."]:
    """A straight line, for latents in W."""
    return a + (b - a) * t.reshape(-1, *(1,) * (a.ndim - 1))


def slerp(
    a: Float[Array, "n z"], b: Float[Array, "n z"], t: Float[Array, "n"]
) -> Float[Array, "n z"]:
    """The great circle between two directions, for latents in Z: unit vectors."""
    a, b = _unit(a), _unit(b)
    cosine = (a * b).sum(axis=-1, keepdims=True)
    angle = t[:, None] * jnp.arccos(jnp.clip(cosine, -1, 1))
    across = _unit(b - cosine * a)
    return _unit(a * jnp.cos(angle) + across * jnp.sin(angle))


def _unit(x: Array) -> Array:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def prepare(images: Float[Array, "n h w c"], crop: bool = False) -> Float[Array, "n i j 3"]:
    """Pictures as LPIPS sees them: [-1, 1] to [0, 255], grey thrice, at most 256 pixels.

    Args:
      images: in [-1, 1]; square.
      crop: to where faces are: rows 3/8 to 7/8, columns 2/8 to 6/8. The picture is then shrunk by
        the factor of the whole one, so that it ends below 256 pixels.

    Raises:
      ValueError: a picture that is not square, or a side that is no multiple of 256 above it.
    """
    n, height, width, channels = images.shape
    factor = max(height // SIDE, 1)
    if height != width or (height > SIDE and height % SIDE):
        raise ValueError(
            f"images are {height}x{width}; square ones are expected, of {SIDE} pixels, a multiple"
            " of that, or less"
        )
    if channels not in (1, 3):
        raise ValueError(f"images have {channels} channels; 1 or 3 are expected")
    if crop:
        eighth = height // 8
        images = images[:, 3 * eighth : 7 * eighth, 2 * eighth : 6 * eighth]
    rows, columns = (side // factor for side in images.shape[1:3])
    blocks = images.reshape(n, rows, factor, columns, factor, channels)
    images = (blocks.mean(axis=(2, 4)) + 1) * 127.5
    return jnp.repeat(images, 3, axis=-1) if channels == 1 else images


def perceptual_path_length(distances: Shaped[np.ndarray, "n"]) -> float:
    """The mean distance without the lowest and the highest percent.

    The bounds are samples themselves (the percentile's lower and higher neighbour), and stay in.

    Args:
      distances: LPIPS over the squared step.

    Raises:
      ValueError: no distances, or one that is not finite.
    """
    check_features("path lengths", distances[:, None])
    low = np.percentile(distances, REJECTED, method="lower")
    high = np.percentile(distances, 100 - REJECTED, method="higher")
    kept = distances[(distances >= low) & (distances <= high)]
    return float(kept.mean(dtype=np.float64))
