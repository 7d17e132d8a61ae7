"""Pixels: bytes outside of the step, floats in [-1, 1] inside of it."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def to_float(
    images: UInt8[Array, "*shape"] | Float[Array, "*shape"], dtype: Any = jnp.float32
) -> Float[Array, "*shape"]:
    """Bytes 0..255 to [-1, 1]: 0 is -1 and 255 is 1; floats are taken to be there already."""
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images
    # The arithmetic is in float32 at least: bfloat16 has fewer steps than a byte near 1.
    wide = jnp.promote_types(dtype, jnp.float32)
    return (images.astype(wide) / 127.5 - 1.0).astype(dtype)


def to_uint8(images: Float[Array, "*shape"]) -> UInt8[Array, "*shape"]:
    """[-1, 1] to bytes: the nearest one, clipped; the inverse of `to_float`."""
    return jnp.clip(jnp.round((images.astype(jnp.float32) + 1.0) * 127.5), 0, 255).astype(jnp.uint8)
