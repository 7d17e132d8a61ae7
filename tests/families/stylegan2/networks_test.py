"""Networks of StyleGAN2; their numbers are tested by the goldens."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.families.stylegan2.networks import (
    Discriminator,
    Generator,
    MappingNetwork,
    example_inputs,
)
from ganjax.layers.initializers import init_on_host
from ganjax.layers.modulated import ModulatedConv

SMALL = dict(resolution=16, image_channels=1, channel_base=64, channel_max=8)
G = Generator(
    latent_dim=6,
    w_dim=5,
    classes=3,
    mapping_network=functools.partial(MappingNetwork, layers=2),
    **SMALL,
)
D = Discriminator(classes=3, mapping_network=functools.partial(MappingNetwork, layers=1), **SMALL)
Z = jax.random.normal(jax.random.key(0), (2, 6))
LABELS = jnp.array([2, 0])


@functools.cache
def start(module):
    args, kwargs = example_inputs(module)
    variables = init_on_host(module, jax.random.key(0), *args, **kwargs)
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf + rng.normal(size=leaf.shape), leaf.dtype), variables
    )


def count(module):
    args, kwargs = example_inputs(module)
    shapes = jax.eval_shape(lambda *a: module.init(jax.random.key(0), *a, **kwargs), *args)
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes["params"]))


@pytest.mark.parametrize(
    "module, parameters",
    [
        (Generator(1024), 30_370_060),
        (Discriminator(1024), 29_012_513),
        (Generator(256, channel_base=16384), 24_767_458),
        (Discriminator(256, channel_base=16384), 24_001_089),
    ],
    ids=["G1024", "D1024", "G256", "D256"],
)
def test_parameters_of_the_official_configurations(module, parameters):
    assert count(module) == parameters


def test_truncation_leads_to_the_mean_w():
    variables = start(G)
    average = variables["averages"]["mapping"]["w_avg"]
    styles = functools.partial(G.apply, variables, Z, LABELS, method="styles")
    whole = styles()
    assert whole.shape == (2, G.num_ws, 5)
    np.testing.assert_allclose(styles(0.0), np.broadcast_to(average, whole.shape), rtol=1e-5)
    half = styles(0.5, 3)
    np.testing.assert_allclose(half[:, :3], (whole[:, :3] + average) / 2, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(half[:, 3:], whole[:, 3:])
    each = styles(jnp.array([1.0, 0.0]))
    np.testing.assert_allclose(each[0], whole[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(each[1], np.broadcast_to(average, each[1].shape), rtol=1e-4)


def test_the_mean_w_moves_only_where_it_may():
    variables = start(G)
    w = G.apply(variables, Z, LABELS, method="styles")[:, 0]
    _, changed = G.apply(variables, Z, LABELS, method="styles", mutable=["averages"])
    before = variables["averages"]["mapping"]["w_avg"]
    wanted = 0.998 * before + 0.002 * w.mean(0)
    np.testing.assert_allclose(changed["averages"]["mapping"]["w_avg"], wanted, rtol=1e-5)


def test_noise_and_conditions():
    variables = start(G)
    make = jax.jit(lambda labels, noise: G.apply(variables, Z, labels, noise=noise))
    silent = {name: jnp.zeros((2, h, w, 1)) for name, (h, w) in G.noise_shapes().items()}
    images = make(LABELS, silent)
    assert images.shape == (2, 16, 16, 1) and images.dtype == jnp.float32
    one_hot = make(jax.nn.one_hot(LABELS, 3), silent)
    np.testing.assert_allclose(one_hot, images, rtol=1e-4, atol=1e-4)
    assert np.abs(make(jnp.array([1, 0]), silent)[0] - images[0]).max() > 1e-2
    none = jax.jit(lambda: G.apply(variables, Z, LABELS, noise="none"))()
    np.testing.assert_allclose(none, images, rtol=1e-4, atol=1e-4)
    const = variables["noise"]["synthesis"]
    stored = {
        name: jnp.broadcast_to(const[block][conv]["noise_const"][:, :, None], (2, *shape, 1))
        for name, shape in G.noise_shapes().items()
        for block, conv in [name.split(".")]
    }
    fixed = jax.jit(lambda: G.apply(variables, Z, LABELS))()
    np.testing.assert_allclose(make(LABELS, stored), fixed, rtol=1e-4, atol=1e-4)
    assert np.abs(fixed - images).max() > 1e-2


class Doubled(nn.Module):
    """A variant of the convolution: any module of the same call."""

    features: int
    up: int
    taps: tuple
    dtype: object = None

    @nn.compact
    def __call__(self, x, w):
        conv = ModulatedConv(self.features, up=self.up, taps=self.taps, dtype=self.dtype)
        nn.share_scope(self, conv)
        return 2 * conv(x, w)


def test_a_variant_of_the_convolution_is_a_module():
    """Its parameters have the places of the plain one's."""
    plain, variant = start(G), G.clone(conv=Doubled)
    assert jax.tree.structure(start(variant)) == jax.tree.structure(plain)
    image, other = (jax.eval_shape(m.apply, plain, Z, LABELS) for m in (G, variant))
    assert image == other


