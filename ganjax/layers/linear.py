"""Convolution, dense layer and class embedding, plain.

Each has one weight whose last axis counts outputs (the table of `Embed`: classes by features). A
reparameterisation overrides `effective` (`spectral.py`).
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ganjax.layers import initializers
from ganjax.layers.convolution import conv2d


def lookup(
    table: Float[Array, "classes d"], labels: Int[Array, "n"] | Float[Array, "n classes"]
) -> Float[Array, "n d"]:
    """Rows of a table by class, or mixtures of its rows by weights.

    A class outside of the table gives NaN rather than another class.
    """
    if jnp.issubdtype(labels.dtype, jnp.integer):
        return jnp.take(table, labels, axis=0, mode="fill")
    return jnp.matmul(labels.astype(table.dtype), table, precision="highest")


class Weighted(nn.Module):
    """A layer with one weight."""

    def effective(self, weight: Array) -> tuple[Array, Array | None]:
        """What the layer applies in place of its weight, and a factor for what comes out of it."""
        return weight, None

    def scaled(self, y: Array, weight: Array, factor: Array | None) -> Array:
        """What comes out, given what the effective weight made; as wide as the factor."""
        if self.is_mutable_collection("intermediates"):
            self.sow("intermediates", "weight", weight if factor is None else weight * factor)
        return y if factor is None else y * factor


class Conv(Weighted):
    """Convolution; `operation` may change the resolution on the way (`convolution.py`).

    Attributes:
        features: output channels.
        kernel_size: taps along each axis.
        operation: `(x, kernel) -> y`, linear in both.
        dtype: of the computation; None: as input and kernel promote.
    """

    features: int
    kernel_size: int = 3
    use_bias: bool = True
    operation: Callable[..., Array] = conv2d
    kernel_init: Callable[..., Array] = initializers.Orthogonal()
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w i"]) -> Float[Array, "n2 h2 w2 o"]:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        x = x.astype(self.dtype or jnp.promote_types(x.dtype, kernel.dtype))
        kernel, factor = self.effective(kernel)
        y = self.scaled(self.operation(x, kernel), kernel, factor)
        if self.use_bias:
            # Added wide, which is free within a convolution: the bias's gradient is summed so too,
            # over pixels and over devices.
            y = y + self.param("bias", initializers.zeros, (self.features,))
        return y.astype(x.dtype)


class Dense(Weighted):
    """Matrix product plus bias."""

    features: int
    use_bias: bool = True
    kernel_init: Callable[..., Array] = initializers.Orthogonal()
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "n i"]) -> Float[Array, "n o"]:
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        dtype = self.dtype or jnp.promote_types(x.dtype, kernel.dtype)
        kernel, factor = self.effective(kernel)
        y = self.scaled(x.astype(dtype) @ kernel.astype(dtype), kernel, factor)
        if self.use_bias:
            y = y + self.param("bias", initializers.zeros, (self.features,))
        return y.astype(dtype)


class Embed(Weighted):
    """A vector for each class, and mixtures of them."""

    classes: int
    features: int
    embedding_init: Callable[..., Array] = initializers.Orthogonal()

    @nn.compact
    def __call__(
        self, labels: Int[Array, "n"] | Float[Array, "n classes"]
    ) -> Float[Array, "n features"]:
        shape = (self.classes, self.features)
        table = self.param("embedding", self.embedding_init, shape)
        # As the last axis counts outputs elsewhere, the rows of the table do here.
        weight, factor = self.effective(table.T)
        # The factor's gradient waits for nothing where the table takes it: one all-reduce less.
        table = weight.T if factor is None else weight.T * factor
        return self.scaled(lookup(table, labels), table, None)
