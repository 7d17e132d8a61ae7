"""Bytes to floats and back."""

import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.layers.images import to_float, to_uint8

BYTES = jnp.arange(256, dtype=jnp.uint8)


def test_ends_and_round_trip():
    floats = to_float(BYTES)
    assert (floats[0], floats[-1]) == (-1.0, 1.0)
    np.testing.assert_array_equal(to_uint8(floats), BYTES)


def test_what_lies_outside_is_clipped():
    np.testing.assert_array_equal(to_uint8(jnp.array([-1.5, 1.5, jnp.inf])), [0, 255, 255])


def test_floats_pass():
    images = jnp.array([-1.0, 0.3], jnp.bfloat16)
    assert to_float(images) is images


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_dtype(dtype):
    assert to_float(BYTES, dtype).dtype == dtype
    np.testing.assert_allclose(to_float(BYTES, dtype), to_float(BYTES), atol=2**-8)
