"""Deformable convolution against a loop over places, and its formulations against each other."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.layers import deformable
from ganjax.layers.convolution import conv2d
from ganjax.layers.deformable import deformable_conv2d, gathered, multiplied

FORMULATIONS = [gathered, multiplied]


def one_of(monkeypatch, formulation):
    monkeypatch.setattr(deformable, "_places", formulation)


def case(seed, n=2, h=3, w=4, i=2, o=3, size=3, reach=2.0):
    keys = jax.random.split(jax.random.key(seed), 5)
    taps = size * size
    return (
        jax.random.normal(keys[0], (n, h, w, i)),
        jax.random.normal(keys[1], (size, size, i, o)),
        reach * jax.random.normal(keys[2], (n, h, w, taps, 2)),
        jax.random.uniform(keys[3], (n, h, w, taps), maxval=2.0),
    ), jax.random.normal(keys[4], (n, h, w, o))


def naive(x, kernel, offsets, mask):
    """NumPy: values and their gradients with respect to everything, place by place."""
    n, h, w, _ = x.shape
    size = len(kernel)

    def read(image, y, x):
        """Bilinear value and its derivatives down and right."""
        top, left = int(np.floor(y)), int(np.floor(x))
        b, r = y - top, x - left

        def at(row, column):
            inside = 0 <= row < h and 0 <= column < w
            return image[row, column] if inside else 0 * image[0, 0]

        a = [[at(top + p, left + q) for q in (0, 1)] for p in (0, 1)]
        value = (1 - b) * ((1 - r) * a[0][0] + r * a[0][1]) + b * ((1 - r) * a[1][0] + r * a[1][1])
        down = (1 - r) * (a[1][0] - a[0][0]) + r * (a[1][1] - a[0][1])
        right = (1 - b) * (a[0][1] - a[0][0]) + b * (a[1][1] - a[1][0])
        return value, down, right

    y = np.zeros((n, h, w, kernel.shape[-1]))
    slopes = np.zeros((*offsets.shape, kernel.shape[-1]))
    for s, row, column, tap in itertools.product(range(n), range(h), range(w), range(size**2)):
        p, q = divmod(tap, size)
        place = offsets[s, row, column, tap] + (row + p - size // 2, column + q - size // 2)
        value, down, right = read(x[s], *place)
        weight = mask[s, row, column, tap] * kernel[p, q]
        y[s, row, column] += value @ weight
        slopes[s, row, column, tap] = down @ weight, right @ weight
    return y, slopes


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("size", [1, 3])
def test_values_and_gradients_of_places_are_those_of_a_loop(monkeypatch, formulation, size):
    one_of(monkeypatch, formulation)
    arguments, cotangent = case(0, size=size)
    # Some places on pixels, some just outside, some far away.
    special = jnp.array([0.0, -1.0, 1.0, -0.5, 30.0, -1e6])
    offsets = arguments[2].at[0, 0, :, 0, 0].set(special[:4]).at[1, 2, :2, 0, 1].set(special[4:])
    arguments = (*arguments[:2], offsets, arguments[3])
    wanted, slopes = naive(*(np.asarray(a, np.float64) for a in arguments))
    ours, pull = jax.vjp(deformable_conv2d, *arguments)
    np.testing.assert_allclose(ours, wanted, atol=1e-5)
    slopes = np.einsum("nhwkdo,nhwo->nhwkd", slopes, cotangent)
    np.testing.assert_allclose(pull(cotangent)[2], slopes, atol=1e-4)


def test_formulations_agree_in_all_gradients_and_in_second_ones():
    arguments, cotangent = case(1, h=4, w=3)

    def found(formulation):
        def value(x, kernel, offsets, mask):
            n, h, w, _ = x.shape
            places = offsets.reshape(n, h * w, -1, 2) + 1.5
            return formulation(x, kernel, places, mask.reshape(n, h * w, -1))

        def energy(arguments):
            y, pull = jax.vjp(value, *arguments)
            return sum(jnp.sum(jnp.sin(g)) for g in pull(cotangent.reshape(y.shape)))

        return value(*arguments), jax.grad(energy)(arguments)

    for a, b in zip(*map(jax.tree.leaves, map(found, FORMULATIONS))):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_without_offsets_it_is_the_plain_convolution_and_places_have_gradients(
    monkeypatch, formulation
):
    one_of(monkeypatch, formulation)
    (x, kernel, offsets, _), cotangent = case(2, reach=0.0)
    ours, pull = jax.vjp(lambda offsets: deformable_conv2d(x, kernel, offsets), offsets)
    np.testing.assert_allclose(ours, conv2d(x, kernel), atol=1e-5)
    assert jnp.mean(jnp.abs(pull(cotangent)[0])) > 0.1


def test_blocks_of_places_give_the_same(monkeypatch):
    one_of(monkeypatch, multiplied)
    arguments, cotangent = case(3, h=4, w=4)
    whole, pull = jax.vjp(deformable_conv2d, *arguments)
    # Five places fit, four are a divisor of sixteen.
    monkeypatch.setattr(deformable, "ENTRIES", 5 * 9 * 16)
    blocks, pull_blocks = jax.vjp(deformable_conv2d, *arguments)
    text = str(jax.make_jaxpr(deformable_conv2d)(*arguments))
    assert "length=4" in text and "f32[2,4,144]" in text
    np.testing.assert_allclose(blocks, whole, atol=1e-5)
    for a, b in zip(pull_blocks(cotangent), pull(cotangent)):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_places_stay_wide_in_half_precision(monkeypatch, formulation):
    one_of(monkeypatch, formulation)
    # Places 100.25 and 101.75 along a ramp of 128 columns would be rounded to halves.
    x = jnp.zeros((1, 1, 128, 1), jnp.bfloat16).at[0, 0, 101].set(1)
    offsets = jnp.zeros((1, 1, 128, 1, 2)).at[..., 1].set(0.25)
    y = deformable_conv2d(x, jnp.ones((1, 1, 1, 1)), offsets)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.float32(y[0, 0, 100:102, 0]), [0.25, 0.75])


def test_offsets_of_another_kernel_are_refused():
    (x, kernel, offsets, mask), _ = case(4)
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4, 2\).*3x3 kernel want \(2, 3, 4, 9, 2\)"):
        deformable_conv2d(x, kernel, offsets[..., :4, :], mask[..., :4])
