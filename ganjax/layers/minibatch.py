"""What a discriminator sees of its whole batch (Karras et al., 2018, section 3)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

EPS = 1e-8


class MinibatchStd(nn.Module):
    """Appends channels that hold a standard deviation over groups of samples.

    Sample i is in group `i mod (n / group)`. Each channel to append has the mean, over its share of
    the channels and over all pixels, of the standard deviation within the group.

    Attributes:
        group_size: samples of a group, at most the batch; None: the batch.
        channels: to append; they divide the channels of the input.
    """

    group_size: int | None = 4
    channels: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c2"]:
        n, h, w, c = x.shape
        size = n if self.group_size is None else min(self.group_size, n)
        if n % size or c % self.channels:
            raise ValueError(
                f"a batch of {n} with {c} channels does not divide into groups of {size} and"
                f" {self.channels} parts; set the batch to a multiple of group_size"
            )
        y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        y = y.reshape(size, -1, h, w, self.channels, c // self.channels)
        # The variance of n, not of n - 1.
        deviation = jnp.sqrt(jnp.var(y, axis=0) + EPS)  # [groups, h, w, channels, share]
        deviation = jnp.mean(deviation, axis=(1, 2, 4))  # [groups, channels]
        deviation = jnp.tile(deviation, (size, 1))[:, None, None, :].astype(x.dtype)
        return jnp.concatenate([x, jnp.broadcast_to(deviation, (n, h, w, self.channels))], axis=-1)
