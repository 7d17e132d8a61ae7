"""StyleGAN-V's phases; losses and gradients are compared in the golden cases."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import styleganv as configs
from ganjax.adversarial.phases import Game
from ganjax.data.clips import Even, Sparse
from ganjax.families.styleganv.networks import HyperDiscriminator
from ganjax.families.styleganv.phases import Draws
from ganjax.family import build
from ganjax.parallel.mesh import make_mesh
from ganjax.program import assemble


def family_of(**changes):
    config = configs.tiny()
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return build(config, "cpu")


def game(n, **batch):
    return Game({}, {}, batch, None, None, {}, 0, 0, n)


@pytest.mark.parametrize("times", [Sparse(3, 32, fractional=True), Even(4, 5, fractional=True)])
def test_fakes_have_the_times_of_reals_and_all_noise_that_they_need(times):
    generator = family_of().networks["g"]
    draws = Draws(generator, times=times, longest=64)
    lengths = jnp.asarray([20, 33, 50, 64] * 64)
    drawn = draws(jax.random.key(0), game(256, length=lengths, label=lengths % 10))
    seen = np.asarray(drawn["times"])
    assert seen.shape == (256, times.frames) and drawn["motion"].shape[0] == 256
    assert (np.diff(seen, axis=1) > 0.999).all() and (seen[:, 0] >= 0).all()
    assert (seen[:, -1] <= np.asarray(lengths) - 0.999).all()
    assert (seen % 1 != 0).any()
    last = np.floor(seen[:, -1] / generator.encoder.distance).astype(int) + 1
    needed = last - np.asarray(drawn["first"]) + 1 + generator.encoder.reach
    assert needed.max() <= drawn["motion"].shape[1]


def test_a_clip_is_augmented_as_a_whole():
    family = family_of(**{"augment.mode": "fixed", "augment.pipe": "bgc", "augment.p": 1.0})
    d_main = next(phase for phase in family.phases if phase.name == "d/main")
    losses = d_main.loss.__self__
    still = jax.random.uniform(jax.random.key(1), (8, 1, 16, 16, 3)) * 2 - 1
    still = jnp.broadcast_to(still[:1], (8, 3, 16, 16, 3))
    batch = dict(length=jnp.full(8, 64), label=jnp.zeros(8, jnp.int32))
    draws = d_main.draw(jax.random.key(0), game(8, **batch))
    seen = losses.seen(still, dataclasses.replace(game(8), draws=draws), "real_view")
    np.testing.assert_allclose(seen[:, 1:], seen[:, :2], atol=1e-5)
    assert np.abs(seen[1] - seen[0]).max() > 0.1


def test_what_the_average_and_the_penalty_count_are_clips():
    family = family_of()
    assert [phase.name for phase in family.phases] == ["g/main", "d/main", "d/r1"]
    assert {phase.batch for phase in family.phases} == {"real"}
    assert family.item["clip"].shape == (3, 16, 16, 3) and family.item["times"].shape == (3,)


ABLATIONS = [
    {"model.trajectory": "lstm", "model.motion_distance": 1, "model.encoding": "mapped"},
    {"model.trajectory": "lstm", "model.encoding": "mapped"},
    {"model.discriminator": "paper"},
    {"model.discriminator": "paper", "model.modulated": "blank"},
    {"model.discriminator": "paper", "model.projected": "blank"},
    {"model.join": "styles", "model.trajectory": "lstm", "model.encoding": "mapped"},
    {"data.clip.frames": 2},
    {"data.clip.frames": 16, "data.clip.dists": (16, 32)},
    {"data.clip.times": "even", "data.clip.max_dist": 4},
    {"model.spacing": "linear"},
]


@pytest.mark.parametrize("changes", ABLATIONS, ids=lambda changes: " ".join(map(str, changes)))
def test_the_papers_ablations_are_configs(changes):
    """Tables 2 and 3: they build, and their steps are traced."""
    family = family_of(**changes)
    program = assemble(family, make_mesh({"data": 1}, jax.devices()[:1]))
    names = tuple(phase.name for phase in family.phases)
    _, metrics = jax.eval_shape(
        lambda *given: program.step(*given, due=names), program.state, program.batches, program.key
    )
    assert set(metrics) >= {"g/main/loss", "d/main/loss", "d/r1/loss"}
    paper = changes.get("model.discriminator") == "paper"
    assert isinstance(family.networks["d"], HyperDiscriminator) == paper


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.discriminator": "conv3d"}, "model.discriminator='conv3d'; set one of"),
        ({"model.join": "input"}, r"model.join='input'; set one of \['constant', 'styles'"),
        ({"model.motion_taps": 0}, "config.model.motion_taps=0 is too small; set 1"),
        ({"model.motion_distance": 0}, "config.model.motion_distance=0 is too small"),
        ({"model.shortest_period": 0.0}, "shortest_period=0 and longest_period=512; set the"),
        (
            {"model.join": "added", "model.waves": 3},
            "codes of 6 numbers to a w of 8; set .*w_dim=6",
        ),
        ({"sample.stride": 0}, "config.sample.stride=0 is too small"),
        ({"data.clip.times": "dense"}, "StyleGAN-V sees a few frames .* sparse or even"),
    ],
)
def test_a_config_that_cannot_be(changes, words):
    with pytest.raises(ValueError, match=words):
        family_of(**changes)