@pytest.mark.parametrize("module", [G, D], ids="GD")
def test_mixed_precision(module):
    variables = start(module)
    narrow = module.clone(dtype=jnp.bfloat16, narrow=1, clamp=256.0)
    inputs = (Z, LABELS) if module is G else (jnp.ones((2, 16, 16, 1)), LABELS)
    y, kept = jax.eval_shape(
        functools.partial(
            narrow.apply, capture_intermediates=True, mutable=["intermediates", "averages"]
        ),
        variables,
        *inputs,
    )
    assert y.dtype == jnp.float32
    blocks = kept["intermediates"]
    blocks = blocks.get("synthesis", blocks)
    dtypes = {name: blocks[name]["__call__"][0][0].dtype for name in ("b8", "b16")}
    assert dtypes == {"b8": jnp.float32, "b16": jnp.bfloat16}
    shapes = jax.eval_shape(lambda: narrow.init(jax.random.key(0), *inputs))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))


def test_errors_say_what_to_set():
    with pytest.raises(ValueError, match="resolution=24.*power of two"):
        count(Generator(24))
    with pytest.raises(ValueError, match="config.model.d_architecture='dense'; set one of"):
        count(Discriminator(16, architecture="dense"))
    with pytest.raises(ValueError, match="3 classes"):
        G.apply(start(G), Z)
    with pytest.raises(ValueError, match="wants .n, 6."):
        G.apply(start(G), Z[:, :5], LABELS)
    with pytest.raises(ValueError, match="noise='loud'"):
        G.apply(start(G), Z, LABELS, noise="loud")
    with pytest.raises(ValueError, match=r"wants \(16, 16, 1\)"):
        D.apply(start(D), jnp.ones((1, 8, 8, 1)), LABELS[:1])


@pytest.mark.parametrize("kind", [Generator, Discriminator], ids="GD")
@pytest.mark.parametrize("base, lanes, architecture", [(32, 8, "resnet"), (24, 6, "skip")])
def test_lanes_change_how_pixels_lie_but_no_number(kind, base, lanes, architecture):
    """Of 8, 4 and 2 channels two and four pixels lie side by side; of 6, 3 and 1 two and none."""
    own = dict(latent_dim=6, w_dim=5, mapping_network=functools.partial(MappingNetwork, layers=2))
    plain = kind(
        16, 1, channel_base=base, channel_max=8, architecture=architecture,
        **(own if kind is Generator else {}),
    )  # fmt: skip
    variables = start(plain)
    x = Z if kind is Generator else jax.random.normal(jax.random.key(1), (2, 16, 16, 1))

    def loss(params, module):
        y = module.apply({**variables, "params": params}, x)
        return jnp.sum(jnp.sin(y)), y

    # Gradients are those of the layers; one architecture has all of them.
    look = jax.grad(loss, has_aux=True) if architecture == "resnet" else loss
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-3),
        jax.jit(look, static_argnums=1)(variables["params"], plain.clone(lanes=lanes)),
        jax.jit(look, static_argnums=1)(variables["params"], plain),
    )
