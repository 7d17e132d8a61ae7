"""Self-attention over pixels, as of SAGAN (Zhang et al., 2019)."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ganjax.layers import initializers
from ganjax.layers.resample import max_pool
from ganjax.layers.spectral import SpectralConv


class SelfAttention(nn.Module):
    """Each pixel attends to all pixels of a grid half as fine, on top of the identity.

    Queries and keys have c / 8 channels and values c / 2; keys and values are max-pooled. Scores
    are not divided by the root of their dimension, and their softmax is in float32. `gamma` starts
    at zero, the block as the identity.

    Attributes:
        conv: makes the four 1x1 convolutions, without bias.
    """

    conv: Callable[..., nn.Module] = SpectralConv

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        n, h, w, c = x.shape
        narrow = max(c // 8, 1)

        def project(features: int, name: str) -> nn.Module:
            return self.conv(features=features, kernel_size=1, use_bias=False, name=name)

        theta = project(narrow, "theta")(x).reshape(n, h * w, -1)
        phi = max_pool(project(narrow, "phi")(x)).reshape(n, h * w // 4, -1)
        g = max_pool(project(c // 2, "g")(x)).reshape(n, h * w // 4, -1)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        scores = jnp.einsum("npd,nqd->npq", theta, phi, preferred_element_type=wide)
        beta = jax.nn.softmax(scores, axis=-1).astype(g.dtype)
        attended = jnp.einsum("npq,nqd->npd", beta, g).reshape(n, h, w, -1)
        gamma = self.param("gamma", initializers.zeros, ())
        return x + gamma.astype(x.dtype) * project(c, "o")(attended)
