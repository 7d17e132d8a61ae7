"""The augmentation pipe: draws, gates, shapes and derivatives; numbers are the goldens'."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.adversarial.augment import DRAWN, PIPES, Augment, filter_bands, filter_bank, pipe

KEY = jax.random.key(0)


def picture(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def augment(own, images, p, key=KEY):
    return jax.jit(lambda images: own(images, own.draw(key, images.shape), p))(images)


@pytest.mark.parametrize("name", PIPES)
def test_every_pipe_does_what_its_letters_say(name):
    own = pipe(name)
    chosen = {field for field in PIPES["bgcfnc"] if getattr(own, field)}
    letters = {"b": "blit", "g": "geom", "c": "color", "f": "filter", "n": "noise"}
    parts = [letters[letter] for letter in name[:5]] if name[0:2] == "bg" else [name]
    parts += ["cutout"] if name == "bgcfnc" else []
    assert chosen == {field for part in parts for field in PIPES[part]}
    images = picture(4, 8, 8, 3)
    changed = augment(own, images, 1.0)
    assert changed.shape == images.shape and changed.dtype == images.dtype
    assert np.isfinite(changed).all() and np.abs(changed - images).max() > 0.1


@pytest.mark.parametrize("name", ["color", "noise", "cutout"])
def test_closed_gates_leave_images_as_they_are(name):
    images = picture(4, 8, 8, 3)
    np.testing.assert_allclose(augment(pipe(name), images, 0.0), images, atol=1e-6)


def test_closed_gates_of_the_filter_pass_every_band():
    images = picture(2, 8, 8, 1)
    np.testing.assert_allclose(augment(pipe("filter"), images, 0.0), images, atol=1e-5)
    np.testing.assert_allclose(filter_bank().sum(0), np.eye(43)[21], atol=1e-12)
    # A flat image lies in the lowest band alone.
    flat, gains = jnp.ones((1, 30, 30, 1)), jnp.array([[2.0, 9, 9, 9]])
    np.testing.assert_allclose(filter_bands(flat, gains), 4 * flat, rtol=1e-5)


def test_a_transform_happens_with_probability_strength_times_p():
    n, own = 4000, Augment(xflip=0.5, rotate=1.0)
    draws = own.draw(KEY, (n, 1, 1, 1))
    to_input = own.to_input(draws, jnp.float32(0.6), (1, 1))
    flipped = np.linalg.det(to_input) < 0
    turned = np.abs(to_input[:, 0, 1]) > 1e-6
    # Half of the flips are none; either of two rotations happens with 1 - sqrt(1 - 0.6).
    assert flipped.mean() == pytest.approx(0.5 * 0.6 / 2, abs=0.03)
    assert turned.mean() == pytest.approx(0.6, abs=0.03)


def test_draws_are_of_the_key_and_the_name_alone():
    few, all_ = (pipe(name).draw(KEY, (3, 4, 4, 3)) for name in ("geom", "bgcfnc"))
    assert set(all_) == set(DRAWN) and set(few) < set(all_)
    jax.tree.map(np.testing.assert_array_equal, few, {name: all_[name] for name in few})
    firsts = [float(leaf.ravel()[0]) for leaf in jax.tree.leaves(all_)]
    assert len(set(firsts)) == len(firsts), "two of the draws are the same numbers"


def test_grey_images_draw_no_hue():
    own = pipe("color")
    assert set(own.draw(KEY, (2, 4, 4, 1))) == {"brightness", "contrast", "lumaflip"}
    grey = picture(6, 4, 4, 1)
    colored = own(jnp.repeat(grey, 3, -1), own.draw(KEY, (6, 4, 4, 3)), 1.0)
    assert np.ptp(colored, axis=-1).max() < 1e-5, "hue and saturation leave greys alone"
    np.testing.assert_allclose(colored[..., :1], augment(own, grey, 1.0), atol=1e-5)


def test_frames_of_a_clip_share_all_but_the_noise():
    clips = jnp.repeat(picture(2, 1, 8, 8, 3), 3, axis=1)
    still = augment(pipe("bgcf", cutout=1.0), clips, 1.0)
    assert np.ptp(still, axis=1).max() == 0
    frame = dataclasses.replace(pipe("bgcf"), cutout=1.0)
    np.testing.assert_allclose(still[:, 1], augment(frame, clips[:, 1], 1.0), atol=1e-5)
    assert np.ptp(augment(pipe("noise"), clips, 1.0)[:, :2], axis=1).max() > 0.01


def test_one_program_for_every_p():
    own, images = pipe("bgcfnc"), picture(4, 8, 8, 1)
    draws = own.draw(KEY, images.shape)
    compiled = jax.jit(own.__call__)
    for p in (0.0, 0.5):
        np.testing.assert_allclose(
            compiled(images, draws, jnp.float32(p)), own(images, draws, p), atol=1e-4
        )
    assert compiled._cache_size() == 1


def test_a_penalty_on_gradients_has_its_gradient_through_the_pipe():
    own, images = pipe("bgcfnc"), np.random.default_rng(0).normal(size=(2, 6, 6, 1))
    with jax.enable_x64(True):
        images = jnp.asarray(images)
        draws = jax.tree.map(jnp.float64, own.draw(KEY, images.shape))

        def penalty(weight):
            def total(images):
                return jnp.sum(jnp.tanh(weight * own(images, draws, 0.9)))

            return jnp.sum(jnp.square(jax.grad(total)(images)))

        @jax.jit
        def slopes(weight, step):
            difference = penalty(weight + step) - penalty(weight - step)
            return jax.grad(penalty)(weight), difference / (2 * step)

        slope, wanted = slopes(0.7, 1e-5)
    assert float(slope) == pytest.approx(float(wanted), rel=1e-6)


def test_what_cannot_be_augmented_is_told():
    with pytest.raises(ValueError, match=r"\(2, 4, 4, 2\).*Set config.data.channels to 1 or 3"):
        pipe("bg").draw(KEY, (2, 4, 4, 2))
    with pytest.raises(ValueError, match=r"augment.pipe='gbc' is no pipe. Set one of: blit"):
        pipe("gbc")
