"""TGANv2's regulariser and Chainer's Adam."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ganjax.families.tganv2.losses import chainer_adam, r1_sum


def test_r1_sums_over_videos_and_levels():
    videos = [jnp.ones((3, 1, 2, 2, 1)), jnp.ones((1, 2, 2, 2, 1))]

    def discriminate(videos):
        return jnp.concatenate([2 * videos[0].sum((1, 2, 3, 4)), 5 * videos[1].sum((1, 2, 3, 4))])

    # 12 entries with a gradient of 2 and 8 with one of 5.
    assert r1_sum(discriminate, videos, 0.5) == 0.5 * (12 * 4 + 8 * 25)


def test_the_step_is_chainers():
    # Gradients as small as eps, where it counts to which root it is added.
    alpha, b2, eps, iterations = 1e-3, 0.9, 8e-8, 4
    gradients = [np.array(g) for g in ([3e-8, 1.0], [-5e-8, 0.1], [1e-8, 3.0], [1.0, 1.0])]
    optimizer = chainer_adam(alpha, iterations, b2, eps)
    params = jnp.zeros(2)
    state = optimizer.init(params)
    ours, theirs, v = params, np.zeros(2), np.zeros(2)
    for t, g in enumerate(gradients, 1):
        updates, state = optimizer.update(jnp.asarray(g), state, ours)
        ours = optax.apply_updates(ours, updates)
        v = b2 * v + (1 - b2) * g**2
        rate = alpha * (1 - (t - 1) / iterations)
        theirs -= rate * np.sqrt(1 - b2**t) * g / (np.sqrt(v) + eps)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    updates, _ = optimizer.update(jnp.asarray(gradients[0]), state, ours)
    np.testing.assert_array_equal(updates, 0)  # the learning rate has fallen to 0


def test_wrong_numbers_say_what_to_set():
    with pytest.raises(ValueError, match="over 0 iterations.*set"):
        chainer_adam(1e-4, 0)
