"""Resizing: each rule against its definition, point by point, and against Pillow."""

import math

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from ganjax.pretrained.resize import align_corners, antialiased, bicubic, half_pixel, resize, tf1

SIZES = [(7, 4), (4, 7), (5, 5), (1, 3), (3, 1), (299, 32), (224, 300)]


def sample(values, position):
    """Linear interpolation at a position, ends clamped."""
    low = min(math.floor(position), len(values) - 1)
    high = min(low + 1, len(values) - 1)
    fraction = position - math.floor(position)
    return values[low] * (1 - fraction) + values[high] * fraction


POSITIONS = {
    tf1: lambda i, out, size: i * size / out,
    half_pixel: lambda i, out, size: max((i + 0.5) * size / out - 0.5, 0),
    align_corners: lambda i, out, size: i * (size - 1) / max(out - 1, 1),
}


@pytest.mark.parametrize("rule", POSITIONS)
@pytest.mark.parametrize(("out", "size"), SIZES)
def test_rules_sample_where_they_say(rule, out, size):
    values = np.random.default_rng(0).normal(size=size)
    expected = [sample(values, POSITIONS[rule](i, out, size)) for i in range(out)]
    # TensorFlow's positions are float32: off by 2e-5 at 300, times the slope there.
    tolerance = 2e-4 if rule is tf1 else 1e-9
    np.testing.assert_allclose(rule(out, size) @ values, expected, atol=tolerance)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("out", "size"), [(9, 30), (30, 9), (8, 8), (5, 64)])
def test_antialiased_is_pillows(kernel, out, size):
    image = np.random.default_rng(1).uniform(0, 255, (size, size + 3)).astype(np.float32)
    method = {"bilinear": PIL.Image.BILINEAR, "bicubic": PIL.Image.BICUBIC}[kernel]
    expected = np.asarray(PIL.Image.fromarray(image).resize((out + 2, out), method))
    found = antialiased(out, size, kernel) @ image @ antialiased(out + 2, size + 3, kernel).T
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_both_axes_of_clips():
    clips = jnp.asarray(np.random.default_rng(2).normal(size=(2, 3, 5, 6, 3)), jnp.float32)
    found = resize(clips, (4, 9), bicubic)
    rows, columns = bicubic(4, 5), bicubic(9, 6)
    expected = np.einsum("ah,bw,nthwc->ntabc", rows, columns, clips)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == jnp.float32
