"""Spectral normalisation: weights divided by an estimate of their largest singular value.

Miyato et al. (2018), with the official BigGAN code's rules: each forward pass refines the singular
vector by one power iteration and divides by the value so obtained. The refined vector and value
are kept only where the collection "spectral" is mutable, that is, in training; a pass that does not
keep them is therefore one iteration ahead of what is stored.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ganjax.layers import initializers
from ganjax.layers.linear import Conv, Dense, Embed, Weighted


def singular_values(
    matrix: Float[Array, "rest out"], u: Float[Array, "values out"], eps: float
) -> tuple[Float[Array, "values"], Float[Array, "values out"]]:
    """One power iteration for the largest singular values of a matrix.

    Args:
        matrix: outputs along its last axis.
        u: estimates of the singular vectors on the side of the outputs, largest first; those after
            the first are made orthogonal to the ones before (Gram-Schmidt).
        eps: vectors are divided by their length or by this, whichever is larger.

    Returns:
        `(values, vectors)`; gradients reach the matrix through the first value alone, with both of
        its singular vectors as constants.
    """
    fixed = lax.stop_gradient(matrix)
    sigmas: list[Array] = []
    us: list[Array] = []
    vs: list[Array] = []
    for vector in lax.stop_gradient(u):
        v = _normalise(_orthogonalise(_image(fixed, vector), vs), eps)
        vs.append(v)
        image = _image(fixed.T, v)
        new_u = _normalise(_orthogonalise(image, us), eps)
        us.append(new_u)
        value = jnp.vdot(image, new_u, precision="highest")
        # Nothing is made of the values after the first, so their gradients are no one's business.
        sigmas.append(value if sigmas else _value(value, matrix, v, new_u))
    return jnp.stack(sigmas), jnp.stack(us)


def _image(matrix: Array, vector: Array) -> Array:
    # A second column of zeros: with one alone, a TPU leaves its matrix unit idle (docs/tpu.md).
    columns = jnp.stack([vector, jnp.zeros_like(vector)], axis=1)
    return jnp.matmul(matrix, columns, precision="highest")[:, 0]


@jax.custom_vjp
def _value(value: Array, matrix: Array, v: Array, u: Array) -> Array:
    """`v^T matrix u`, which is already known, as a function of the matrix."""
    return value


def _value_forward(value, matrix, v, u):
    return value, (v, u)


def _value_backward(saved, gradient):
    v, u = saved
    return None, gradient * jnp.outer(v, u), None, None


_value.defvjp(_value_forward, _value_backward)


def _normalise(vector: Array, eps: float) -> Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), eps)


def _orthogonalise(vector: Array, others: list[Array]) -> Array:
    for other in others:
        # A matrix with fewer dimensions than values leaves vectors of zeros, which exclude nothing.
        square = jnp.maximum(jnp.vdot(other, other), jnp.finfo(other.dtype).tiny)
        vector = vector - other * (jnp.vdot(other, vector) / square)
    return vector


class Spectral(Weighted):
    """Mixed into a layer of `linear.py`: its weight divided by its first singular value.

    Divided is what comes out of the layer, which is the same but for rounding and spares passes
    over the weight: its gradient needs no inner product with the weight (docs/tpu.md).

    Collection "spectral": `u` [values, out] and `sigma` [values], each as of the last training
    pass. Their arithmetic is in float32 whatever the layer computes in.

    Attributes:
        eps: see `singular_values`.
        values: singular values to track; only the first divides.
        iterations: power iterations of a training pass.
    """

    eps: float = 1e-12
    values: int = 1
    iterations: int = 1

    def effective(self, weight: Array) -> tuple[Array, Array]:
        out = weight.shape[-1]
        u = self.variable("spectral", "u", self._initial_u, (self.values, out))
        sigma = self.variable("spectral", "sigma", initializers.ones, None, (self.values,))
        training = self.is_mutable_collection("spectral") and not self.is_initializing()
        matrix = weight.reshape(-1, out)  # [rest, out]
        new_u = u.value
        for _ in range(self.iterations if training else 1):
            new_sigma, new_u = singular_values(matrix, new_u, self.eps)
        if training:
            u.value, sigma.value = new_u, lax.stop_gradient(new_sigma)
        return weight, 1 / new_sigma[0]

    def _initial_u(self, shape: tuple[int, ...]) -> Array:
        return initializers.Normal()(self.make_rng("params"), shape)


class SpectralConv(Spectral, Conv):
    """`Conv` with a spectrally normalised kernel, seen as [rest, out]."""


class SpectralDense(Spectral, Dense):
    """`Dense` with a spectrally normalised kernel."""


class SpectralEmbed(Spectral, Embed):
    """`Embed` with the whole table normalised; `u` has an entry for each class."""
