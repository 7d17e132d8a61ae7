"""The generator as a whole: its size, and what each of its images depends on."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.families.aurora import networks, official
from ganjax.families.aurora.networks import Generator, MappingNetwork, stages, truncated
from ganjax.families.aurora.text import TextHead
from ganjax.layers.equalized import EqualizedDense
from ganjax.layers.initializers import init_on_host

SMALL = dict(
    stages=stages({4: (1, 1, 0, 0), 8: (1, 2, 2, 1)}, base=256, most=32, heads=2, head_dim=4),
    latent_dim=3,
    text_dim=5,
    context_dim=6,
    w_dim=4,
    source_features=8,
    text_head=functools.partial(TextHead, layers=0),
    mapping_network=functools.partial(MappingNetwork, layers=1),
)
RNG = np.random.default_rng(0)
Z = jnp.asarray(RNG.standard_normal((2, 3)), jnp.float32)
TEXT = jnp.asarray(RNG.standard_normal((2, 7, 5)), jnp.float32)
END = jnp.array([2, 6])


def parameters(module):
    inputs, _ = networks.example_inputs(module)
    return jax.eval_shape(functools.partial(module.init, jax.random.key(0)), *inputs)["params"]


def test_the_published_size():
    params = parameters(networks.released())
    counts = {
        name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(part))
        for name, part in params.items()
    }
    wanted = {"text_head": 51_172_352, "mapping": 4_329_472, "synthesis": 1_110_827_563}
    assert counts == wanted and sum(counts.values()) == 1_166_329_387


def test_doing_it_right_takes_the_same_parameters():
    right = Generator(stages())
    assert jax.tree.structure(parameters(right)) == jax.tree.structure(
        parameters(networks.released())
    )


@pytest.fixture(scope="module")
def small():
    module = Generator(**SMALL)
    inputs, _ = networks.example_inputs(module)
    # Of random values: what starts from zero would hide the text.
    start = init_on_host(module, jax.random.key(0), *inputs)
    return module, jax.tree.map(
        lambda a: jnp.asarray(RNG.standard_normal(a.shape), jnp.float32), start
    )


def test_a_stage_adds_to_the_image_and_leaves_the_others_alone(small):
    module, variables = small
    ws, tokens = module.apply(variables, Z, TEXT, END, method="styles")
    assert ws.shape == (2, 3, 4) and tokens.shape == (2, 6, 6)
    images = module.apply(variables, ws, tokens, method="synthesize")
    first = module.apply(variables, ws, tokens, (4,), method="synthesize")
    assert {k: v.shape for k, v in images.items()} == {4: (2, 4, 4, 3), 8: (2, 8, 8, 3)}
    assert list(first) == [4]
    np.testing.assert_array_equal(first[4], images[4])


def test_samples_of_a_batch_are_strangers_and_all_of_the_text_counts(small):
    module, variables = small
    both = module.apply(variables, Z, TEXT, END)
    alone = module.apply(variables, Z[:1], TEXT[:1], END[:1])
    np.testing.assert_allclose(both[:1], alone, rtol=0, atol=1e-5 * np.abs(alone).max())
    other = module.apply(variables, Z[:1], TEXT[:1].at[0, 4].add(1.0), END[:1])
    assert np.abs(other - alone).max() > 5e-5 * np.abs(alone).max()


def test_the_mean_of_w_moves_where_it_may(small):
    module, variables = small
    call = functools.partial(module.apply, variables, Z, TEXT, END, method="styles")
    (ws, _), moved = call(mutable=["averages"])
    before, after = variables["averages"]["w_avg"], moved["averages"]["w_avg"]
    np.testing.assert_allclose(after, 0.998 * before + 0.002 * ws[:, 0].mean(0), rtol=1e-4)


def test_truncation_moves_the_first_blocks_to_the_centre():
    ws, centre = jnp.ones((2, 3, 4)), jnp.full((1, 1, 4), 3.0)
    np.testing.assert_array_equal(truncated(ws, centre, 1.0), ws)
    found = truncated(ws, centre, 0.25, 2)
    np.testing.assert_array_equal(found[:, :, 0], [[2.5, 2.5, 1.0]] * 2)


def test_a_w_for_each_block_is_one_or_all():
    module = Generator(**{**SMALL, "mapped_ws": 2})
    with pytest.raises(ValueError, match="mapped_ws=2: the generator has 3 blocks"):
        parameters(module)


def test_a_generator_of_classes_has_one_image_and_wants_labels():
    module = Generator(
        **SMALL
        | dict(
            text_head=networks.labels_alone,
            mapping_network=functools.partial(
                MappingNetwork, layers=1, embed=functools.partial(EqualizedDense, 5, inputs=3)
            ),
            outputs=(8,),
        )
    )
    inputs, _ = networks.example_inputs(module)
    start = jax.eval_shape(functools.partial(module.init, jax.random.key(0)), *inputs)
    variables = jax.tree.map(lambda a: jnp.float32(RNG.standard_normal(a.shape)), start)
    assert official.to_official(variables, module)["mapping.embedding.weight"].shape == (5, 3)

    def ask(labels):
        ws, tokens = module.apply(variables, Z, labels, method="styles")
        return ws, module.apply(variables, ws, tokens, method="synthesize")

    labels = jnp.array([2, 0])
    quickly = {"xla_backend_optimization_level": 0}
    ws, images = jax.jit(ask).lower(labels).compile(quickly)(labels)
    assert list(images) == [8] and images[8].shape == (2, 8, 8, 3)
    z = np.asarray(Z[0]) / np.sqrt(np.mean(np.square(Z[0])))
    mapping = variables["params"]["mapping"]
    embedded = mapping["embedding"]["kernel"][2] / np.sqrt(3) + mapping["embedding"]["bias"]
    embedded /= np.sqrt(np.mean(np.square(embedded)))
    w = np.concatenate([z, embedded]) @ mapping["dense0"]["kernel"] * 0.01 / np.sqrt(8)
    w += 0.01 * mapping["dense0"]["bias"]
    np.testing.assert_allclose(
        ws[0, 0], np.sqrt(2) * np.where(w > 0, w, 0.2 * w), rtol=1e-4, atol=1e-6
    )
    with pytest.raises(ValueError, match="a generator of classes was given none; give labels"):
        module.apply(variables, None, method="read")
