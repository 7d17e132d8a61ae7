"""Changing resolution by two. Fused with a convolution: `convolution.py`.

Windows rather than reshapes and means: a TPU keeps channels in lanes and pays for every reshape
that splits pixels (docs/tpu.md).
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float


def upsample(x: Float[Array, "n h w c"]) -> Float[Array, "n 2*h 2*w c"]:
    """Each pixel becomes 2x2 (nearest neighbour)."""
    # Sums over 2x2 of the pixels set apart by zeros: each sees exactly one of them.
    pad, no_pad = (1, 1), (0, 0)
    return lax.reduce_window(
        x,
        np.zeros((), x.dtype)[()],
        lax.add,
        (1, 2, 2, 1),
        (1, 1, 1, 1),
        (no_pad, pad, pad, no_pad),
        base_dilation=(1, 2, 2, 1),
    )


def downsample(x: Float[Array, "n h w c"]) -> Float[Array, "n h/2 w/2 c"]:
    """The mean of each 2x2."""
    zero = np.zeros((), x.dtype)[()]
    return lax.reduce_window(x, zero, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4


def max_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n h/2 w/2 c"]:
    """The largest of each 2x2."""
    # Not a window: the gradient of a largest-of-window is slow on CPU.
    rows = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])
