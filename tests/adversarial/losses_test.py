"""Losses against their definitions, written out."""

import jax.numpy as jnp
import numpy as np

from ganjax.adversarial.losses import hinge_d, hinge_g, logistic_d, logistic_g

REAL = np.array([-2.0, 0.5, 3.0])
FAKE = np.array([-3.0, 0.25, 1.0])


def test_hinge():
    real, fake = hinge_d(jnp.asarray(REAL), jnp.asarray(FAKE))
    np.testing.assert_allclose(real, (3 + 0.5 + 0) / 3, rtol=1e-6)
    np.testing.assert_allclose(fake, (0 + 1.25 + 2) / 3, rtol=1e-6)
    np.testing.assert_allclose(hinge_g(jnp.asarray(FAKE)), -FAKE.mean(), rtol=1e-6)


def test_logistic():
    real, fake = logistic_d(jnp.asarray(REAL), jnp.asarray(FAKE))
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    np.testing.assert_allclose(real, -np.log(sigmoid(REAL)).mean(), rtol=1e-5)
    np.testing.assert_allclose(fake, -np.log(1 - sigmoid(FAKE)).mean(), rtol=1e-5)
    np.testing.assert_allclose(
        logistic_g(jnp.asarray(FAKE)), -np.log(sigmoid(FAKE)).mean(), rtol=1e-5
    )
