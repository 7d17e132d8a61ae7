"""The comparison of formulations compares the same thing, and the roofline counts all layers."""

import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.adversarial.state import path_of
from ganjax.families.stylegan2.networks import Discriminator, Generator, example_inputs

blocks = importlib.import_module("benchmarks.blocks")
phase_cost = importlib.import_module("benchmarks.phase_cost")
roofline = importlib.import_module("benchmarks.stylegan2_roofline")
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("forms", [blocks.up_forms, blocks.down_forms], ids=["up", "down"])
def test_formulations_agree(forms):
    x = jnp.asarray(RNG.normal(size=(1, 8, 8, 3)), jnp.float32)
    kernel = jnp.asarray(RNG.normal(size=(3, 3, 3, 2)), jnp.float32)
    found = {name: form(x, kernel) for name, form in forms().items()}
    first = next(iter(found.values()))
    for name, y in found.items():
        np.testing.assert_allclose(y, first, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("block", ["modulated", "resample", "lanes", "deformable"])
def test_cases_of_a_size_make_the_same_shape(block):
    cases = blocks.BLOCKS[block](2)
    for _, group in itertools.groupby(cases, key=lambda case: (case.block, case.size)):
        shapes = set()
        for case in group:
            arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in case.shapes]
            shapes.add(jax.eval_shape(case.function, *arrays).shape)
        assert len(shapes) == 1


@pytest.mark.parametrize(
    "module, layers",
    [
        (Generator(64, channel_base=1024), roofline.generator_layers),
        (Generator(32, channel_base=1024, architecture="resnet"), roofline.generator_layers),
        (Discriminator(64, channel_base=1024), roofline.discriminator_layers),
    ],
    ids=["G", "G-resnet", "D"],
)
def test_the_roofline_counts_every_kernel(module, layers):
    args, _ = example_inputs(module)
    shapes = jax.eval_shape(lambda *a: module.init(jax.random.key(0), *a), *args)["params"]
    kernels = sum(
        int(np.prod(leaf.shape))
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
        if path_of(path).endswith("kernel")
    )
    assert sum(layer.parameters for layer in layers(module)) == kernels


def test_a_layer_takes_the_longer_of_arithmetic_and_traffic():
    layer = roofline.conv("b", 8, 16, 32, 3, 2, up=2)
    assert layer.multiplications == 4 * 4 * 9 * 16 * 32
    assert layer.moved == 4 * 4 * 16 + 8 * 8 * 32
    flops, traffic = layer.seconds(5)
    assert flops == 2 * 5 * layer.multiplications / 197e12
    assert traffic == (2 * 5 * layer.moved + 4 * layer.parameters) / 819e9


def test_the_costliest_instructions_of_a_program_are_listed():
    text = """
%fused (p: f32[8]) -> f32[8] {
  %inner = f32[8]{0} add(%p, %p), metadata={op_name="a"}, backend_config={"estimated_cycles":"99"}
}
ENTRY %main (p: f32[8]) -> f32[8] {
  %small = f32[8]{0} add(%p), metadata={op_name="b/add"}, backend_config={"estimated_cycles":"5"}
  %none = f32[8]{0} copy(%p), backend_config={"estimated_cycles":"9223372036854775807"}
  ROOT %big = (f32[8]{0}, f32[2]{0}) fusion(%small), backend_config={"estimated_cycles":"7"}
}"""
    assert phase_cost.costliest(text, 5) == [
        (7, "big = (f32[8]", ""),
        (5, "small = f32[8]", "b/add"),
    ]
    assert len(phase_cost.costliest(text, 1)) == 1
