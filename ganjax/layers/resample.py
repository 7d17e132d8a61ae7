"""Changing resolution by two, alone and fused with a convolution."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ganjax.layers.linear import conv2d


def upsample(x: Float[Array, "n h w c"]) -> Float[Array, "n 2*h 2*w c"]:
    """Each pixel becomes 2x2 (nearest neighbour)."""
    n, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c))  # [n, h, 2, w, 2, c]
    return x.reshape(n, 2 * h, 2 * w, c)


def downsample(x: Float[Array, "n h w c"]) -> Float[Array, "n h/2 w/2 c"]:
    """The mean of each 2x2."""
    n, h, w, c = x.shape
    return jnp.mean(x.reshape(n, h // 2, 2, w // 2, 2, c), axis=(2, 4))


def max_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n h/2 w/2 c"]:
    """The largest of each 2x2."""
    n, h, w, c = x.shape
    return jnp.max(x.reshape(n, h // 2, 2, w // 2, 2, c), axis=(2, 4))


def upsample_conv2d(
    x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]
) -> Float[Array, "n 2*h 2*w o"]:
    """`conv2d(upsample(x), kernel)`."""
    return conv2d(upsample(x), kernel)


def conv2d_downsample(
    x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]
) -> Float[Array, "n h/2 w/2 o"]:
    """`downsample(conv2d(x, kernel))`."""
    return downsample(conv2d(x, kernel))
