"""What every preset of every config promises: see ganjax/family.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax import defaults
from ganjax.adversarial.phases import make_step
from ganjax.adversarial.state import split_by_touch
from ganjax.config import flatten
from ganjax.family import Request, build, official_of, settle
from ganjax.interop.weights import Weights
from ganjax.parallel.mesh import make_mesh
from ganjax.program import assemble
from tests import configs

PRESETS = [(name, preset) for name in configs.FAMILIES for preset in configs.module(name).PRESETS]
every_preset = pytest.mark.parametrize(("file", "preset"), PRESETS)
# Of each config, the one that is compiled; of the others, what is traced tells the same.
every_default = pytest.mark.parametrize("file", configs.FAMILIES)


SHARED = ("mesh", "log", "checkpoint", "watch", "evaluate")


@every_preset
def test_what_all_families_share_has_the_same_fields(file, preset):
    config = configs.module(file).get_config(preset)
    wanted = defaults.config("")
    for part in SHARED:
        assert set(config[part]) == set(wanted[part]), part


def path(key):
    return jax.tree_util.keystr(key, simple=True, separator="/")


def named(tree):
    return {path(key): leaf for key, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@functools.cache
def tiny(file, preset=None):
    module = configs.module(file)
    return build(module.tiny(preset) if preset else module.tiny(), "cpu")


def step_of(family, phase):
    step = make_step(family.phases, family.optimizers, family.ema, unroll=True)
    return functools.partial(step, due=(phase.name,))


def sampled(family):
    """Variables to sample with, before the first step."""
    state = family.init(jax.random.key(0))
    return family.sampled(state.ema, state.extras, family.load_frozen())


def batches_of(family):
    program = assemble(family, make_mesh({"data": 1}, jax.devices()[:1]))
    return program.batches, program.key, program.frozen


def check_moved(family, phase, moved, before):
    """``moved``: the names of the leaves that a step of one phase changed."""
    side = {name for name in moved if name.startswith("players/") and "/collections/" in name}
    extras = {name for name in moved if name.startswith("extras/")}
    wrote = {"/".join(name.split("/")[i] for i in (1, 3)) for name in side} | extras
    assert wrote <= set(phase.writes), f"{phase.name} wrote what it does not declare"
    rest = {name for name in moved - side - extras if not name.startswith("ema/")}
    own = {name for name in rest if name.startswith(f"players/{phase.player}/")}
    assert rest - own == {"step", "items"}, f"{phase.name} moved another player"
    params = {name for name in before if name.startswith(f"players/{phase.player}/params/")}
    assert own & params, f"{phase.name} moved nothing"


@every_preset
def test_a_full_preset_has_a_place_and_a_player_for_every_parameter(file, preset):
    config = configs.module(file).get_config(preset)
    config, _ = settle(config, devices=8)
    family = build(config, "tpu")
    state = family.abstract_state()
    players = {phase.player for phase in family.phases}
    assert set(state.players) == set(family.networks) == set(family.optimizers) == players
    for player, net in state.players.items():
        touches = {p.name: p.touches for p in family.phases if p.player == player}
        groups = split_by_touch(net.params, touches)  # raises for one that no phase touches
        parts = [name for group in groups.values() for name in named(group)]
        assert sorted(parts) == sorted(named(net.params)) and parts
    program = assemble(family, make_mesh({"data": 1}, jax.devices()[:1]))
    assert all(leaf.sharding is not None for leaf in jax.tree.leaves(program.state))
    assert jax.tree.structure(program.state) == jax.tree.structure(state)


@every_preset
def test_each_phase_of_a_tiny_preset_leaves_the_rest_alone(file, preset):
    family = tiny(file, preset)
    before = family.abstract_state()
    batches, key, frozen = batches_of(family)
    for phase in family.phases:
        traced, (after, metrics) = jax.make_jaxpr(step_of(family, phase), return_shape=True)(
            before, batches, key, frozen
        )
        wanted = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), before)
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == wanted
        assert f"{phase.name}/loss" in metrics
        # An output that is the very input cannot differ in any bit.
        names = list(named(before))
        pairs = zip(names, traced.jaxpr.invars[: len(names)], traced.jaxpr.outvars, strict=False)
        moved = {name for name, given, got in pairs if given is not got}
        check_moved(family, phase, moved, set(names))


@pytest.mark.slow
@every_default
def test_each_compiled_phase_moves_its_own_and_stays_finite(file):
    family = tiny(file)
    shapes, _, _ = batches_of(family)
    numbers = np.random.default_rng(0)

    def fill(leaf):
        if leaf.dtype == np.uint8:
            return numbers.integers(0, 256, leaf.shape, np.uint8)
        return np.zeros(leaf.shape, leaf.dtype)

    batches = jax.tree.map(fill, shapes)
    before = family.init(jax.random.key(0))
    old = named(before)
    for phase in family.phases:
        step = jax.jit(step_of(family, phase))
        after, metrics = step(before, batches, jax.random.key(1), family.load_frozen())
        new = named(after)
        moved = {name for name in old if not np.array_equal(old[name], new[name])}
        check_moved(family, phase, moved, set(old))
        for name, leaf in {**new, **named(metrics)}.items():
            assert np.isfinite(leaf).all(), name


def shape_of(family):
    """Of an image, or of a video's frame."""
    return family.item["clip"].shape[1:] if "clip" in family.item else family.item["image"].shape


