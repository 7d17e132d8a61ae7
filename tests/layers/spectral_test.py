"""Spectral norm: what it estimates, when its state moves, what gradients see."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.layers.linear import Dense
from ganjax.layers.spectral import (
    SpectralConv,
    SpectralDense,
    SpectralEmbed,
    singular_values,
)

X = jax.random.normal(jax.random.key(0), (4, 6))


@pytest.fixture
def layer():
    return SpectralDense(5)


@pytest.fixture
def variables(layer):
    variables = layer.init(jax.random.key(1), X)
    # Orthogonal weights have one singular value, and no vector is wrong.
    kernel = jax.random.normal(jax.random.key(2), (6, 5))
    return {**variables, "params": {"kernel": kernel, "bias": jnp.arange(5.0)}}


def train(layer, variables, x=X):
    y, moved = layer.apply(variables, x, mutable=["spectral"])
    return y, {**variables, **moved}


def test_sigma_becomes_the_largest_singular_value(layer, variables):
    exact = np.linalg.svd(variables["params"]["kernel"], compute_uv=False)[0]
    for _ in range(100):
        y, variables = train(layer, variables)
    assert variables["spectral"]["sigma"][0] == pytest.approx(exact, rel=1e-4)
    bias = variables["params"]["bias"]
    np.testing.assert_allclose(
        y, X @ variables["params"]["kernel"] / exact + bias, rtol=1e-3, atol=1e-4
    )


def test_a_pass_that_keeps_nothing_is_one_iteration_ahead(layer, variables):
    evaluated = layer.apply(variables, X)
    trained, after = train(layer, variables)
    np.testing.assert_array_equal(evaluated, trained)
    assert (after["spectral"]["u"] != variables["spectral"]["u"]).any()
    assert (layer.apply(after, X) != evaluated).any()


def test_initialisation_keeps_the_first_vector(layer):
    # One iteration from a random vector makes a unit vector: this one is neither.
    u = layer.init(jax.random.key(1), X)["spectral"]["u"]
    assert abs(jnp.linalg.norm(u) - 1) > 1e-3


def test_more_iterations_are_of_training_alone(variables):
    one, three = SpectralDense(5), SpectralDense(5, iterations=3)
    np.testing.assert_array_equal(three.apply(variables, X), one.apply(variables, X))
    _, after_three = train(three, variables)
    after_one = variables
    for _ in range(3):
        _, after_one = train(one, after_one)
    np.testing.assert_allclose(after_three["spectral"]["u"], after_one["spectral"]["u"], rtol=1e-5)


def test_several_values_are_the_largest_ones_and_only_the_first_divides(variables):
    layer = SpectralDense(5, values=3)
    u = jax.random.normal(jax.random.key(3), (3, 5))
    variables = {**variables, "spectral": {"u": u, "sigma": jnp.ones(3)}}
    for _ in range(300):
        y, variables = train(layer, variables)
    exact = np.linalg.svd(variables["params"]["kernel"], compute_uv=False)
    np.testing.assert_allclose(variables["spectral"]["sigma"], exact[:3], rtol=1e-3)
    plain = Dense(5).apply({"params": {**variables["params"], "bias": jnp.zeros(5)}}, X)
    bias = variables["params"]["bias"]
    np.testing.assert_allclose(y, plain / exact[0] + bias, rtol=1e-2, atol=1e-3)


def test_more_values_than_dimensions_are_zero():
    layer = SpectralDense(1, values=3)
    variables = layer.init(jax.random.key(1), X)
    gradient = jax.grad(lambda params: layer.apply({**variables, "params": params}, X).sum())
    assert jnp.isfinite(gradient(variables["params"])["kernel"]).all()
    _, variables = train(layer, variables)
    np.testing.assert_allclose(variables["spectral"]["sigma"][1:], 0, atol=1e-6)


def test_gradient_goes_through_sigma_with_constant_vectors(layer, variables):
    kernel, u = variables["params"]["kernel"], variables["spectral"]["u"][0]
    v = kernel @ u / jnp.linalg.norm(kernel @ u)
    u = v @ kernel / jnp.linalg.norm(v @ kernel)
    cotangent = jax.random.normal(jax.random.key(4), (4, 5))

    def ours(params):
        return jnp.vdot(layer.apply({**variables, "params": params}, X), cotangent)

    g = X.T @ cotangent  # with respect to the normalised weight
    sigma = v @ kernel @ u
    wanted = g / sigma - jnp.vdot(g, kernel) / sigma**2 * jnp.outer(v, u)
    np.testing.assert_allclose(
        jax.grad(ours)(variables["params"])["kernel"], wanted, rtol=1e-4, atol=1e-5
    )


def test_eps_is_a_lower_bound_of_the_length():
    matrix = jnp.array([[1e-3, 0.0], [0.0, 1e-4]])
    sigmas, us = singular_values(matrix, jnp.array([[1.0, 0.0]]), eps=0.1)
    # v = 1e-3 / 0.1, u = 1e-3 * 0.01 / 0.1
    np.testing.assert_allclose(us, [[1e-4, 0.0]], rtol=1e-5)
    np.testing.assert_allclose(sigmas, [0.01 * 1e-3 * 1e-4], rtol=1e-5)


def test_the_table_of_an_embedding_is_normalised_as_a_whole():
    layer = SpectralEmbed(classes=7, features=3)
    labels = jnp.array([6, 0])
    variables = layer.init(jax.random.key(1), labels)
    assert variables["spectral"]["u"].shape == (1, 7)
    table = jax.random.normal(jax.random.key(2), (7, 3))
    variables = {**variables, "params": {"embedding": table}}
    for _ in range(100):
        y, variables = train(layer, variables, labels)
    exact = np.linalg.svd(table, compute_uv=False)[0]
    np.testing.assert_allclose(y, table[labels] / exact, rtol=1e-3, atol=1e-4)


def test_a_class_outside_of_the_table_is_not_another_class():
    layer = SpectralEmbed(classes=7, features=3)
    variables = layer.init(jax.random.key(1), jnp.array([0]))
    assert jnp.isnan(layer.apply(variables, jnp.array([7]))).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_arithmetic_is_wide_whatever_the_layer_computes_in(dtype):
    layer = SpectralConv(8, dtype=dtype)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    variables = layer.init(jax.random.key(1), x)
    y, moved = layer.apply(variables, x, mutable=["spectral"])
    assert y.dtype == dtype
    _, exact = SpectralConv(8).apply(variables, x, mutable=["spectral"])
    assert moved["spectral"]["u"].dtype == jnp.float32
    jax.tree.map(np.testing.assert_array_equal, moved, exact)


def test_layers_are_interchangeable():
    # The plain layer takes the same parameters: variation is passed as a module.
    spectral = functools.partial(SpectralDense, eps=1e-6)(5).init(jax.random.key(1), X)
    assert Dense(5).apply({"params": spectral["params"]}, X).shape == (4, 5)
