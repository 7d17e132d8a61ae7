"""Latents for sampling: item i of a sequence depends on (key, i) alone, and may be truncated.

Two conventions go by the name "truncation" and differ by the same number's meaning:

* *resampling* (BigGAN, section 3.1): a value with magnitude above the threshold `t` is drawn
  again. That is the normal distribution truncated to [-t, t]: `truncated_normal`. Every sheet,
  flag and metric of ganjax means this one.
* *scaling* (the published generators of TF-Hub and pytorch-pretrained-BigGAN): the threshold
  is always 2, and the draw is multiplied by the truncation: `scaled_truncated_normal`. A
  truncation of 0.5 reaches to +-1 there, and to +-0.5 under resampling.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt, UInt32

Key = PRNGKeyArray | UInt32[Array, "2"]
Threshold = float | Float[Array | np.ndarray, ""] | np.floating

# The threshold below which the scaling convention draws, before it multiplies.
SCALED_THRESHOLD = 2.0


def truncated_normal(key: Key, shape: tuple[int, ...], threshold: Threshold) -> Float[Array, "..."]:
    """Standard normals truncated to [-threshold, threshold] (BigGAN, section 3.1, resampling).

    One key gives the same quantiles at every threshold: the pictures of one item at two
    thresholds show the same latent, squeezed.
    """
    if isinstance(threshold, int | float):
        check_truncation(threshold)
    return jax.random.truncated_normal(key, -threshold, threshold, shape, jnp.float32)


def scaled_truncated_normal(
    key: Key, shape: tuple[int, ...], truncation: Threshold
) -> Float[Array, "..."]:
    """`truncation` times a normal truncated to [-2, 2] (TF-Hub, pytorch-pretrained-BigGAN)."""
    if isinstance(truncation, int | float):
        check_truncation(truncation)
    return jnp.asarray(truncation) * truncated_normal(key, shape, SCALED_THRESHOLD)


def pretrained_biggan_latents(
    seed: int, n: int, dim: int, truncation: float
) -> Float[np.ndarray, "n dim"]:
    """The very latents that pytorch-pretrained-BigGAN draws for `seed` (scaling convention).

    For repeating a published picture. Unlike `latents`, row i depends on n and dim.
    """
    check_truncation(truncation)
    random = np.random.RandomState(seed)
    draws = scipy.stats.truncnorm.rvs(
        -SCALED_THRESHOLD, SCALED_THRESHOLD, size=(n, dim), random_state=random
    )
    return truncation * draws.astype(np.float32)


def truncated_normal_quantile(
    u: Float[Array, "*shape"], threshold: Threshold
) -> Float[Array, "*shape"]:
    """The value below which a share `u` in [0, 1] of the truncated normal lies."""
    reach = jax.lax.erf(jnp.float32(threshold) / np.sqrt(2.0))
    value = np.sqrt(2.0) * jax.lax.erf_inv((2.0 * u - 1.0) * reach)
    return jnp.clip(value, -threshold, threshold)


def truncated_normal_std(threshold: float) -> float:
    """The standard deviation of the normal truncated to [-threshold, threshold]."""
    check_truncation(threshold)
    return float(scipy.stats.truncnorm.std(-threshold, threshold))


def latents(
    key: Key, start: int, n: int, dim: int, truncation: float | None = None
) -> Float[Array, "n dim"]:
    """Latents of the items [start, start + n) of the sequence that `key` names.

    Item i is a pure function of (key, i): of neither the batch size nor the other items. So
    samples may be drawn in any chunks, on any number of hosts.

    Args:
      truncation: threshold of the resampling convention; None for the plain normal.
    """
    indices = start + np.arange(n, dtype=np.uint32)
    if truncation is None:
        return _latents(key, indices, dim)
    check_truncation(truncation)
    # The threshold is traced: one program serves a sheet of many thresholds.
    return _latents(key, indices, dim, np.float32(truncation))


def latents_at(
    key: Key,
    indices: Int[Array | np.ndarray, "n"] | UInt[Array | np.ndarray, "n"],
    dim: int,
    truncation: Threshold | None = None,
) -> Float[Array, "n dim"]:
    """As `latents`, for any items, to be called inside a jitted function."""
    if truncation is None:
        draw = functools.partial(jax.random.normal, shape=(dim,), dtype=jnp.float32)
    else:
        draw = functools.partial(truncated_normal, shape=(dim,), threshold=truncation)
    return jax.vmap(lambda index: draw(jax.random.fold_in(key, index)))(indices)


_latents = jax.jit(latents_at, static_argnames="dim")


def check_truncation(truncation: float) -> None:
    """ValueError unless `truncation` is a positive, finite number."""
    if not (np.isfinite(truncation) and truncation > 0):
        raise ValueError(
            f"truncation is {truncation}; a positive number is wanted (the paper uses 2, 1.5, 1,"
            " 0.5, 0.04); set None for no truncation"
        )
