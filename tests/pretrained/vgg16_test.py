"""VGG16 and LPIPS. Against PyTorch: `benchmarks/vgg16_pytorch.py`."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.pretrained import vgg16
from ganjax.pretrained.blocks import shapes_of


@pytest.fixture(scope="module")
def shapes():
    return shapes_of(vgg16.KIND.module, *vgg16.KIND.examples)


@pytest.fixture(scope="module")
def network(shapes):
    """Random convolutions; LPIPS looks at the first and the last stage. No dense layers."""
    rng = np.random.default_rng(0)
    params = {
        name: jax.tree.map(
            lambda leaf: rng.normal(0, 0.5 / math.sqrt(math.prod(leaf.shape[:-1])), leaf.shape),
            tree,
        )
        for name, tree in shapes["params"].items()
        if name.startswith("conv")
    }
    for index, (channels, _) in enumerate(vgg16.STAGES):
        params[f"lpips{index}"] = rng.uniform(0, 1, channels) * (index == 0)
    params = jax.tree.map(jnp.float32, params)
    return vgg16.VggNetwork("vgg16", vgg16.KIND, {"params": params})


def test_size_and_names(shapes):
    lpips = sum(channels for channels, _ in vgg16.STAGES)
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert count == 138_357_544 + lpips
    nvidia, torchvision = (
        {name for entry in vgg16.entries(shapes, state) for name in entry.names}
        for state in ({}, {"features.0.weight": np.zeros(1)})
    )
    assert len(nvidia) == len(torchvision) == 37
    assert {"layers.conv1.weight", "layers.conv13.bias", "layers.fc3.bias", "lpips4"} <= nvidia
    assert {"features.28.bias", "classifier.3.weight", "lin4.model.1.weight"} <= torchvision


def test_lpips_weights_come_as_convolutions(shapes):
    state = {
        entry.names[0]: np.zeros(entry.shape, np.float32) for entry in vgg16.entries(shapes, {})
    }
    state["lpips2"] = np.arange(256, dtype=np.float32).reshape(256, 1, 1)
    variables, report = vgg16.KIND.from_official(state)
    assert report.complete
    np.testing.assert_array_equal(variables["params"]["lpips2"], np.arange(256))


def relu_conv(x, layer):
    """3x3, zeros around, in NumPy."""
    kernel = np.asarray(layer["kernel"], np.float64)
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)
    )
    return np.maximum(y + np.asarray(layer["bias"]), 0)


def test_the_distance_of_one_stage_by_its_formula(network):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (2, 3, 16, 20, 3), np.uint8)
    params = network.variables["params"]
    x = (images.reshape(6, 16, 20, 3) / 255 - vgg16.MEAN) / vgg16.STD
    x = relu_conv(relu_conv(x, params["conv1_1"]), params["conv1_2"])
    x = (x / np.linalg.norm(x, axis=-1, keepdims=True)).reshape(2, 3, 16, 20, -1)
    expected = (np.square(x[0] - x[1]) @ np.asarray(params["lpips0"])).mean((1, 2))
    found = network.lpips(images[0], images[1])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(network.lpips(images[0], images[0]), np.zeros(3), atol=1e-12)


def test_the_gradient_at_dead_pixels_is_a_number(network):
    params = dict(network.variables["params"])
    params["conv1_2"] = {**params["conv1_2"], "bias": jnp.full(64, -10.0)}
    image = jnp.zeros((1, 16, 16, 3))

    def distance(x):
        return vgg16.Vgg16().apply({"params": params}, x, image + 1, method="distance").sum()

    assert np.isfinite(jax.jit(jax.grad(distance))(image)).all()


def test_features_of_the_dense_layers():
    """The order in which the dense layer counts its inputs: channels, rows, columns."""
    module = vgg16.Vgg16()
    last = jnp.arange(14 * 14 * 512, dtype=jnp.float32).reshape(1, 14, 14, 512) / 1e3
    pooled = last.reshape(1, 7, 2, 7, 2, 512).max((2, 4))
    place = (3 * 7 + 2) * 7 + 5  # channel 3, row 2, column 5
    kernel = jnp.zeros((25088, 4096)).at[place, 7].set(1.0)
    identity = {"kernel": jnp.eye(4096), "bias": jnp.zeros(4096)}
    params = {
        **{f"lpips{index}": jnp.ones(size) for index, (size, _) in enumerate(vgg16.STAGES)},
        "fc1": {"kernel": kernel, "bias": jnp.zeros(4096)},
        "fc2": identity,
        "fc3": {"kernel": jnp.zeros((4096, 1000)), "bias": jnp.ones(1000)},
    }
    found = module.apply({"params": params}, last, method="head")
    np.testing.assert_allclose(found["fc2"][0, 7], pooled[0, 2, 5, 3])
    assert found["logits"].shape == (1, 1000)


def test_pairs_are_looked_at_whole_or_where_faces_are(network):
    rng = np.random.default_rng(3)
    one, other = jnp.asarray(rng.uniform(-1, 1, (2, 2, 64, 64, 1)), jnp.float32)
    found = network.apply(network.variables, {"one": one, "other": other}, ["lpips", "lpips_faces"])
    a, b = (jnp.repeat((x + 1) * 127.5, 3, axis=-1) for x in (one, other))
    np.testing.assert_allclose(found["lpips"], network.lpips(a, b), rtol=1e-4)
    faces = network.lpips(a[:, 24:56, 16:48], b[:, 24:56, 16:48])
    np.testing.assert_allclose(found["lpips_faces"], faces, rtol=1e-4)
