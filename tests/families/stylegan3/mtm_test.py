"""StyleGAN3 with the modulated transformation module at some of its sampling rates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from configs import stylegan3 as configs
from ganjax.families.stylegan3.networks import Generator, example_inputs
from ganjax.families.stylegan3.official import from_official, to_official
from ganjax.family import build
from ganjax.layers.initializers import init_on_host
from ganjax.layers.mtm import conv_at


@functools.cache
def start(preset):
    module = build(configs.tiny(preset), "cpu").networks["g"]
    variables = init_on_host(module, jax.random.key(0), *example_inputs(module)[0])
    return module, jax.tree.map(jnp.asarray, variables)


def test_layers_that_keep_a_chosen_rate_are_replaced_and_start_plain():
    (plain, old), (mtm, new) = start("digits"), start("digits_mtm")
    extra = flatten_dict(new["params"]).keys() - flatten_dict(old["params"]).keys()
    rates = [signal.rate for signal in mtm.signals()]
    kept = [i for i, rate in enumerate(rates[:-1]) if rate == rates[max(i - 1, 0)] <= 16]
    assert {int(path[1][1]) for path in extra} == set(kept) and kept
    assert {path[2] for path in extra} == {"offsets"}
    variables, report = from_official(to_official(old, plain), mtm, strict=False)
    assert all(".offsets." in name for name in report.missing) and report.missing
    z = jax.random.normal(jax.random.key(1), (2, mtm.latent_dim))
    labels = jnp.zeros(2, jnp.int32)
    images = mtm.apply(jax.tree.map(jnp.asarray, variables), z, labels)
    np.testing.assert_allclose(images, plain.apply(old, z, labels), atol=1e-5)


def test_layers_that_change_the_rate_stay_plain():
    at = conv_at((16, 32), (16, 32))
    module = Generator(32, layers=6, margin=6, channel_max=8, latent_dim=6, w_dim=5, conv_at=at)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *example_inputs(module)[0])["params"]
    layers = [shapes["synthesis"][name] for name in sorted(shapes["synthesis"]) if name[0] == "L"]
    # From 16 to 32 in the third, to an image in the last.
    assert ["offsets" in layer for layer in layers] == [True, True, False, True, True, True, False]
