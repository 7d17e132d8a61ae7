"""What Aurora's networks learn from beside the adversarial loss (Aurora, section 3.3)."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ganjax.layers.moe import COLLECTION, Told
from ganjax.layers.resample import downsample
from ganjax.pretrained.clip import normalise, unit


def pyramid(
    images: Float[Array, "n h w c"], resolutions: tuple[int, ...]
) -> dict[int, Float[Array, "n _ _ c"]]:
    """Images of smaller sizes, each the means of 2x2 pixels of one of twice its size.

    Raises:
        ValueError: halving does not lead to all of the sizes.
    """
    found: dict[int, Array] = {}
    size = images.shape[1]
    while size >= min(resolutions):
        if size in resolutions:
            found[size] = images
        images, size = downsample(images), size // 2
    if set(found) != set(resolutions):
        raise ValueError(
            f"images of {images.shape[1]} pixels at the end do not halve to {resolutions}; set"
            " config.data.resolution to 4, 8, 16 and so on"
        )
    return found


def alike(tokens: Int[Array, "n l"]) -> Bool[Array, "n n"]:
    """Which texts of a batch are the same, letter by letter."""
    return jnp.all(tokens[:, None] == tokens[None], axis=-1)


def others(tokens: Int[Array, "n l"]) -> tuple[Int[Array, "n"], Bool[Array, "n"]]:
    """For each sample one whose text is another, the next such one in the batch; is there any?"""
    n = len(tokens)
    shift = (jnp.arange(n)[:, None] + jnp.arange(n)) % n  # [n, n]: samples from i on
    differs = jnp.take_along_axis(~alike(tokens), shift, axis=1)
    first = jnp.argmax(differs, axis=1)
    return shift[jnp.arange(n), first], jnp.any(differs, axis=1)


def rejected(logits: Float[Array, "n k"], counted: Bool[Array, "n"]) -> Float[Array, ""]:
    """What D pays for taking pictures for real beside a text that is not theirs (matching-aware).

    Args:
        counted: samples with such a text; others weigh nothing.
    """
    each = jnp.mean(jax.nn.softplus(logits), axis=1)
    return jnp.sum(jnp.where(counted, each, 0.0)) / jnp.maximum(jnp.sum(counted), 1)


def contrastive(
    images: Float[Array, "n e"],
    texts: Float[Array, "n e"],
    scale: Float[Array, ""],
    same: Bool[Array, "n n"],
) -> Float[Array, ""]:
    """CLIP's loss: each picture among the texts of the batch, each text among its pictures.

    Args:
        images, texts: embeddings of pictures and of their texts.
        scale: of the cosines.
        same: texts that are the same, which are not told apart.
    """
    logits = scale * jnp.dot(unit(images), unit(texts).T, precision="highest")
    logits = jnp.where(same & ~jnp.eye(len(same), dtype=bool), -jnp.inf, logits)
    right = jnp.diagonal(logits)
    sums = jax.nn.logsumexp(logits, axis=0) + jax.nn.logsumexp(logits, axis=1)
    return jnp.mean(sums / 2 - right)


def as_clip_sees(images: Float[Array, "n h w c"], size: int) -> Float[Array, "n size size 3"]:
    """Images in [-1, 1] of any size as the image tower takes them; not clipped."""
    shape = (len(images), size, size, images.shape[-1])
    images = jax.image.resize(images, shape, "cubic")
    return normalise(jnp.broadcast_to((images + 1) * 127.5, (*shape[:3], 3)))


def told_by_layer(collections: Any) -> dict[str, Told]:
    """What each mixture of experts has told in a call, by the name of its layer."""
    found = jax.tree_util.tree_flatten_with_path(
        collections.get(COLLECTION, {}), is_leaf=lambda leaf: isinstance(leaf, Told)
    )[0]
    return {
        jax.tree_util.keystr(path[:-2], simple=True, separator="/"): told for path, told in found
    }
