"""The standard deviation over groups of a minibatch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.layers.minibatch import MinibatchStd


def test_groups_are_strided():
    x = jax.random.normal(jax.random.key(0), (4, 2, 2, 6))
    y = MinibatchStd(2, 2).apply({}, x)
    np.testing.assert_array_equal(y[..., :6], x)
    for group in (0, 1):
        pair = np.asarray(x)[[group, group + 2]]
        deviation = np.sqrt(pair.var(axis=0) + 1e-8)
        wanted = [deviation[..., :3].mean(), deviation[..., 3:].mean()]
        for sample in (group, group + 2):
            np.testing.assert_allclose(y[sample, ..., 6:], np.broadcast_to(wanted, (2, 2, 2)), 1e-5)


def test_interleaved_reals_and_fakes_do_not_mix():
    """One pass over both is two passes, one over each."""
    real, fake = jax.random.normal(jax.random.key(0), (2, 8, 2, 2, 3))
    layer = MinibatchStd(4)
    both = jnp.stack([real, fake], axis=1).reshape(16, 2, 2, 3)
    together = layer.apply({}, both).reshape(8, 2, 2, 2, 4)
    np.testing.assert_allclose(together[:, 0], layer.apply({}, real), rtol=1e-6)
    np.testing.assert_allclose(together[:, 1], layer.apply({}, fake), rtol=1e-6)


def test_a_batch_that_does_not_divide():
    with pytest.raises(ValueError, match="batch of 6"):
        MinibatchStd(4).apply({}, jnp.ones((6, 2, 2, 3)))
