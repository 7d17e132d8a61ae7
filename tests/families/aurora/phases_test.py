"""Which parameters a stage moves, what its pictures are, and what it refuses."""

import functools
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from configs import aurora as config_file
from ganjax.adversarial.phases import Game, due, programs
from ganjax.adversarial.state import split_by_touch
from ganjax.families import aurora
from ganjax.families.aurora.encoder import Encoder
from ganjax.families.aurora.networks import Generator
from ganjax.families.aurora.phases import Losses, used
from ganjax.family import Request, build
from ganjax.layers.blocks import called, recomputed


def tiny(**changes):
    config = config_file.tiny()
    config.update_from_flattened_dict(changes)
    return config


@functools.cache
def family():
    return build(tiny(), "cpu")


def test_a_stage_plays_its_own_phases():
    played = family().phases
    assert due(played, 0, 0) == ("g/main@4", "d/main@4", "d/r1@4")
    assert list(programs(played, 1)) == [("g/main@8", "d/main@8", "d/r1@8")]
    alone = build(tiny(**{"grow.stages": (8,)}), "cpu")
    assert due(alone.phases, 0) == ("g/main", "d/main", "d/r1") and alone.growth is None


def test_a_stage_leaves_what_it_does_not_use():
    params = {n: p.params for n, p in family().abstract_state().players.items()}
    groups = {
        player: split_by_touch(
            tree, {p.name: p.touches for p in family().phases if p.player == player}
        )
        for player, tree in params.items()
    }
    assert groups["g"].keys() == {"g/main@4+g/main@8", "g/main@8"}
    late = groups["g"]["g/main@8"]["synthesis"]
    assert late.keys() == {"net_1", "net_2", "output_res_8x8"}
    assert groups["d"]["d/main@8+d/r1@8"].keys() == {"b8", "rgb8"}


def test_blocks_that_are_computed_again_gather_their_own_parameters():
    again = build(tiny(**{"train.recompute": True}), "cpu")
    params = family().abstract_state().players["g"].params
    names = [f"g/params/{'/'.join(path)}" for path in flatten_dict(params)]
    late = [
        name for name in names if any(r.late and re.search(r.pattern, name) for r in again.rules)
    ]
    assert late == [name for name in names if name.startswith("g/params/synthesis/net_")]
    assert again.networks["g"].through is recomputed and family().networks["g"].through is called
    assert not any(rule.late for rule in family().rules)


def test_a_head_needs_features_from_above():
    generator = build(
        tiny(**{"data.resolution": 16, "grow.stages": (16,)} | LARGER), "cpu"
    ).networks["g"]
    at = {size: used(generator, size)["d"] for size in (4, 8, 16)}
    moved = {
        size: {name for name in ("b4", "b8", "b16", "rgb8", "out8") if re.search(p, f"{name}/x")}
        for size, p in at.items()
    }
    assert moved == {4: {"b4"}, 8: {"b4", "b8", "rgb8"}, 16: {"b4", "b8", "b16", "rgb8", "out8"}}


def test_a_smaller_picture_is_penalised_by_its_pixels():
    class Sums:
        """A discriminator whose every logit grows by 1 with each number of each picture."""

        def apply(self, variables, images, states, end):
            return sum(jnp.sum(x, axis=(1, 2, 3)) for x in images.values())[:, None]

    losses = SimpleNamespace(
        generator=SimpleNamespace(resolution=8),
        discriminator=Sums(),
        texts=lambda game: SimpleNamespace(states=None, end=None),
        r1_gamma=0.5,
    )
    fields = dict.fromkeys(("draws", "frozen", "step", "items"))
    batch = {"image": jnp.zeros((2, 8, 8, 3), jnp.uint8)}
    game = Game(players={"d": {}}, extras={}, batch=batch, passed={}, size=2, **fields)
    loss, outcome = Losses.d_r1(losses, {}, game, (4, 8))
    # 4x4 of 16 pixels weighs a quarter.
    assert outcome.metrics["penalty"] == 3 * (64 + 16 / 4) and loss == 0.5 / 2 * 204


LARGER = {
    "model.blocks": (1, 1, 1),
    "model.kernels": (1, 1, 1),
    "model.experts": (0, 2, 0),
    "model.attention": (0, 1, 0),
    "model.execution": ("dropless",) * 3,
    "model.d_outputs": (8,),
}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"grow.stages": (4,)}, r"config.grow.stages=\(4,\) is to rise to 8"),
        ({"grow.stages": (5, 8)}, r"the generator has \(4, 8\); set"),
        ({"train.batch": 6, "train.microbatches": 4}, "6 is no multiple of train.microbatches=4"),
        ({"train.batch": 6}, "does not divide into groups of model.group_size=4; set .* 4"),
        ({"loss.r1_every": 0}, "r1_every=0: set 1 or more"),
        ({"loss.clip": -1.0}, "loss.clip=-1 would reward"),
        ({"data.resolution": 16}, r"have \[2, 2, 2, 2, 2\] entries: set one for each"),
        ({"model.execution": ("dropless", "some")}, "has 'some'; set each"),
        ({"data.text": "inception-2015-12-05"}, "is no CLIP"),
        ({"data.text": "clip-shape"}, "config.data.text='clip-shape': there is no network"),
        ({"model.blocks": (1, 0)}, r"config.model.blocks=\(1, 0\); set 1 or more"),
        ({"model.text_heads": 3}, "text_heads=3 do not divide the 8 channels"),
        ({"model.encoder": "trained"}, "encoder='trained'; set one of"),
        ({"ema.half_life_images": -1.0}, "half_life_images=-1 is too small; set 0"),
        ({"sample.prompts": ()}, "config.sample.prompts has none; set"),
    ],
)
def test_what_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        aurora.build(tiny(**{**changes, "precision": "float32"}))


