"""Adversarial losses on discriminator logits.

Every function takes raw logits of shape ``[n]`` and returns scalars: the mean over the batch.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def hinge_d(real: Float[Array, "n"], fake: Float[Array, "m"]) -> tuple[Array, Array]:
    """Hinge loss of the discriminator, its two terms apart (Lim & Ye 2017; BigGAN, section 2).

    The loss is their sum, each with weight 1.
    """
    return jnp.mean(jax.nn.relu(1 - real)), jnp.mean(jax.nn.relu(1 + fake))


def hinge_g(fake: Float[Array, "n"]) -> Array:
    """Hinge loss of the generator: the negative mean logit of its samples."""
    return -jnp.mean(fake)


def logistic_d(real: Float[Array, "n"], fake: Float[Array, "m"]) -> tuple[Array, Array]:
    """Logistic (the original GAN's) loss of the discriminator, its two terms apart."""
    return jnp.mean(jax.nn.softplus(-real)), jnp.mean(jax.nn.softplus(fake))


def logistic_g(fake: Float[Array, "n"]) -> Array:
    """Non-saturating logistic loss of the generator (Goodfellow et al. 2014)."""
    return jnp.mean(jax.nn.softplus(-fake))
