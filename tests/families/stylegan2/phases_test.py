"""Phases of StyleGAN2; their losses and gradients are tested by the goldens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ganjax.adversarial.ada import Adaptive
from ganjax.adversarial.augment import pipe
from ganjax.adversarial.phases import Game, init_state, keep_extras, make_step, programs
from ganjax.adversarial.state import Ema, adam
from ganjax.families.stylegan2.networks import (
    Discriminator,
    Generator,
    MappingNetwork,
    example_inputs,
)
from ganjax.families.stylegan2.phases import (
    Blur,
    Draws,
    Losses,
    finite_gradients,
    half_life_decay,
    phases,
)
from ganjax.layers.initializers import init_on_host

SMALL = dict(resolution=8, image_channels=1, classes=2, channel_base=32, channel_max=4)
MAPPING = functools.partial(MappingNetwork, layers=1)
G = Generator(latent_dim=4, w_dim=4, mapping_network=MAPPING, **SMALL)
D = Discriminator(mapping_network=MAPPING, **SMALL)


def game(size, labels):
    return Game({}, {}, {"label": labels}, None, None, {}, 0, 0, size)


def test_programs_and_their_shares():
    played = phases(Losses(G, D), batch=8)
    assert [phase.name for phase in played] == ["g/main", "g/path", "d/main", "d/r1"]
    shares = {names: float(share) for names, share in programs(played).items()}
    assert sorted(shares.values()) == [0.0625, 0.1875, 0.75]
    assert shares["g/main", "d/main"] == 0.75


def test_a_weight_of_zero_leaves_a_regulariser_out():
    played = phases(Losses(G, D, r1_gamma=0.0, path_weight=0.0), batch=3)
    assert [phase.name for phase in played] == ["g/main", "d/main"]


@pytest.mark.parametrize(
    "name, value", [("r1_gamma", -1.0), ("path_weight", -2.0), ("mixing", 1.5)]
)
def test_a_weight_that_cannot_be(name, value):
    with pytest.raises(ValueError, match=rf"config.loss.{name}={value:g}.*set"):
        Losses(G, D, **{name: value})


@pytest.mark.parametrize("name", ["path_every", "r1_every"])
def test_a_regulariser_that_is_never_played(name):
    with pytest.raises(ValueError, match=rf"config.loss.{name}=0.*1 or more"):
        phases(Losses(G, D), batch=8, **{name: 0})
    without = phases(Losses(G, D, r1_gamma=0.0, path_weight=0.0), batch=8, **{name: 0})
    assert [phase.name for phase in without] == ["g/main", "d/main"]


def test_a_batch_that_does_not_divide():
    with pytest.raises(
        ValueError, match=r"train.batch=6 is no multiple of 4.*Set config.train.batch to 4"
    ):
        phases(Losses(G, D), batch=6, microbatches=2)


def test_draws_depend_on_the_key_alone_and_labels_on_the_data():
    labels = jnp.array([1, 0, 1, 1])
    draw = Draws(G, mixing=True, pixels=True, shrink=2)
    draws = draw(jax.random.key(3), game(4, labels))
    assert draws["z"].shape == (2, 4) and draws["pixels"].shape == (2, 8, 8, 1)
    assert {name: array.shape for name, array in draws["noise"].items()} == {
        "b4.conv1": (2, 4, 4, 1),
        "b8.conv0": (2, 8, 8, 1),
        "b8.conv1": (2, 8, 8, 1),
    }
    np.testing.assert_array_equal(draws["label"], labels[:2])
    assert 1 <= draws["cutoff"] < G.num_ws and draws["cutoff"].shape == ()
    again = draw(jax.random.key(3), game(4, labels))
    jax.tree.map(np.testing.assert_array_equal, draws, again)
    parts = [draws["z"], draws["mixing_z"], draws["pixels"], *draws["noise"].values()]
    firsts = {round(float(part.ravel()[0]), 6) for part in parts}
    assert len(firsts) == len(parts), "two of the draws are the same numbers"


def step_and_state(losses):
    """The step, and a state and a batch of four to play it on."""
    played = phases(losses, batch=4)
    optimizers = {"g": adam(1e-3, 0.0, 0.99, lazy=4), "d": adam(1e-3, 0.0, 0.99, lazy=16)}
    ema = Ema(half_life_decay(4, 100))
    variables = {
        name: init_on_host(module, jax.random.key(0), *example_inputs(module)[0])
        for name, module in (("g", G), ("d", D))
    }
    extras = {"path_mean": np.zeros((), np.float32)}
    extras |= losses.augment.extras() if losses.augment else {}
    state = init_state(variables, played, optimizers, ema, extras)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (1, 1, 4, 8, 8, 1), np.uint8),
        "label": rng.integers(0, 2, (1, 1, 4), np.int32),
    }
    adjust = losses.augment.adjust if losses.augment else keep_extras
    return make_step(played, optimizers, ema, unroll=True, adjust=adjust), state, batch


@pytest.fixture(scope="module")
def run():
    """`play(names, state) -> state` and a start, all phases declared."""
    step, state, batch = step_and_state(Losses(G, D, mixing=0.5))

    @functools.cache
    def play(names):
        return jax.jit(functools.partial(step, due=names))(
            state, {"real": batch}, jax.random.key(1)
        )

    return play, state


def moved(before, after):
    pairs = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, old), new in pairs
        if not np.array_equal(old, new)
    }


def test_the_path_phase_spares_biases_of_images(run):
    play, state = run
    after, metrics = play(("g/path",))
    names = moved(state.players["g"].params, after.players["g"].params)
    assert "synthesis/b8/torgb/kernel" in names and "mapping/fc0/kernel" in names
    assert not any(name.endswith("torgb/bias") for name in names)
    assert after.extras["path_mean"] == pytest.approx(0.01 * float(metrics["g/path/length"]), 1e-5)
    counts = {
        name: int(leaf.count)
        for name, group in after.players["g"].optimizer.items()
        for leaf in jax.tree.leaves(
            group, is_leaf=lambda node: isinstance(node, optax.ScaleByAdamState)
        )
        if isinstance(leaf, optax.ScaleByAdamState)
    }
    assert counts == {"g/main": 0, "g/main+g/path": 1}


def test_the_main_phase_of_d_moves_the_mean_w(run):
    play, state = run
    after, metrics = play(("d/main",))
    assert moved(state.players["g"].variables, after.players["g"].variables) == {
        "averages/mapping/w_avg"
    }
    # Buffers of the average are copies.
    assert moved(state.ema, after.ema) == {"averages/mapping/w_avg"}
    gap = {"d/main/logit_real", "d/main/logit_fake"}
    assert gap <= set(metrics)


def test_d_sees_augmented_images_in_every_phase_and_counts_its_signs():
    rule = Adaptive(pipe("bgc"), 0.5, batch=4, every=2, ramp_images=80)
    losses = Losses(G, D, augment=rule)
    _, state, batch = step_and_state(losses)
    played = phases(losses, batch=4)
    sees = {phase.name: phase.draw for phase in played}
    labels = jnp.array([1, 0, 1, 1])
    views = {
        name: {key for key in draw(jax.random.key(0), game(4, labels)) if key.endswith("_view")}
        for name, draw in sees.items()
    }
    assert views == {
        "g/main": {"fake_view"},
        "g/path": set(),
        "d/main": {"fake_view", "real_view"},
        "d/r1": {"real_view"},
    }

    @jax.jit
    def play(state, seen, key):
        """Both of D's losses, one after the other."""
        extras, players = state.extras, {k: v.variables for k, v in state.players.items()}
        found = {}
        for phase in (phase for phase in played if phase.player == "d"):
            draws = phase.draw(key, game(4, seen["label"]))
            now = Game(players, extras, seen, draws, None, {}, 0, 0, 4)
            loss, outcome = phase.loss(players["d"]["params"], now)
            assert {f"extras/{name}" for name in outcome.extras} == set(rule.writes)
            extras = {**extras, **outcome.extras}
            found[phase.name] = loss, outcome.metrics
        return extras, found

    seen = jax.tree.map(lambda leaf: leaf[0, 0], batch)
    extras, found = play(state, seen, jax.random.key(1))
    assert extras["ada_reals"] == 8, "reals of d/r1 count, too"
    assert float(extras["ada_signs"]).is_integer() and abs(float(extras["ada_signs"])) <= 8
    assert found["d/main"][1]["augment_p"] == extras["ada_p"] == 0.5
    _, changed = play(state, seen, jax.random.key(2))
    assert changed["d/r1"][0] != found["d/r1"][0], "the penalty does not see the augmentation"


