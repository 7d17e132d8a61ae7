"""Optimizer correction, averaging, and grouping of parameters."""

import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.adversarial.state import Ema, Player, adam, constant_decay, merge, split_by_touch


def test_lazy_adam_is_adam_with_corrected_rate_and_betas():
    gradient, params = {"w": jnp.array([0.5, -2.0])}, {"w": jnp.zeros(2)}
    r = 16 / 17
    lazy, plain = adam(0.002, 0.3, 0.99, lazy=16), adam(0.002 * r, 0.3**r, 0.99**r)
    for optimizer_state in ((lazy.init(params), plain.init(params)),):
        one, other = optimizer_state
        for _ in range(3):
            step_one, one = lazy.update(gradient, one, params)
            step_other, other = plain.update(gradient, other, params)
            np.testing.assert_array_equal(step_one["w"], step_other["w"])
    assert abs(step_one["w"][0]) == pytest.approx(0.002 * r, rel=1e-4)


@pytest.mark.parametrize("buffers, expected", [("average", 0.9), ("copy", 0.0)])
def test_ema_of_buffers(buffers, expected):
    rule = Ema(constant_decay(0.9), buffers=buffers)
    player = Player(
        params={"w": jnp.zeros(1)}, collections={"bn": {"m": jnp.zeros(1)}}, optimizer={}
    )
    ema = rule.update(
        {"params": {"w": jnp.ones(1)}, "bn": {"m": jnp.ones(1)}},
        player,
        jnp.int32(1),
        jnp.uint32(0),
    )
    np.testing.assert_allclose(ema["params"]["w"], 0.9)
    np.testing.assert_allclose(ema["bn"]["m"], expected)


def test_an_average_of_what_does_not_move_stays_the_same_to_the_bit():
    weights = {"w": jnp.asarray(np.random.default_rng(0).normal(size=1000), jnp.float32)}
    player = Player(params=weights, collections={}, optimizer={})
    ema = Ema(constant_decay(0.9)).update({"params": weights}, player, jnp.int32(1), jnp.uint32(0))
    np.testing.assert_array_equal(ema["params"]["w"], weights["w"])


def test_constant_decay_copies_before_its_start():
    decay = constant_decay(0.9, start_step=3)
    assert [round(float(decay(jnp.int32(step), jnp.int32(0))), 3) for step in (1, 2, 3, 4)] == [
        0.0,
        0.0,
        0.9,
        0.9,
    ]


def test_split_and_merge_are_inverse():
    params = {"a": {"kernel": 1, "bias": 2}, "b": {"kernel": 3}}
    groups = split_by_touch(params, {"main": ".*", "reg": "^a/"})
    assert groups == {"main+reg": {"a": {"kernel": 1, "bias": 2}}, "main": {"b": {"kernel": 3}}}
    assert merge(list(groups.values())) == params


def test_weight_decay_is_adamws():
    params, gradient = {"w": jnp.array([2.0, -4.0])}, {"w": jnp.array([0.0, 1.0])}
    plain, decayed = (adam(0.1, 0.0, 0.99, weight_decay=w) for w in (0.0, 0.5))
    one, other = (o.update(gradient, o.init(params), params)[0]["w"] for o in (plain, decayed))
    np.testing.assert_allclose(other - one, -0.1 * 0.5 * params["w"], rtol=1e-6)
    with pytest.raises(ValueError, match="weight decay of -1; set"):
        adam(0.1, 0.0, 0.99, weight_decay=-1.0)
