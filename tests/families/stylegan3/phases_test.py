"""Phases of StyleGAN3, which are StyleGAN2's."""

import functools

import jax
import numpy as np
import pytest

from configs import stylegan3 as configs
from ganjax.adversarial.phases import Game, make_step, programs
from ganjax.families.stylegan3.phases import blur, magnitude_beta
from ganjax.family import build


@pytest.fixture(scope="module")
def family():
    return build(configs.tiny(), "cpu")


def test_no_path_lengths_and_no_mixing(family):
    assert [phase.name for phase in family.phases] == ["g/main", "d/main", "d/r1"]
    assert set(programs(family.phases).values()) == {1 / 16, 15 / 16}
    batch = {"label": np.zeros(4, np.int32)}
    game = Game({}, {}, batch, None, None, {}, 0, 0, 4)
    drawn = family.phases[0].draw(jax.random.key(0), game)
    assert set(drawn) == {"z", "noise", "label"} and not drawn["noise"]


def test_only_ds_main_phase_moves_means(family):
    assert {phase.name: phase.writes for phase in family.phases} == {
        "g/main": (),
        "d/main": ("g/averages",),
        "d/r1": (),
    }
    state = family.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (1, 1, 8, *family.item["image"].shape), np.uint8),
        "label": rng.integers(0, 10, (1, 1, 8), np.int32),
    }
    step = make_step(family.phases, family.optimizers, family.ema, unroll=True)
    step = jax.jit(functools.partial(step, due=("d/main",)))
    after, _ = step(state, {"real": batch}, jax.random.key(1))
    old, new = (s.players["g"].collections["averages"] for s in (state, after))
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), old, new)
    # The mapping's mean and one for each layer, and the average of G has the very same.
    assert all(jax.tree.leaves(moved)) and len(jax.tree.leaves(moved)) == 5
    jax.tree.map(np.testing.assert_array_equal, after.ema["averages"], new)
    old, new = (s.players["g"].collections["fourier"] for s in (state, after))
    jax.tree.map(np.testing.assert_array_equal, old, new)


def test_configuration_r_blurs_what_d_sees_at_first():
    config = configs.get_config("ffhq1024_r")
    losses = blur(config.loss.blur_sigma, float(config.loss.blur_fade_images))
    assert (losses.sigma, losses.fade_images) == (10.0, 200_000)
    assert configs.get_config("ffhq256_r").loss.blur_fade_images == 400_000
    assert blur(0.0, 0.0) is None
    with pytest.raises(ValueError, match="blur_fade_images=0"):
        blur(1.0, 0.0)


def test_the_half_life_of_magnitudes_is_in_images():
    assert magnitude_beta(32, 20_000.0) ** (20_000 / 32) == pytest.approx(0.5)
