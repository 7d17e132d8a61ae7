"""TGANv2's networks: the published sizes, shapes, and what each switch changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.families.tganv2.networks import (
    Discriminator,
    Generator,
    SubDiscriminator,
    added,
    concatenated,
    example_inputs,
)
from ganjax.layers.initializers import init_on_host

SMALL = Generator(
    frames=8, latent_dim=3, bottom_width=1, channels=1, recurrent_channels=2, recurrent_layers=2
)


def shapes(module):
    args, kwargs = example_inputs(module)
    return jax.eval_shape(lambda *inputs: module.init(jax.random.key(0), *inputs, **kwargs), *args)


def start(module):
    args, kwargs = example_inputs(module)
    variables = init_on_host(module, jax.random.key(0), *args, **kwargs)
    return jax.tree.map(jnp.asarray, variables)


@pytest.mark.parametrize(
    ("module", "count"),
    [
        # The README's commands for UCF101; the sum is the paper's 2.0e8 (Section 5.2).
        (Generator(), 88_032_460),
        (Discriminator(), 116_077_060),
        # The released experiments' other configurations.
        (Generator(bottom_width=4, recurrent_channels=512, recurrent_layers=2), 47_398_092),
    ],
)
def test_parameter_counts_are_the_published_ones(module, count):
    leaves = jax.tree.leaves(shapes(module)["params"])
    assert sum(int(np.prod(leaf.shape)) for leaf in leaves) == count


@pytest.mark.parametrize(
    ("frame_strides", "batch_strides", "expected"),
    [
        # Table 1's four variants, with 8 videos of 16 frames.
        ((2, 2, 2), (2, 2, 2), [(8, 16), (4, 8), (2, 4), (1, 2)]),
        ((2, 2, 2), (1, 1, 1), [(8, 16), (8, 8), (8, 4), (8, 2)]),
        ((1, 1, 1), (2, 2, 2), [(8, 16), (4, 16), (2, 16), (1, 16)]),
        ((1, 1, 1), (1, 1, 1), [(8, 16)] * 4),
    ],
)
def test_sizes_of_levels(frame_strides, batch_strides, expected):
    module = Generator(frame_strides=frame_strides, batch_strides=batch_strides)
    z, offsets = jnp.zeros((8, 256)), jnp.zeros(4, jnp.int32)
    videos = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), z, offsets)[0])
    assert [video.shape for video in videos] == [
        (n, t, size, size, 3) for (n, t), size in zip(expected, (24, 48, 96, 192))
    ]


def test_samples_depend_on_neither_the_batch_nor_the_number_of_frames():
    variables = start(SMALL)
    z = jax.random.uniform(jax.random.key(1), (2, 3), minval=-1)
    whole = SMALL.apply(variables, z, level=1, method="sample")
    assert whole.shape == (2, 8, 8, 8, 3)
    assert jnp.ptp(whole, axis=1).max() > 1e-4  # frames differ
    last = SMALL.apply(variables, z, method="sample")
    assert last.shape == (2, 8, 64, 64, 3)
    few = SMALL.apply(variables, z[1:2], frames=3, method="sample")
    np.testing.assert_allclose(few, last[1:2, :3], atol=1e-6)


def test_known_and_traced_offsets_agree():
    variables = start(SMALL)
    module = SMALL.clone(stride=2, max_offset=1)
    z = jax.random.uniform(jax.random.key(1), (4, 3), minval=-1)
    offsets = (1, 1, 0, 1)
    known = module.apply(variables, z, offsets)
    traced = module.apply(variables, z, jnp.array(offsets))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), known, traced)
    other = module.apply(variables, z, (1, 1, 0, 0))
    np.testing.assert_array_equal(other[2], known[2])
    assert np.abs(other[3] - known[3]).max() > 1e-5


def test_a_start_later_is_a_longer_video_without_its_first_frames():
    variables = start(SMALL)
    module = SMALL.clone(frame_strides=(1, 1, 1), batch_strides=(1, 1, 1), max_offset=2)
    z = jax.random.uniform(jax.random.key(1), (2, 3), minval=-1)
    states = SMALL.apply(variables, z, 10, method="_states")
    apart = module.apply(variables, z, (2, 0, 0, 0), mutable=["batch_stats"])[1]
    h = states[:, 2:].reshape(16, 1, 1, 2)
    moved = 0.1 * h.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(apart["batch_stats"]["block1"]["b1"]["mean"], moved, atol=1e-6)


def test_bfloat16_stays_close_and_keeps_float32_state():
    variables = start(SMALL)
    z, offsets = jax.random.uniform(jax.random.key(1), (4, 3), minval=-1), (0, 1, 1, 0)
    exact = SMALL.apply(variables, z, offsets)
    half, moved = SMALL.clone(dtype=jnp.bfloat16).apply(
        variables, z, offsets, mutable=["batch_stats"]
    )
    assert {leaf.dtype for leaf in jax.tree.leaves((half, moved))} == {jnp.dtype("float32")}
    assert np.abs(half[0] - exact[0]).mean() < 0.05


def test_discriminators_share_nothing_and_are_joined():
    module = Discriminator(channels=1, batch_strides=(2,))
    videos = [jnp.ones((2, 1, 2, 2, 3)), jnp.full((1, 1, 2, 2, 3), 2.0)]
    variables = module.init(jax.random.key(0), videos)
    assert set(variables["params"]) == {"level0", "level1"}
    apart = module.apply(variables, videos)
    assert apart.shape == (3,)
    summed = module.clone(join=added).apply(variables, videos)
    np.testing.assert_allclose(summed, [apart[0] + apart[2], apart[1]], rtol=1e-6)


def test_ways_to_join():
    logits = [jnp.arange(6.0), jnp.array([10.0, 20, 30]), jnp.array([100.0, 200])]
    np.testing.assert_array_equal(
        concatenated(logits, (2, 2)), [0, 1, 2, 3, 4, 5, 10, 20, 30, 100, 200]
    )
    # Items 0, 2 and 4 reach the second level, 0 and 4 the third.
    np.testing.assert_array_equal(added(logits, (2, 2)), [110, 1, 22, 3, 234, 5])
    with pytest.raises(ValueError, match="2 logits of a level that keeps one of 2 of 6.*set"):
        added([logits[0], logits[2]], (2,))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": 0}, "channels=0; set"),
        ({"frame_strides": (2, 2)}, "frame_strides=.*set 3 numbers"),
        ({"batch_strides": (2, 0, 2)}, "batch_strides=.*set 3 numbers"),
    ],
)
def test_wrong_fields_say_what_to_set(fields, message):
    with pytest.raises(ValueError, match=message):
        shapes(SMALL.clone(**fields))


def test_wrong_arguments_say_what_to_set():
    variables, z = shapes(SMALL), jnp.zeros((1, 3))

    def call(*args, **kwargs):
        return jax.eval_shape(lambda v: SMALL.apply(v, z, *args, **kwargs), variables)

    with pytest.raises(ValueError, match="3 offsets; 4 are wanted"):
        call((0, 0, 0))
    with pytest.raises(ValueError, match="level=5; set"):
        call(5, method="sample")
    with pytest.raises(ValueError, match="7 frames.*set frames to a multiple of 2"):
        call(jnp.zeros(4, jnp.int32), frames=7)
    with pytest.raises(ValueError, match="videos of 1 levels"):
        (
            shapes(Discriminator()),
            Discriminator().init(jax.random.key(0), [jnp.zeros((1, 2, 64, 64, 3))]),
        )


def test_the_discriminators_first_block_has_its_own_activation():
    asked = []

    def counted(x):
        asked.append(x.shape)
        return x

    clip = jax.ShapeDtypeStruct((1, 2, 64, 64, 3), jnp.float32)
    jax.eval_shape(SubDiscriminator(1, counted).init, jax.random.key(0), clip)
    assert [shape[-1] for shape in asked] == [1, 1, 2, 2, 4, 4, 8, 8, 16]  # of four blocks, the end
