"""TGANv2's layers, where the golden cases do not reach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from configs import tganv2
from ganjax.families.tganv2.blocks import (
    ChainerBatchNorm,
    ConvLSTM,
    DiscriminatorBlock,
    GeneratorBlock,
    _conv3d,
    _conv_of_frames,
    halve,
    mean_pool,
)
from ganjax.family import build


def test_sizes_of_time_through_the_discriminators():
    # What four blocks that halve leave of the levels' 16, 8, 4 and 2 frames.
    def sizes(frames):
        x = jnp.zeros((1, frames, 16, 16, 1))
        return [(x := halve(x)).shape[1] for _ in range(4)]

    assert sizes(16) == [8, 4, 2, 1]
    assert sizes(8) == [4, 2, 1, 3]
    assert sizes(4) == [2, 1, 3, 2]
    assert sizes(2) == [1, 3, 2, 1]


def test_odd_sizes_have_zeros_around_them():
    x = jnp.array([8.0]).reshape(1, 1, 1, 1, 1)
    expected = np.zeros((3, 3, 3))
    expected[1, 1, 1] = 8
    np.testing.assert_array_equal(halve(x)[0, ..., 0], expected)
    row = jnp.arange(1.0, 6).reshape(1, 1, 1, 5, 1).repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(halve(row)[0, 0, 0, :, 0], [0.5, 2.5, 4.5])
    np.testing.assert_array_equal(mean_pool(row, (1, 2, 2))[0, 0, 0, :, 0], [1.5, 3.5])


def test_what_follows_the_inputs_is_zeros():
    x = jax.random.normal(jax.random.key(0), (1, 2, 3, 3, 2))
    layer = ConvLSTM(2)
    variables = layer.init(jax.random.key(1), x, 3)
    variables["params"]["bias"] = jnp.arange(8.0) / 8
    short = layer.apply(variables, x, 3)
    longer = layer.apply(variables, jnp.concatenate([x, jnp.zeros((2, 2, 3, 3, 2))]), 3)
    jax.tree.map(np.testing.assert_array_equal, short, longer)
    with pytest.raises(ValueError, match="1 inputs for 0 steps; set frames"):
        layer.apply(variables, x, 0)


def test_the_forget_bias_keeps_the_cell():
    x = jax.random.normal(jax.random.key(0), (1, 2, 3, 3, 2))
    generator = build(tganv2.tiny(), "cpu").networks["g"]
    layer = ConvLSTM(2, forget_bias=generator.forget_bias)
    variables = layer.init(jax.random.key(1), x, 3)
    variables["params"]["w_hifoc"] *= 0
    _, cell = layer.apply(variables, x, 3)
    np.testing.assert_allclose(cell[2] / cell[1], jax.nn.sigmoid(2.5), rtol=1e-5)
    assert not ConvLSTM(2).init(jax.random.key(1), x, 3)["params"]["bias"].any()


def test_unrolled_or_not_the_recurrence_is_the_same(monkeypatch):
    x = jax.random.normal(jax.random.key(0), (1, 2, 3, 3, 2))
    layer = ConvLSTM(2)
    variables = layer.init(jax.random.key(1), x, 4)
    unrolled = layer.apply(variables, x, 4)
    monkeypatch.setattr(lax, "platform_dependent", lambda *args, cpu, default: default(*args))
    jax.tree.map(np.testing.assert_allclose, unrolled, layer.apply(variables, x, 4))


def test_the_gradient_on_a_cpu_has_no_loop():
    x = jax.random.normal(jax.random.key(0), (1, 1, 3, 3, 2))
    layer = ConvLSTM(2)
    variables = layer.init(jax.random.key(1), x, 4)
    step = jax.jit(jax.grad(lambda v: layer.apply(v, x, 4)[0].sum()))
    compiled = step.lower(variables).compile().as_text()
    assert "convolution(" in compiled
    assert "while(" not in compiled and "conditional(" not in compiled


def test_peepholes_let_gates_see_the_cell():
    x = jax.random.normal(jax.random.key(0), (2, 1, 3, 3, 2))
    layer = ConvLSTM(2, peephole=True)
    variables = layer.init(jax.random.key(1), x, 2)
    without = {k: v for k, v in variables["params"].items() if "peep" not in k}
    plain = ConvLSTM(2).apply({"params": without}, x, 2)
    jax.tree.map(np.testing.assert_array_equal, layer.apply(variables, x, 2), plain)
    # An output gate that a large weight on the cell opens or shuts: h is tanh(cell) or 0.
    variables["params"]["peep_c_o"] = jnp.full((3, 3, 2), 1e6)
    h, cell = layer.apply(variables, x, 2)
    np.testing.assert_allclose(h, jnp.where(cell > 0, jnp.tanh(cell), 0), atol=1e-6)
    # The others see the cell before, in a step whose inputs are zeros.
    variables["params"]["w_hifoc"] *= 0
    nothing, wide = jnp.zeros((3, 3, 2)), jnp.full((3, 3, 2), 1e6)
    variables["params"] |= {"peep_c_o": nothing, "peep_c_f": wide}
    _, cell = layer.apply(variables, x[:1], 2)
    np.testing.assert_allclose(cell[1], jnp.maximum(cell[0], 0), atol=1e-6)
    variables["params"] |= {"peep_c_f": nothing, "peep_c_i": wide}
    variables["params"]["bias"] = jnp.array([0.0, 0, 0, 0, 0, 0, 9, 9])  # candidates are 1
    _, cell = layer.apply(variables, x[:1], 2)
    np.testing.assert_allclose(cell[1], cell[0] / 2 + (cell[0] > 0), atol=1e-6)


def test_a_convolution_over_frames_is_one_of_frames_beside_each_other():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 2))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 2, 2))
    np.testing.assert_allclose(_conv_of_frames(x, kernel), _conv3d(x, kernel), atol=1e-5)


def test_blocks_that_keep_the_size_and_the_channels_have_no_weights_in_shortcuts():
    image, clip = jnp.ones((1, 4, 4, 2)), jnp.ones((1, 2, 4, 4, 2))
    keep = GeneratorBlock(2, up=False)
    y, variables = keep.init_with_output(jax.random.key(0), image, train=False)
    assert y.shape == image.shape and "c_sc" not in variables["params"]
    y, variables = DiscriminatorBlock(2, down=False).init_with_output(jax.random.key(0), clip)
    assert y.shape == clip.shape and "c_sc" not in variables["params"]
    y, variables = DiscriminatorBlock(3, down=False).init_with_output(jax.random.key(0), clip)
    assert y.shape == (1, 2, 4, 4, 3) and "c_sc" in variables["params"]


def test_statistics_are_exact_far_from_the_running_ones():
    x = np.random.default_rng(0).normal(5, 0.01, (4, 8, 8, 1)).astype(np.float32)
    layer = ChainerBatchNorm(eps=0.0)
    variables = layer.init(jax.random.key(0), jnp.asarray(x), train=False)
    y = layer.apply(variables, jnp.asarray(x), train=True)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(y, (exact - exact.mean()) / exact.std(), atol=2e-4)
