import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.parallel import grouped

OWNER = jnp.array([0, 1, 1, 1, 2])


def numbers(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape), jnp.float32)


X, KERNEL, G = numbers(5, 8, 128), numbers(3, 128, 256), numbers(5, 8, 256)


def outer(x, g):
    return np.stack([np.einsum("bri,bro->io", x[OWNER == e], g[OWNER == e]) for e in range(3)])


@pytest.mark.parametrize(
    ("product", "options"),
    [(grouped._product, {}), (grouped._tpu_product, {"interpret": True})],
)
def test_each_block_meets_its_own_kernel(product, options):
    y = product(X, KERNEL, OWNER, **options)
    np.testing.assert_allclose(y, X @ KERNEL[OWNER], rtol=1e-5, atol=1e-4)
    back = product(G, KERNEL, OWNER, transposed=True, **options)
    np.testing.assert_allclose(back, G @ KERNEL[OWNER].transpose(0, 2, 1), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("product", "options"), [(grouped._outer, {}), (grouped._tpu_outer, {"interpret": True})]
)
def test_a_kernels_gradient_is_the_sum_over_its_blocks(product, options):
    total = product(X, G, OWNER, experts=3, **options)
    np.testing.assert_allclose(total, outer(X, G), rtol=1e-5, atol=1e-4)


def test_several_tiles_make_the_same_kernels(monkeypatch):
    monkeypatch.setattr(grouped, "TILE", 128 * 128)
    y = grouped._tpu_product(X, KERNEL, OWNER, interpret=True)
    np.testing.assert_allclose(y, X @ KERNEL[OWNER], rtol=1e-5, atol=1e-4)
    total = grouped._tpu_outer(X, G, OWNER, experts=3, interpret=True)
    np.testing.assert_allclose(total, outer(X, G), rtol=1e-5, atol=1e-4)


def test_gradients_are_those_of_the_plain_product_and_float32_for_bfloat16():
    _, back = jax.vjp(lambda x, kernel: grouped.grouped_dot(x, kernel, OWNER), X, KERNEL)
    by_x, by_kernel = back(G)
    np.testing.assert_allclose(by_x, G @ KERNEL[OWNER].transpose(0, 2, 1), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(by_kernel, outer(X, G), rtol=1e-5, atol=1e-4)
    narrow = X.astype(jnp.bfloat16)
    y, back = jax.vjp(lambda x, kernel: grouped.grouped_dot(x, kernel, OWNER), narrow, KERNEL)
    by_x, by_kernel = back(G.astype(jnp.bfloat16))
    assert (y.dtype, by_x.dtype, by_kernel.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