@pytest.fixture(scope="module")
def sampler():
    """A sampler of variables that are all random, and its draws of two prompts."""
    made = family()
    state = made.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    ema = jax.tree.map(
        lambda leaf: jnp.float32(leaf + 0.5 * rng.standard_normal(leaf.shape)), state.ema
    )
    sample = jax.jit(made.sample)
    request = Request(prompts=("a red circle", "a large blue star"))
    draws = made.draws(jax.random.key(1), jnp.arange(4), request)
    frozen = made.load_frozen()

    def call(stage=1, **more):
        variables = made.sampled(ema, {"stage": jnp.int32(stage)}, frozen)
        return np.asarray(sample(variables, draws | more))

    return call, draws


def test_samples_go_round_the_prompts(sampler):
    _, draws = sampler
    tokens = np.asarray(draws["tokens"])
    np.testing.assert_array_equal(tokens[0], tokens[2])
    assert (tokens[0] != tokens[1]).any()


def test_a_sampler_shows_the_stage(sampler):
    call, _ = sampler
    early, late = call(stage=0), call(stage=1)
    blocks = early.reshape(4, 4, 2, 4, 2, 3)
    np.testing.assert_array_equal(blocks, np.broadcast_to(blocks[:, :, :1, :, :1], blocks.shape))
    assert (early != late).any() and np.ptp(early.reshape(4, -1), axis=1).min() > 0


def test_pictures_of_sizes_that_are_no_stage_are_part_of_a_sample(monkeypatch):
    def apply(self, variables, *inputs, method, **options):
        """Pictures of 4x4 and of 8x8, where they are made, each add 1/2."""
        if method != "synthesize":
            return (jnp.zeros((1, 1)),) * 2 if method == "read" else jnp.zeros((1, 1, 1))
        sizes = [size for size in (4, 8) if not inputs[2:] or size in inputs[2]]
        return {size: jnp.full((1, size, size, 3), (at + 1) / 2) for at, size in enumerate(sizes)}

    monkeypatch.setattr(Generator, "apply", apply)
    monkeypatch.setattr(Encoder, "read", lambda *_: SimpleNamespace(states=0.0, end=0))
    alone = build(tiny(**{"grow.stages": (8,)}), "cpu")
    draws = {"z": jnp.zeros((1, 1)), "tokens": jnp.zeros((1, 1), jnp.int32)}
    assert (alone.sample({"frozen": {"clip": {}}}, draws) == 1.0).all()


def test_truncation_leads_to_the_prompts_own_mean(sampler):
    call, _ = sampler
    means = jnp.broadcast_to(jax.random.normal(jax.random.key(3), (16, 4)), (4, 16, 4))
    squeezed = call(means=means, truncation=jnp.zeros(4))
    np.testing.assert_allclose(squeezed[0], squeezed[2], atol=1e-5)
    assert np.abs(squeezed[0] - squeezed[1]).max() > 1e-3
    whole = call(means=means, truncation=jnp.ones(4))
    np.testing.assert_allclose(whole, call(), atol=1e-4)


def test_mixtures_of_latents_and_of_texts_end_at_their_ends(sampler):
    call, draws = sampler
    z = jnp.stack([draws["z"], jnp.roll(draws["z"], 1, 0)], axis=1)
    ends = jnp.broadcast_to(jnp.array([1.0, 0.0]), (4, 2))
    np.testing.assert_allclose(call(z=z, weights=ends), call(), atol=1e-4)
    halves = jnp.full((4, 2), 0.5)
    assert np.abs(call(z=z, weights=halves) - call()).max() > 1e-3
    tokens = jnp.stack([draws["tokens"], jnp.roll(draws["tokens"], 1, 0)], axis=1)
    np.testing.assert_allclose(call(tokens=tokens, text_weights=ends), call(), atol=1e-4)


def test_a_map_of_experts_has_their_colours(sampler):
    call, _ = sampler
    colours = {tuple(c) for c in call(routing_8=jnp.ones(4)).reshape(-1, 3).tolist()}
    assert colours <= {(1.0, -1.0, -1.0), (-1.0, 1.0, 1.0)} and colours


def test_a_sheet_has_a_row_for_each_prompt():
    def sample(draws):
        # In place of the compiled one, which is of another number of samples.
        assert draws.keys() - {"routing_8"} == {"z", "tokens"}
        shade = 1.0 if "routing_8" in draws else -1.0
        return jnp.full((len(draws["z"]), 8, 8, 3), shade)

    request = Request(prompts=("a red circle", "a blue star"))
    made = family().sheets["routing"](lambda truncation: sample, jax.random.key(0), request)
    assert made.row_titles == request.prompts and made.column_titles == ("", "8x8")
    assert made.images[:, 0, 0, 0].tolist() == [-1.0, 1.0] * 2


def test_texts_that_were_embedded_before_are_part_of_an_item():
    item = build(tiny(**{"data.embedded": True}), "cpu").item
    assert item["text_states"].shape == (20, 64) and item["text_states"].dtype == np.float16
    assert "text_states" not in family().item


def test_given_weights_are_those_of_the_last_stage():
    given = {"g": family().init(jax.random.key(0)).players["g"].variables}
    assert family().init(jax.random.key(0), given).extras["stage"] == 1
