"""The phases of TGANv2: who sees which videos, and where these are on several devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import tganv2 as configs
from ganjax.adversarial.phases import Game, make_step
from ganjax.families.tganv2.networks import LEVELS, added
from ganjax.families.tganv2.phases import Draws, Losses, phases
from ganjax.families.tganv2.subsampling import levels_of
from ganjax.family import build
from ganjax.layers.images import to_float
from ganjax.parallel.mesh import make_mesh
from ganjax.program import assemble

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def family():
    return build(configs.tiny(), "cpu")


@pytest.fixture(scope="module")
def before(family):
    return jax.tree.map(jnp.asarray, family.init(jax.random.key(0)))


def clips(n=16):
    return np.random.default_rng(0).integers(0, 256, (1, 1, n, 4, 16, 16, 3), np.uint8)


def sized(n):
    """What draws look at."""
    return Game({}, {}, None, None, None, {}, 0, 0, n)


def softplus(x):
    return np.log1p(np.exp(x))


def test_the_published_sizes():
    family = build(configs.get_config("ucf101_192"), "cpu")
    assert family.parameter_count("g") == 88_032_460
    assert family.parameter_count("d") == 116_077_060
    clip, g = family.item["clip"].shape, family.networks["g"]
    assert clip == (16, 192, 192, 3) and g.levels == LEVELS and g.bottom_width == 3
    assert g.frame_strides == g.batch_strides == (2, 2, 2)


def test_both_turns_see_the_same_videos_and_the_losses_are_the_released_ones(family, before):
    g, d = (family.networks[player] for player in "gd")
    draws = {phase.name: phase.draw(KEY, sized(16)) for phase in family.phases}
    # Those of D's turn are not looked at: it takes G's videos.
    draws["d/main"] = {**draws["d/main"], "z": jnp.full_like(draws["d/main"]["z"], jnp.nan)}
    recorded = jax.tree.map(lambda leaf: leaf[None, None], draws)
    step = make_step(family.phases, family.optimizers, family.ema, unroll=True)
    after, metrics = jax.jit(step, static_argnames="due")(
        before,
        {"real": {"clip": clips()}},
        KEY,
        recorded=recorded,
        due=("g/main", "d/main"),
    )
    old = {player: before.players[player].variables for player in "gd"}
    given = draws["g/main"]
    fake, moved = g.apply(old["g"], given["z"], given["offsets"], mutable=["batch_stats"])
    offsets = draws["d/main"]["real_offsets"]
    real = levels_of(to_float(jnp.asarray(clips()[0, 0])), offsets, (2,), (2,))
    scored = {}
    for name, videos in (("real", real), ("fake", fake)):
        scored[name] = np.asarray(d.apply(old["d"], videos))
        assert scored[name].shape == (16 + 8,)
    gradients = jax.grad(lambda videos: d.apply(old["d"], videos).sum())(real)
    weight = configs.tiny().loss.r1_weight
    penalty = weight * sum(float(jnp.sum(gradient**2)) for gradient in gradients)
    loss = softplus(-scored["real"]).mean() + softplus(scored["fake"]).mean() + penalty
    assert metrics["g/main/loss"] == pytest.approx(softplus(-scored["fake"]).mean(), rel=2e-4)
    assert metrics["d/main/loss"] == pytest.approx(loss, rel=2e-4)
    assert metrics["d/main/r1"] == pytest.approx(penalty, rel=1e-2) and penalty > 1e-7
    # Statistics moved once, in G's turn.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        after.players["g"].collections["batch_stats"],
        moved["batch_stats"],
    )


def test_offsets_are_shared_by_generated_videos_and_drawn_for_each_real_one():
    generator = build(configs.get_config(), "cpu").networks["g"]
    drawn = Draws(generator.clone(max_offset=2))(KEY, sized(64))
    assert drawn["offsets"].shape == (3,) and drawn["real_offsets"].shape == (64, 2)
    z = np.asarray(drawn["z"])
    assert z.shape == (64, 64) and -1 <= z.min() < -0.9 and 0.9 < z.max() <= 1
    means = np.asarray(drawn["real_offsets"]).mean(0)
    assert set(np.unique(drawn["real_offsets"])) == {0, 1} and (abs(means - 0.5) < 0.25).all()
    keys = jax.random.split(KEY, 64)
    several = np.asarray(jax.vmap(lambda key: Draws(generator)(key, sized(1))["offsets"])(keys))
    assert (several[:, 0] == 0).all() and set(np.unique(several[:, 1:])) == {0, 1}


def test_levels_can_be_added_as_in_the_paper():
    config = configs.tiny()
    config.model.join = "added"
    assert build(config, "cpu").networks["d"].join is added
    config.model.join = "mean"
    with pytest.raises(ValueError, match="config.model.join='mean'; set it to 'concatenated'"):
        build(config, "cpu")


COLLECTIVE = re.compile(
    r"= \S*\[([\d,]*)\]\S* (all-gather|all-to-all|collective-permute|reduce-scatter)"
)


def test_videos_of_every_level_stay_on_their_device():
    text = compiled(configs.tiny())
    shapes = {found[0] for found in COLLECTIVE.findall(text)}
    # Logits of levels change places, videos and features do not.
    assert shapes and all(shape.count(",") == 0 for shape in shapes), shapes
    # The last level's 8 videos of 2 frames, one on each device.
    assert "f32[2,16,16,3]" in text and "f32[4,16,16,3]" not in text


def test_a_batch_that_would_leave_devices_idle_is_refused():
    config = configs.tiny()
    config.train.batch = 8
    with pytest.raises(ValueError, match="batch=8 leaves the last level 4 videos for 8 devices"):
        traced(config)


def traced(config):
    program = assemble(build(config, "cpu"), make_mesh())
    due = ("g/main", "d/main")
    return program.step.lower(program.state, program.batches, program.key, due=due)


def compiled(config):
    options = {"xla_backend_optimization_level": "0"}
    return traced(config).compile(compiler_options=options).as_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data.resolution": 24}, "resolution=24: with config.model.levels=2 a multiple of 16"),
        ({"data.resolution": (16, 32)}, "16x32: TGANv2's networks are square"),
        ({"data.clip.frames": 5}, "clip.frames=5, of which the last level sees one of 2"),
        ({"data.clip.times": "sparse"}, "TGANv2 trains on dense clips. Set config.data.clip"),
        ({"train.batch": 0}, "train.batch=0; set it to 1 or more"),
        ({"model.batch_strides": (2, 2)}, "batch_strides=.2, 2.; set 1 numbers"),
        ({"model.frame_strides": (0,)}, "frame_strides=.0,., batch_strides=.2,.: one of so many"),
        ({"loss.r1_weight": -0.1}, "config.loss.r1_weight=-0.1 is too small; set 0"),
        ({"sample.frames": 0}, "config.sample.frames=0; set it"),
    ],
)
def test_configs_that_cannot_be(changes, words):
    config = configs.tiny()
    with config.ignore_type():
        config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=words):
        build(config, "cpu").abstract_variables()


def test_a_single_level_has_no_strides():
    config = configs.tiny()
    with config.ignore_type():
        config.model.update(levels=1, frame_strides=(), batch_strides=())
    config.data.resolution = 8
    variables = build(config, "cpu").abstract_variables()
    assert set(variables["d"]["params"]) == {"level0"}


def test_the_discriminators_play_alone_on_videos_of_their_own(family, before):
    losses = Losses(family.networks["g"], family.networks["d"], r1_weight=0.0)
    _, d_main = phases(losses, 16)
    step = make_step((d_main,), {"d": family.optimizers["d"]}, family.ema, unroll=True)
    after, metrics = jax.jit(step, static_argnames="due")(
        before, {"real": {"clip": clips()}}, KEY, due=("d/main",)
    )
    assert metrics["d/main/r1"] == 0 and np.isfinite(metrics["d/main/loss"])
    jax.tree.map(
        np.testing.assert_array_equal,
        after.players["g"].collections,
        before.players["g"].collections,
    )