@every_default
def test_samples_have_the_items_shape_and_range(file):
    family = tiny(file)
    draws = family.draws(jax.random.key(1), jnp.arange(3), Request())
    samples = np.asarray(jax.jit(family.sample)(sampled(family), draws))
    frames = draws["times"].shape[1:] if "clip" in family.item else ()
    assert samples.shape == (3, *frames, *shape_of(family))
    assert np.isfinite(samples).all() and np.abs(samples).max() <= 1


@every_default
def test_frames_of_a_video_are_the_same_whichever_others_are_asked_for(file):
    family = tiny(file)
    if "clip" not in family.item:
        return
    sample, state = jax.jit(family.sample), family.init(jax.random.key(0))
    whole, some = (
        family.draws(jax.random.key(1), jnp.arange(3), Request(times=times))
        for times in ((0, 1, 2, 3), (2, 0))
    )
    # Samplers of films replace the times of what was drawn for others.
    again = {**whole, "times": some["times"]}
    clips, picked = sample(state.ema, whole), sample(state.ema, again)
    np.testing.assert_array_equal(picked, sample(state.ema, some))
    np.testing.assert_allclose(picked, clips[:, jnp.array([2, 0])], atol=1e-5)
    assert np.abs(clips[:, 0] - clips[:, 2]).max() > 1e-3


@every_default
def test_official_weights_go_out_and_come_back(file):
    family, config = tiny(file), configs.module(file).tiny()
    official = official_of(config)
    state = family.init(jax.random.key(0))
    for player in getattr(official, "PLAYERS", family.networks):
        module, variables = family.networks[player], state.players[player].variables
        written = official.to_official(variables, module) | official.constants(module)
        back, report = official.from_official(written, module)
        assert report.complete and set(report.matched) | set(report.ignored) == set(written)
        jax.tree.map(np.testing.assert_array_equal, back, variables)
    # A config that goes on from weights is one of the same family, and the given one stays.
    before = config.to_json()
    other = official.configured(config, Weights({"G_ema": {}}))
    assert set(flatten(other)) == set(flatten(config)) and config.to_json() == before


def test_the_checks_see_a_phase_that_writes_too_much():
    family = tiny("biggan")
    phase = family.phases[0]
    names = set(named(family.abstract_state()))
    good = {"step", "items", *(n for n in names if n.startswith(f"players/{phase.player}/"))}
    check_moved(family, phase, good, names)
    (other,) = set(family.networks) - {phase.player}
    stolen = next(n for n in names if n.startswith(f"players/{other}/params/"))
    with pytest.raises(AssertionError, match="another player"):
        check_moved(family, phase, good | {stolen}, names)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"rows": 0}, "A sheet of 0 rows; set --rows"),
        ({"frames": 0}, "0 frames through 4 anchors"),
        ({"anchors": 1}, "through 1 anchors; at least 1 frame and 2 anchors"),
        ({"truncation": float("nan")}, "truncation=nan; set --truncation"),
        ({"prompts": ("a cat", " ")}, "An empty prompt among .'a cat', ' '."),
        ({"start": -1.0}, "from frame -1 on in steps of 1 frames; .* Set --start"),
        ({"step": 0.0}, "in steps of 0 frames"),
    ],
)
def test_a_request_that_cannot_be(request_, words):
    with pytest.raises(ValueError, match=words):
        Request(**request_)


@every_default
def test_videos_of_the_default_have_the_items_shape(file):
    family = tiny(file)
    sample = functools.partial(jax.jit(family.sample), sampled(family))
    request = Request(rows=1, frames=2, anchors=2)
    assert family.videos and ("clips" in family.videos) == ("clip" in family.item)
    for name, video in family.videos.items():
        made = video(lambda truncation: sample, jax.random.key(1), request)
        first, last = made.sheet(0).images, made.sheet(1).images
        assert first.shape[1:] == shape_of(family), name
        assert made.frames == 2 and (first != last).any(), name


def test_a_config_that_lacks_a_field_is_told_which():
    config = configs.module("biggan").tiny()
    with config.unlocked():
        del config.model.latent_dim
    with pytest.raises(ValueError, match="no field 'latent_dim'.*biggan.*another version"):
        build(config, "cpu")
