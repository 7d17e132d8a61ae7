"""StyleGAN-V's networks; their values are compared in the golden cases."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import styleganv as configs
from ganjax.families.stylegan2.networks import MappingNetwork
from ganjax.families.styleganv.networks import (
    Discriminator,
    EncodedDifferences,
    HyperDiscriminator,
    LearnedDifferences,
    between_the_first,
    blank,
    example_inputs,
    to_styles,
)
from ganjax.family import Request, build
from ganjax.layers.initializers import init_on_host


@pytest.mark.parametrize(
    ("resolution", "base", "wanted"),
    [
        (256, 16384, (32_105_941, 25_333_568)),
        (512, 32768, (37_615_064, 30_315_328)),
        (1024, 32768, (37_708_539, 30_344_992)),
    ],
)
def test_parameters_are_as_many_as_the_released_codes(resolution, base, wanted):
    config = configs.get_config("faceforensics256")
    config.data.resolution = resolution
    config.model.update(g_channel_base=base, d_channel_base=base)
    family = build(config, "cpu")
    assert tuple(family.parameter_count(player) for player in "gd") == wanted


@functools.cache
def family():
    return build(configs.tiny(), "cpu")


@functools.cache
def state():
    return family().init(jax.random.key(0))


def clips(times, count=2):
    draws = family().draws(jax.random.key(3), jnp.arange(count), Request(times=times))
    return np.asarray(jax.jit(family().sample)(state().ema, draws))


def test_a_frame_costs_the_same_wherever_it_is():
    costs, shapes = [], []
    for time in (0, 100_000):

        def make(variables, key, time=time):
            draws = family().draws(key, jnp.arange(1), Request(times=(time,)))
            return family().sample(variables, draws)

        traced = jax.jit(make).trace(state().ema, jax.random.key(0))
        shapes.append(sorted(str(aval) for eqn in traced.jaxpr.eqns for aval in eqn.outvars))
        costs.append(traced.lower().compile().cost_analysis()["flops"])
    assert costs[0] == pytest.approx(costs[1], rel=1e-3) and costs[0] > 1e5
    assert [len(found) for found in shapes] == [len(shapes[0])] * 2


def test_frames_at_a_hundred_a_second_are_those_at_25_and_more():
    slow = clips(tuple(range(5)))
    fast = clips(tuple(i / 4 for i in range(17)))
    np.testing.assert_allclose(fast[:, ::4], slow, atol=1e-6)
    steps = np.abs(np.diff(fast, axis=1)).mean((0, 2, 3, 4))
    assert (steps > 0).all() and steps.max() < 20 * steps.min()


def test_a_video_goes_on_for_hours():
    late = clips((100_000, 100_001, 163_840))
    assert np.isfinite(late).all()
    near, far = np.abs(late[:, 1] - late[:, 0]).mean(), np.abs(late[:, 2] - late[:, 0]).mean()
    assert 0 < near < far


def discriminator(make=Discriminator, **fields):
    given = dict(
        resolution=16,
        channel_base=64,
        channel_max=8,
        join_resolution=8,
        mapping_network=functools.partial(MappingNetwork, layers=2),
    )
    if make is HyperDiscriminator:
        given |= dict(w_dim=8, encoder=functools.partial(EncodedDifferences, 64, 8))
    else:
        given |= dict(encoder=functools.partial(LearnedDifferences, 64, 8))
    return make(**(given | fields))


def of(module):
    args, kwargs = example_inputs(module)
    variables = init_on_host(module, jax.random.key(0), *args, **kwargs)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) + 0.1, variables)  # no bias is zero


def logits(module, times, labels=None):
    variables = of(module)
    frames = jax.random.normal(jax.random.key(1), (4, module.frames, 16, 16, 3))
    times = jnp.broadcast_to(jnp.asarray(times, jnp.float32), (4, module.frames))
    return np.asarray(module.apply(variables, frames, times, labels))


@pytest.mark.parametrize(
    ("make", "fields", "looks"),
    [
        (Discriminator, {}, True),
        (Discriminator, {"projected": blank}, False),
        (HyperDiscriminator, {}, True),
        (HyperDiscriminator, {"projected": blank}, True),
        (HyperDiscriminator, {"modulated": blank}, True),
        (HyperDiscriminator, {"projected": blank, "modulated": blank}, False),
    ],
)
def test_a_discriminator_looks_at_distances_unless_told_nothing(make, fields, looks):
    module = discriminator(make, **fields)
    near, later, far = (logits(module, times) for times in ((0, 1, 3), (5, 6, 8), (0, 1, 17)))
    np.testing.assert_allclose(later, near, atol=1e-6)
    assert (np.abs(far - near).max() > 1e-5) == looks


def test_even_times_are_told_once():
    every = discriminator(frames=4)
    once = discriminator(frames=4, differences=between_the_first)
    assert every.told_dim == 3 * once.told_dim == 3 * (8 + 12)
    assert np.abs(logits(once, (0, 2, 4, 6)) - logits(once, (0, 3, 6, 9))).max() > 1e-5


def test_a_single_frame_has_no_distances():
    single = discriminator(frames=1, classes=2)
    assert single.conditions == 2
    assert logits(single, (3,), jnp.zeros(4, jnp.int32)).shape == (4,)
    with pytest.raises(ValueError, match="one frame has no distances"):
        logits(discriminator(HyperDiscriminator, frames=1), (3,))


def test_order_of_frames_counts():
    module = discriminator()
    variables = of(module)
    frames = jax.random.normal(jax.random.key(1), (4, 3, 16, 16, 3))
    times = jnp.broadcast_to(jnp.arange(3.0), (4, 3))
    one, other = (module.apply(variables, x, times) for x in (frames, frames[:, ::-1]))
    assert np.abs(one - other).max() > 1e-5


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"join_resolution": 16}, "join_resolution=16: frames of 16 pixels .* from 8 to 8"),
        ({"architecture": "skip"}, "architecture='skip' .* set resnet"),
    ],
)
def test_what_a_discriminator_cannot_be(fields, words):
    with pytest.raises(ValueError, match=words):
        logits(discriminator(**fields), (0, 1, 2))


def test_clips_of_another_length_are_an_error():
    module = discriminator(frames=2)
    variables = of(module)
    with pytest.raises(ValueError, match="clips of 3 frames, the discriminator wants 2"):
        module.apply(variables, jnp.zeros((4, 3, 16, 16, 3)), jnp.zeros((4, 3)))


def test_motion_can_go_to_the_styles():
    config = configs.tiny()
    config.model.join = "styles"
    generator = build(config, "cpu").networks["g"]
    assert generator.join is to_styles
    params = of(generator)["params"]
    assert params["synthesis"]["b8"]["conv0"]["affine"]["kernel"].shape == (8 + 8, 8)
