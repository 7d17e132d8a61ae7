"""BigGAN's networks: sizes of the paper, shapes, and what each switch changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.biggan import get_config
from ganjax.families import biggan
from ganjax.families.biggan.networks import (
    DeepDiscriminator,
    DeepGenerator,
    Discriminator,
    Generator,
    example_inputs,
)
from ganjax.layers.initializers import init_on_host

LABELS = jnp.array([0, 2, 1])


def shapes(module):
    args, kwargs = example_inputs(module)
    return jax.eval_shape(lambda *inputs: module.init(jax.random.key(0), *inputs, **kwargs), *args)


def parameters(module):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes(module)["params"]))


def start(module, seed=0):
    args, kwargs = example_inputs(module)
    variables = init_on_host(module, jax.random.key(seed), *args, **kwargs)
    return jax.tree.map(jnp.asarray, variables)


@pytest.mark.parametrize(
    "channels, shared_dim, hierarchical, latent_dim, millions",
    [
        (64, 0, False, 128, 81.5),
        (96, 0, False, 128, 173.5),
        (96, 128, False, 128, 160.6),
        (96, 128, True, 120, 158.3),
        (64, 128, True, 120, 71.3),
    ],
)
def test_parameter_counts_are_those_of_table_1(
    channels, shared_dim, hierarchical, latent_dim, millions
):
    # Table 1 counts generator and discriminator together, at 128x128 and 1000 classes; latents have
    # 128 entries, with a hierarchy 120, six parts of 20.
    generator = Generator(
        resolution=128,
        channels=channels,
        shared_dim=shared_dim,
        hierarchical=hierarchical,
        latent_dim=latent_dim,
    )
    discriminator = Discriminator(resolution=128, channels=channels)
    total = parameters(generator) + parameters(discriminator)
    assert total / 1e6 == pytest.approx(millions, rel=2e-3)


def test_parameter_counts_of_the_official_code():
    assert parameters(Generator(resolution=128)) == 70_433_988
    assert parameters(Discriminator(resolution=128)) == 87_982_370


@pytest.mark.parametrize("resolution, latent_dim", [(32, 4), (64, 5), (128, 6), (256, 7), (512, 8)])
@pytest.mark.parametrize("deep", [False, True])
def test_every_resolution_builds(resolution, latent_dim, deep):
    small = dict(resolution=resolution, channels=4, classes=3, attention=(16, 64))
    generator = (DeepGenerator if deep else Generator)(
        latent_dim=latent_dim, shared_dim=5, image_channels=1, **small
    )
    discriminator = (DeepDiscriminator if deep else Discriminator)(image_channels=1, **small)

    def play(z, labels):
        g_variables = generator.init(jax.random.key(0), z, labels, train=True)
        images = generator.apply(g_variables, z, labels, train=False)
        d_variables = discriminator.init(jax.random.key(0), images, labels)
        return images, discriminator.apply(d_variables, images, labels)

    z = jax.ShapeDtypeStruct((3, latent_dim), jnp.float32)
    images, logits = jax.eval_shape(play, z, jax.ShapeDtypeStruct((3,), jnp.int32))
    assert images.shape == (3, resolution, resolution, 1)
    assert logits.shape == (3,)


@pytest.fixture(scope="module")
def generator():
    return Generator(
        resolution=32, channels=2, latent_dim=8, classes=3, shared_dim=4, attention=(16,)
    )


@pytest.fixture(scope="module")
def discriminator():
    return Discriminator(resolution=32, channels=2, classes=3, attention=(16,))


def test_mixtures_of_classes(generator, discriminator):
    z = jax.random.normal(jax.random.key(1), (3, 8))
    one_hot = jax.nn.one_hot(LABELS, 3)
    variables = start(generator)
    by_class = generator.apply(variables, z, LABELS, train=False)
    by_weights = generator.apply(variables, z, one_hot, train=False)
    np.testing.assert_allclose(by_class, by_weights, atol=1e-6)

    variables = start(discriminator)
    by_class = discriminator.apply(variables, by_class, LABELS)
    np.testing.assert_allclose(by_class, discriminator.apply(variables, by_weights, one_hot), 1e-5)


def test_side_state_moves_only_where_mutable(generator):
    variables = start(generator)
    z = jax.random.normal(jax.random.key(1), (3, 8))
    _, moved = generator.apply(variables, z, LABELS, train=True, mutable=["spectral"])
    assert set(moved) == {"spectral"}
    # Weights start orthogonal, so every sigma starts right, at 1; the vectors do not.
    for module, state in moved["spectral"]["blocks_0_0"].items():
        if "u" in state:
            assert (state["u"] != variables["spectral"]["blocks_0_0"][module]["u"]).any(), module
    _, moved = generator.apply(variables, z, LABELS, train=True, mutable=["batch_stats"])
    assert set(moved) == {"batch_stats"}


def test_bfloat16_stays_close_and_keeps_float32_state(generator, discriminator):
    half = dict(dtype=jnp.bfloat16)
    z = jax.random.normal(jax.random.key(1), (3, 8))
    variables = start(generator)
    images, moved = generator.clone(**half).apply(
        variables, z, LABELS, train=True, mutable=["batch_stats", "spectral"]
    )
    assert {leaf.dtype for leaf in jax.tree.leaves((images, moved))} == {jnp.dtype("float32")}
    exact = generator.apply(variables, z, LABELS, train=True)
    assert jnp.abs(images - exact).max() < 0.1
    logits = discriminator.clone(**half).apply(start(discriminator), images, LABELS)
    assert logits.dtype == jnp.float32


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(resolution=48), "resolution=48"),
        (dict(latent_dim=9), "latent_dim=9.*multiple of 4.*such as 8"),
        (dict(latent_dim=0), "latent_dim=0; set"),
        (dict(channels=0), "channels=0; set"),
        (dict(shared_dim=0), "hierarchical=False"),
        (dict(initializer="ortho"), "initializer='ortho'.*orthogonal"),
    ],
)
def test_wrong_fields_say_what_to_set(generator, fields, message):
    with pytest.raises(ValueError, match=message):
        shapes(generator.clone(**fields))


def test_images_of_another_size_are_refused(discriminator):
    with pytest.raises(ValueError, match="image_channels"):
        discriminator.apply(start(discriminator), jnp.zeros((3, 32, 32, 1)), LABELS)


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("model.attention", (63,), "no feature map is 63x63"),
        ("model.shared_dim", -2, "model.shared_dim=-2; set it to 0 or more"),
        ("sample.standing", -1, "sample.standing=-1; set it to 0 or more"),
    ],
)
def test_a_config_that_cannot_be_is_refused(field, value, word):
    config = get_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=word):
        biggan.networks(config)
