"""Inception, I3D and C3D: names, sizes and errors. Numbers: `tests/goldens_test.py`."""

import functools
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.pretrained import c3d, clip, i3d, inception, vgg16
from ganjax.pretrained.blocks import shapes_of
from ganjax.pretrained.network import FeatureNetwork

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"

# The kinds, the case whose state dict each takes, features with their sizes.
INCEPTION = {
    "64": 64,
    "192": 192,
    "768": 768,
    "2048": 2048,
    "logits_unbiased": 1008,
    "logits": 1008,
    "spatial": 2023,
}
I3D = {"logits": 400, "pool": 1024, "probabilities": 400}
C3D = {"fc6": 4096, "fc7": 4096, "logits": 101, "probabilities": 101}
KINDS = [
    (inception.KIND, "inception/inception_v3_fid", INCEPTION),
    (i3d.HASSONY, "i3d/i3d_kinetics", I3D),
    (i3d.STYLEGANV, "i3d/i3d_kinetics", I3D),
    (i3d.VIDEOGPT, "i3d/inception_i3d_fvd", I3D),
    (c3d.KIND, "c3d/c3d_ucf101", C3D),
]


@pytest.mark.parametrize(("kind", "case", "features"), KINDS)
def test_every_official_entry_has_its_place(kind, case, features):
    meta = json.loads((GOLDENS / f"{case}.json").read_text())
    state = {name: np.empty(shape, np.float32) for name, shape in meta["shapes"].items()}
    if kind is c3d.KIND:
        state["mean"] = np.empty((3, 16, 128, 171), np.float32)
    variables, report = kind.from_official(state)
    assert report.complete
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
    assert count == meta["param_count"]
    outputs = jax.eval_shape(kind.module.apply, variables, *kind.examples)
    assert {name: leaf.shape for name, leaf in outputs.items()} == {
        name: (1, size) for name, size in features.items()
    }
    assert set(kind.features) == set(features)


def products(jaxpr):
    """Every convolution and matrix product of a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from products(inner)


def of_images(kind, variables, images):
    return kind.module.apply(variables, kind.prepare(images))


def of_both(kind, variables, images, tokens):
    return kind.module.apply(variables, kind.prepare(images), tokens)


def of_pairs(kind, variables, images):
    return kind.module.apply(variables, images, images, method="distance")


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        *((kind, of_images) for kind in dict.fromkeys(kind for kind, *_ in KINDS)),
        (vgg16.KIND, of_images),
        (vgg16.KIND, of_pairs),
        (clip.VIT_B_32, of_both),
    ],
)
def test_precision_is_the_highest_whatever_the_caller_asks(kind, call):
    variables = shapes_of(kind.module, *kind.examples)
    with jax.default_matmul_precision("bfloat16"):
        program = jax.make_jaxpr(functools.partial(call, kind))(variables, *kind.examples)
    found = [equation.params["precision"] for equation in products(program.jaxpr)]
    assert len(found) > 10
    highest = jax.lax.Precision.HIGHEST
    assert all(value in (highest, (highest, highest)) for value in found)


def test_chainers_names():
    shapes = shapes_of(c3d.KIND.module, *c3d.KIND.examples)
    state = {"conv1a/W": np.zeros(1)}
    names = {name for entry in c3d.entries(shapes, state) for name in entry.names}
    assert {"conv5b/W", "conv5b/b", "fc8/b", "mean"} <= names and len(names) == 23


def test_inception_takes_integers_and_floating_point_alike():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 9, 3), np.uint8)
    from_integers = inception.prepare(jnp.asarray(images))
    from_floats = inception.prepare(jnp.asarray(images, jnp.float32))
    np.testing.assert_array_equal(from_integers, from_floats)
    assert from_integers.shape == (2, 299, 299, 3) and from_integers.dtype == jnp.float32
    np.testing.assert_allclose(from_integers[:, 0, 0], (images[:, 0, 0] - 128.0) / 128, atol=1e-6)


def test_i3d_cuts_the_middle_or_squeezes():
    clips = jnp.zeros((1, 2, 30, 41, 3)).at[:, :, :, 20].set(255.0)
    cropped, squeezed = i3d.prepare_cropped(clips), i3d.prepare_squeezed(clips)
    assert cropped.shape == squeezed.shape == (1, 2, 224, 224, 3)
    # One column of 41: 224 / 30 wide after cropping, 224 / 41 after squeezing; in the middle.
    for found, width in ((cropped, 224 / 30), (squeezed, 224 / 41)):
        bright = (np.asarray(found[0, 0, 0, :, 0]) + 1) / 2
        assert bright.sum() == pytest.approx(width, rel=0.02)
        assert np.average(np.arange(224), weights=bright) == pytest.approx(111.5, abs=1)


def test_i3d_needs_nine_frames():
    variables = shapes_of(i3d.STYLEGANV.module, *i3d.STYLEGANV.examples)

    def features(frames):
        clips = jax.ShapeDtypeStruct((1, frames, 224, 224, 3), np.float32)
        return jax.eval_shape(i3d.STYLEGANV.module.apply, variables, clips)

    assert features(9)["logits"].shape == features(33)["logits"].shape == (1, 400)
    with pytest.raises(ValueError, match="at least 9 frames"):
        features(8)


def test_c3d_turns_rgb_into_bgr_and_wants_sixteen_frames():
    clips = np.zeros((1, 16, 20, 30, 3), np.uint8)
    clips[..., 0] = 255
    prepared = c3d.prepare(jnp.asarray(clips))
    np.testing.assert_allclose(prepared[0, 3, 50, 60], [-128, -128, 128])
    with pytest.raises(ValueError, match="16 frames, got 12"):
        c3d.prepare(jnp.asarray(clips[:, :12]))


def test_an_unknown_feature_is_named():
    network = FeatureNetwork("inception", inception.KIND, {})
    with pytest.raises(ValueError, match="no feature '2049'; it has 64, 192"):
        network(np.zeros((1, 8, 8, 3), np.uint8), ["2049"])


@pytest.mark.parametrize("shape", [(2, 8, 8, 1), (8, 8, 3), (2, 3, 8, 8), (2, 9, 8, 8, 3)])
def test_images_of_another_shape_are_named(shape):
    network = FeatureNetwork("inception", inception.KIND, {})
    with pytest.raises(ValueError, match=r"takes RGB images \[n, h, w, 3\].*got the shape"):
        network(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match=r"takes RGB clips \[n, t, h, w, 3\]"):
        FeatureNetwork("i3d", i3d.STYLEGANV, {})(np.zeros((2, 8, 8, 3), np.uint8))
