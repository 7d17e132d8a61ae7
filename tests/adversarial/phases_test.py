"""The phase machine, on a game small enough to play by hand."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ganjax.adversarial.phases import (
    Game,
    Outcome,
    Phase,
    due,
    init_state,
    items_per_step,
    make_step,
    phase_key,
    programs,
    streams,
)
from ganjax.adversarial.state import Ema, adam, constant_decay, split_by_touch

LR = 0.1


def g_loss(params, game: Game):
    """Pulls g's weight along the draws; counts its calls in a side collection."""
    calls = game.players["g"]["stats"]["calls"] + 1
    value = jnp.sum(params["w"] * jnp.mean(game.draws, axis=0))
    return value, Outcome({"g": {"stats": {"calls": calls}}}, {"drawn": jnp.mean(game.draws)})


def d_loss(params, game: Game):
    """Pulls d's weight along the data."""
    value = params["v"] * jnp.mean(game.batch["x"])
    return value, Outcome(passed={"seen": jnp.mean(game.batch["x"])})


def d_penalty(params, game: Game):
    """Sees what d/main passed on and keeps it in the extras."""
    seen = game.passed["seen"]
    return 0.5 * params["b"] ** 2, Outcome(extras={"seen": seen}, metrics={"seen": seen})


def normal(key, game):
    return jax.random.normal(key, (game.size, 3))


def make_phases(**changes):
    d_main = {"times": 2, "microbatches": 2, "size": 4, "batch": "real", "touches": "v"}
    return (
        Phase("d/main", "d", d_loss, **(d_main | changes)),
        Phase("d/reg", "d", d_penalty, size=4, every=4, touches="b", writes=("extras/seen",)),
        Phase("g/main", "g", g_loss, size=4, draw=normal, writes=("g/stats",)),
    )


VARIABLES = {
    "g": {"params": {"w": jnp.ones(3)}, "stats": {"calls": jnp.zeros((), jnp.int32)}},
    "d": {"params": {"v": jnp.float32(1.0), "b": jnp.float32(2.0)}},
}
OPTIMIZERS = {"g": optax.sgd(LR), "d": optax.sgd(LR)}
EMA = Ema(constant_decay(0.5), buffers="copy")
EXTRAS = {"seen": jnp.float32(0)}


def play(phases, steps=1, unroll=True, optimizers=OPTIMIZERS, recorded=None):
    state = init_state(VARIABLES, phases, optimizers, EMA, EXTRAS)
    step = jax.jit(make_step(phases, optimizers, EMA, unroll=unroll), static_argnames="due")
    batch = {"real": {"x": jnp.arange(16.0).reshape(2, 2, 4)}}
    metrics = {}
    for index in range(steps):
        now = due(phases, index)
        state, metrics = step(state, batch, jax.random.key(0), None, recorded, due=now)
    return state, metrics


def test_programs_are_the_distinct_steps_with_their_shares():
    phases = tuple(
        Phase(name, "g", g_loss, size=1, every=every)
        for name, every in (("g/main", 1), ("g/path", 4), ("d/main", 1), ("d/r1", 16))
    )
    assert programs(phases) == {
        ("g/main", "d/main"): Fraction(3, 4),
        ("g/main", "g/path", "d/main"): Fraction(3, 16),
        ("g/main", "g/path", "d/main", "d/r1"): Fraction(1, 16),
    }


def test_times_take_fresh_slices_and_microbatches_average():
    state, metrics = play(make_phases())
    # Two optimizer steps: along the mean of items 0..7, then of 8..15.
    np.testing.assert_allclose(state.players["d"].params["v"], 1 - LR * (3.5 + 11.5), rtol=1e-6)
    assert int(state.items) == items_per_step(make_phases()) == 16
    assert metrics["d/reg/seen"] == np.mean([12, 13, 14, 15]), "the last microbatch's is passed on"
    assert state.extras["seen"] == metrics["d/reg/seen"]


def test_microbatches_can_be_summed():
    state, _ = play(make_phases(reduce="sum"))
    np.testing.assert_allclose(state.players["d"].params["v"], 1 - LR * 2 * (3.5 + 11.5), rtol=1e-6)


def test_scan_equals_written_out():
    for one, other in zip(
        jax.tree.leaves(play(make_phases(), steps=3, unroll=True)),
        jax.tree.leaves(play(make_phases(), steps=3, unroll=False)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_lazy_phase_is_played_every_k_steps_with_gain_k():
    once, _ = play(make_phases(), steps=1)
    np.testing.assert_allclose(once.players["d"].params["b"], 2 - LR * 4 * 2, rtol=1e-6)
    fourth, _ = play(make_phases(), steps=4)
    assert fourth.players["d"].params["b"] == once.players["d"].params["b"]


def test_untouched_parameters_keep_moments_and_counts():
    optimizers = {"g": optax.sgd(LR), "d": adam(LR, 0.0, 0.99)}
    state, _ = play(make_phases(), steps=3, optimizers=optimizers)
    counts = {
        group: int(optax.tree_utils.tree_get(state.players["d"].optimizer[group], "count"))
        for group in state.players["d"].optimizer
    }
    assert counts == {"d/main": 6, "d/reg": 1}


def test_side_state_is_kept_and_the_average_follows():
    state, _ = play(make_phases(), steps=2)
    assert int(state.players["g"].collections["stats"]["calls"]) == 2
    assert int(state.ema["stats"]["calls"]) == 2, "buffers are copied"
    weights = [np.ones(3)]
    for steps in (1, 2):
        weights.append(play(make_phases(), steps=steps)[0].players["g"].params["w"])
    average = (weights[0] + weights[1]) / 2
    np.testing.assert_allclose(state.ema["params"]["w"], (average + weights[2]) / 2, rtol=1e-6)


def test_side_state_must_be_declared():
    phases = (*make_phases()[:2], Phase("g/main", "g", g_loss, size=4, draw=normal))
    with pytest.raises(ValueError, match="'g/stats'.*writes"):
        play(phases)


def test_recorded_draws_replace_random_ones():
    recorded = {"g/main": jnp.ones((1, 1, 4, 3))}
    state, metrics = play(make_phases(), recorded=recorded)
    np.testing.assert_allclose(state.players["g"].params["w"], 1 - LR, rtol=1e-6)
    assert metrics["g/main/drawn"] == 1


def test_draws_depend_on_step_phase_repeat_and_microbatch():
    key, phase = jax.random.key(1), make_phases()[0]
    keys = [
        phase_key(key, *numbers)
        for numbers in [
            (0, phase, 0, 0),
            (1, phase, 0, 0),
            (0, make_phases()[2], 0, 0),
            (0, phase, 1, 0),
            (0, phase, 0, 1),
        ]
    ]
    assert len({tuple(np.asarray(jax.random.key_data(k))) for k in keys}) == len(keys)


def test_a_stream_has_one_shape():
    with pytest.raises(ValueError, match="d/reg.*one"):
        streams((*make_phases(), Phase("d/reg", "d", d_loss, size=3, batch="real")))


def test_every_parameter_belongs_to_a_phase():
    with pytest.raises(ValueError, match="'b'"):
        split_by_touch({"v": 1, "b": 2}, {"d/main": "v"})
