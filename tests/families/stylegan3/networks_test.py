"""Networks of StyleGAN3; their numbers are tested by the goldens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.families.stylegan3.blocks import Disc, SynthesisLayer
from ganjax.families.stylegan3.networks import (
    Generator,
    Mapping,
    configuration_r,
    example_inputs,
    signals,
)
from ganjax.layers.initializers import init_on_host
from ganjax.layers.motion import shifted, turned

SMALL = dict(
    resolution=16,
    image_channels=1,
    channel_base=64,
    channel_max=8,
    latent_dim=6,
    w_dim=5,
    layers=3,
    critical=1,
    margin=2,
)
G = Generator(classes=3, **SMALL)
Z = jax.random.normal(jax.random.key(0), (2, 6))
LABELS = jnp.array([2, 0])


@functools.cache
def start(module):
    args, kwargs = example_inputs(module)
    return jax.tree.map(jnp.asarray, init_on_host(module, jax.random.key(0), *args, **kwargs))


def shapes(module):
    args, kwargs = example_inputs(module)
    return jax.eval_shape(lambda *a: module.init(jax.random.key(0), *a, **kwargs), *args)


@pytest.mark.parametrize(
    "module, parameters",
    [
        # By the official code, whose T at 1024 is the 22.3 M of StyleGAN3's table 3.
        (Generator(1024), 22_313_167),
        (configuration_r(resolution=1024), 15_093_151),
        (Generator(256), 28_472_133),
        (configuration_r(resolution=256), 18_816_387),
    ],
    ids=["T1024", "R1024", "T256", "R256"],
)
def test_parameters_of_the_official_configurations(module, parameters):
    leaves = jax.tree.leaves(shapes(module)["params"])
    assert sum(int(np.prod(leaf.shape)) for leaf in leaves) == parameters


def test_layers_are_sampled_as_in_figure_4c():
    made = signals(1024)
    assert [signal.size for signal in made[::3]] == [36, 52, 148, 532, 1044]
    assert [signal.rate for signal in made[:6]] == [16, 16, 32, 32, 64, 128]
    np.testing.assert_allclose(made[0].cutoff, 2)
    np.testing.assert_allclose([signal.cutoff for signal in made[-3:]], 512)
    # A critically sampled signal uses its whole band.
    assert all(signal.rate == 2 * signal.cutoff for signal in made[-3:])
    assert all(signal.cutoff + signal.half_width >= signal.rate / 2 for signal in made)


def test_waves_fill_a_disc():
    points = Disc(2.0).host(np.random.default_rng(0), (20_000, 2))
    traced = np.asarray(Disc(2.0).traced(jax.random.key(0), (20_000, 2)))
    for drawn in (points, traced):
        radii = np.linalg.norm(drawn, axis=1)
        assert radii.max() <= 2.0
        np.testing.assert_allclose(np.mean(radii < 1), 0.25, atol=0.02)
        np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=0.03)


def test_a_transform_moves_the_image_and_a_stored_one_does_so_too():
    variables = start(G)
    ws = G.apply(variables, Z, LABELS, method="styles")
    make = jax.jit(lambda v, t: G.apply(v, ws, t, method="synthesize"))
    still, moved = make(variables, jnp.eye(3)), make(variables, shifted(0.125, 0.0))
    assert still.shape == (2, 16, 16, 1) and still.dtype == jnp.float32
    inner = (slice(None), slice(4, -4))  # a margin of two pixels does not reach farther
    np.testing.assert_allclose(moved[inner][:, :, 6:-4], still[inner][:, :, 4:-6], atol=0.02)
    assert np.abs(moved - still).max() > 0.1
    stored = jax.tree.map(lambda leaf: leaf, variables)
    stored["fourier"]["synthesis"]["input"]["transform"] = turned(0.3)
    both = jax.jit(lambda v: G.apply(v, ws, method="synthesize"))
    np.testing.assert_allclose(both(stored), make(variables, turned(0.3)), atol=1e-5)
    each = make(variables, jnp.stack([jnp.eye(3), shifted(0.125, 0.0)]))
    np.testing.assert_allclose(each[0], still[0], atol=1e-5)
    np.testing.assert_allclose(each[1], moved[1], atol=1e-5)


def test_means_move_only_where_they_may():
    variables = start(G)
    _, moved = jax.jit(functools.partial(G.apply, mutable=["averages"]))(variables, Z, LABELS)
    before = variables["averages"]["synthesis"]["L1_20_8"]["magnitude_ema"]
    after = moved["averages"]["synthesis"]["L1_20_8"]["magnitude_ema"]
    assert set(moved) == {"averages"} and before == 1 and 0.99 < after < 1.01 and after != 1
    w = G.apply(variables, Z, LABELS, method="styles")[:, 0]
    np.testing.assert_allclose(
        moved["averages"]["mapping"]["w_avg"], 0.002 * w.mean(0), rtol=1e-4, atol=1e-7
    )


def test_mixed_precision():
    """At the highest sampling rate, where asked for."""
    wide = G.clone(resolution=32, layers=4)
    narrow = wide.clone(dtype=jnp.bfloat16, narrow=1)
    y, kept = jax.eval_shape(
        functools.partial(narrow.apply, capture_intermediates=True, mutable=["intermediates"]),
        start(wide),
        Z,
        LABELS,
    )
    assert y.dtype == jnp.float32
    layers = kept["intermediates"]["synthesis"]
    found = [layers[name]["__call__"][-1].dtype for name in narrow.resamplings()]
    wanted = [jnp.float32 if s.rate == 16 else jnp.bfloat16 for s in narrow.signals()]
    assert found == wanted and len(set(found)) == 2
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes(narrow)))


def test_radial_filters_are_where_there_is_room():
    ways = Generator(**SMALL | {"radial": True, "kernel_size": 1}).resamplings()
    dims = [None if way.down_taps is None else way.down_taps.ndim for way in ways.values()]
    assert dims == [2, 2, 1, None]


def test_errors_say_what_to_set():
    with pytest.raises(ValueError, match="resolution=24.*power of two"):
        shapes(G.clone(resolution=24))
    with pytest.raises(ValueError, match="critical=3 of config.model.layers=3 layers"):
        shapes(G.clone(critical=3))
    with pytest.raises(ValueError, match="kernel_size=2; set an odd number"):
        shapes(G.clone(kernel_size=2))
    with pytest.raises(ValueError, match="3 classes"):
        G.apply(start(G), Z)
    assert SynthesisLayer(8, *signals(16)[:2]).resampling().up == 2
    assert Mapping().layers == 2