def test_half_life():
    constant, ramp = half_life_decay(32, 1000), half_life_decay(32, 1000, 0.05)
    now = jnp.asarray(0)
    assert constant(now, now) ** (1000 / 32) == pytest.approx(0.5)
    assert ramp(now, now) == 0
    assert ramp(now, jnp.asarray(10_000)) == pytest.approx(0.5 ** (32 / 500))
    assert ramp(now, jnp.asarray(10**6)) == pytest.approx(constant(now, now))


def test_gradients_are_made_finite():
    gradient = {"a": jnp.array([jnp.nan, jnp.inf, -jnp.inf, 2.0])}
    rule = finite_gradients()
    updates, _ = rule.update(gradient, rule.init(gradient))
    np.testing.assert_array_equal(updates["a"], [0.0, 1e5, -1e5, 2.0])


def test_blur_fades():
    images = jax.random.normal(jax.random.key(0), (1, 16, 16, 1))
    blur = Blur(1.0, 100.0)
    np.testing.assert_array_equal(blur(images, jnp.asarray(100)), images)
    np.testing.assert_array_equal(blur(images, jnp.asarray(1000)), images)
    # Half a pixel of sigma reaches one pixel: weights 1 and 2 ** -4.
    taps = np.array([1 / 16, 1, 1 / 16])
    point = jnp.zeros((1, 9, 9, 1)).at[0, 4, 4, 0].set(1.0)
    wanted = np.pad(np.outer(taps, taps) / taps.sum() ** 2, 3)
    np.testing.assert_allclose(blur(point, jnp.asarray(50))[0, :, :, 0], wanted, atol=1e-6)
