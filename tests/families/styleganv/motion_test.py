"""Motion codes; their values are compared in the golden cases."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.families.styleganv.motion import (
    Convolutions,
    Mapped,
    MotionEncoder,
    Recurrence,
    Waves,
    linear,
    octaves,
)
from ganjax.families.styleganv.networks import example_inputs
from ganjax.layers.initializers import init_on_host

DISTANCE = 16


def encoder(**fields):
    given = dict(
        noise_dim=6,
        features=6,
        distance=DISTANCE,
        trajectory=functools.partial(Convolutions, taps=3),
        encoding=functools.partial(Waves, 8),
    )
    return MotionEncoder(**(given | fields))


@functools.cache
def of(module):
    args, kwargs = example_inputs(module)
    return jax.tree.map(jnp.asarray, init_on_host(module, jax.random.key(0), *args, **kwargs))


def noise_of(module, codes):
    return jax.random.normal(jax.random.key(1), (2, codes, module.noise_dim))


def codes_at(module, times, noise, first=None):
    times = jnp.broadcast_to(jnp.asarray(times, jnp.float32), (2, len(times)))
    return module.apply(of(module), times, noise, first)


ENCODER = encoder()


@pytest.mark.parametrize("start", [0.0, 37.25, 63.9])
def test_a_window_of_noise_is_all_that_a_code_depends_on(start):
    module, times = ENCODER, start + np.array([0.0, 3.5, 20.0])
    whole = noise_of(module, 40)
    first = module.first(jnp.asarray([times, times]))
    place = int(first[0])
    window = whole[:, place : place + module.window(20, 1000)]
    assert window.shape[1] == module.window(20, 1000) == 2 + 2 + 4
    np.testing.assert_allclose(
        codes_at(module, times, window, first), codes_at(module, times, whole), atol=1e-5
    )
    # Two vectors fewer, and the last code is missing.
    short = codes_at(module, [start, start + 20], window[:, :-2], first)
    assert np.isnan(short[:, 1]).all() and not np.isnan(short[:, 0]).any()


def test_motion_is_continuous_where_codes_lie():
    noise, step = noise_of(ENCODER, 12), 1e-3
    at = codes_at(ENCODER, [32 - step, 32.0, 32 + step, 40.0], noise)
    np.testing.assert_allclose(at[:, 0], at[:, 1], atol=2e-3)
    np.testing.assert_allclose(at[:, 2], at[:, 1], atol=2e-3)
    assert np.abs(at[:, 3] - at[:, 1]).max() > 0.1


def test_waves_vanish_where_codes_lie():
    """There a motion code is its alignment vector alone (Eq. 4)."""
    module, noise = ENCODER, noise_of(ENCODER, 12)
    times = jnp.full((2, 1), 48.0)
    left, *_ = module.apply(of(module), times, noise, method="neighbours")
    kernel = of(module)["params"]["waves"]["aligners_predictor"]["kernel"]
    wanted = left @ kernel / np.sqrt(6)
    np.testing.assert_allclose(codes_at(module, [48.0], noise), wanted, atol=1e-5)


def test_motion_after_hours_is_as_smooth_as_at_the_start():
    """Angles of some 10^5 radians are rounded to hundredths: that may not shake."""
    module, step = ENCODER, 2.0**-6
    noise = 100 * noise_of(module, module.window(0, 0))  # fast waves
    for start in (0.0, 100_000.0):
        times = start + 2 + step * np.arange(64)
        first = jnp.full(2, start // DISTANCE, jnp.int32)
        codes = np.asarray(codes_at(module, times, noise, first), np.float64)
        change = np.abs(np.diff(codes, axis=1)).max(axis=(1, 2))
        # The fastest wave turns by at most 2 (2 pi / 16) a frame, and codes may differ by much.
        second = np.abs(np.diff(codes, 2, axis=1)).max()
        assert change.min() > 0 and second < 1e-3, start


def test_periods_reach_from_the_shortest_to_the_longest():
    np.testing.assert_allclose(octaves(3, 16, 1024), [1024, 128, 16])
    np.testing.assert_allclose(linear(3, 16, 1024), [1024, 520, 16])
    frequencies, scales = Waves(3, 16, 1024).constants()
    np.testing.assert_allclose(frequencies, 2 * np.pi / np.array([1024, 128, 16]), rtol=1e-6)
    np.testing.assert_allclose(scales, [1, 8, 64], rtol=1e-6)


def test_a_recurrence_depends_on_all_noise_before():
    module = encoder(trajectory=Recurrence)
    assert module.window(20, 160) == 12 and module.first(jnp.full((2, 1), 70.0)).tolist() == [0, 0]
    noise = noise_of(module, 12)
    late = codes_at(module, [150.0], noise)
    other = codes_at(module, [150.0], noise.at[:, 0].add(1.0))
    assert np.abs(late - other).max() > 1e-6
    with pytest.raises(ValueError, match="of 6 numbers gives codes of as many, not of 4; set"):
        of(encoder(trajectory=Recurrence, features=4))


def test_classes_move_each_in_their_own_way():
    module = encoder(classes=3, encoding=functools.partial(Mapped, size=5, classes=3))
    assert module.size == 5
    noise, times = noise_of(module, 8), jnp.full((2, 1), 5.0)
    one, other = (
        module.apply(of(module), times, noise, None, jnp.full(2, label)) for label in (0, 2)
    )
    assert np.abs(one - other).max() > 1e-3
    weights = jax.nn.one_hot(jnp.full(2, 2), 3)
    np.testing.assert_allclose(module.apply(of(module), times, noise, None, weights), other, 1e-5)
    with pytest.raises(ValueError, match="labels are None, and the network has 3 classes"):
        module.apply(of(module), times, noise)
