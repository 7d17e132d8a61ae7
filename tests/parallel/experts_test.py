"""All executions compute what a loop over experts does, forward and gradient, on any mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ganjax.layers.moe import geglu
from ganjax.parallel.experts import Capacity, Dropless, EveryExpert, ExpertParallel
from ganjax.parallel.mesh import make_mesh
from tests import processes

EXPERTS, WIDTH, HIDDEN = 8, 6, 10
ROOMY = (Capacity(EXPERTS), ExpertParallel(EXPERTS), Dropless(4), Dropless(128))
MESHES = ({"data": 1}, {"data": 2}, {"data": 2, "expert": 2}, {"data": 1, "expert": 8})


def case():
    rng = np.random.default_rng(0)
    weights = {
        "value": rng.standard_normal((EXPERTS, WIDTH, HIDDEN)),
        "value_bias": rng.standard_normal((EXPERTS, HIDDEN)),
        "gate": rng.standard_normal((EXPERTS, WIDTH, HIDDEN)),
        "gate_bias": rng.standard_normal((EXPERTS, HIDDEN)),
        "out": rng.standard_normal((EXPERTS, HIDDEN, WIDTH)),
        "out_bias": rng.standard_normal((EXPERTS, WIDTH)),
    }
    x = rng.standard_normal((8, 5, WIDTH))
    # The last expert has many tokens, another one none.
    expert = np.minimum(rng.integers(0, EXPERTS + 4, (8, 5)), EXPERTS - 1)
    expert = np.where(expert == 2, 3, expert).astype(np.int32)
    scale = rng.uniform(0.2, 1, (8, 5))
    weights = {name: 0.4 * leaf for name, leaf in weights.items()}
    return jax.tree.map(jnp.float32, (weights, x, scale)), jnp.asarray(expert)


def loss(execution, expert):
    def value(given):
        weights, x, scale = given
        y, dropped = execution(geglu, weights, x, expert, scale)
        return jnp.sum(jnp.sin(y)), (y, dropped)

    return value


def found(execution, mesh=None):
    """y, dropped and all gradients."""
    given, expert = case()
    if mesh is None:
        (_, aux), gradient = jax.jit(jax.value_and_grad(loss(execution, expert), has_aux=True))(
            given
        )
        return jax.device_get((aux, gradient))
    samples = NamedSharding(mesh, P(tuple(mesh.axis_names)))
    stacks = NamedSharding(mesh, P("expert"))
    given = jax.device_put(given, (stacks, samples, samples))
    expert = jax.device_put(expert, samples)

    def run(given, expert):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return jax.value_and_grad(loss(execution, expert), has_aux=True)(given)

    whole = NamedSharding(mesh, P())
    (_, aux), gradient = jax.jit(run, out_shardings=whole)(given, expert)
    return jax.device_get((aux, gradient))


def check(got, wanted):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), got, wanted)


@pytest.fixture(scope="module")
def wanted():
    return found(EveryExpert())


def test_the_loop_over_experts_is_what_it_says(wanted):
    (weights, x, scale), expert = case()
    for i, j in ((0, 0), (3, 2), (7, 4)):
        own = {name: leaf[expert[i, j]] for name, leaf in weights.items()}
        value = x[i, j] @ own["value"] + own["value_bias"]
        gate = x[i, j] @ own["gate"] + own["gate_bias"]
        hidden = value * np.asarray(jax.nn.gelu(gate, approximate=False))
        y = scale[i, j] * (hidden @ own["out"] + own["out_bias"])
        np.testing.assert_allclose(wanted[0][0][i, j], y, rtol=1e-5)


@pytest.mark.parametrize("execution", ROOMY)
def test_executions_agree_without_a_mesh(execution, wanted):
    check(found(execution), wanted)


@pytest.mark.parametrize("execution", ROOMY[:3])
@pytest.mark.parametrize("sizes", MESHES)
def test_executions_agree_on_a_mesh(execution, sizes, wanted):
    count = int(np.prod(list(sizes.values())))
    check(found(execution, make_mesh(sizes, jax.devices()[:count])), wanted)


def in_a_process():
    mesh = make_mesh({"data": 2, "expert": 2})
    for execution in ROOMY[:3]:
        check(found(execution, mesh), found(EveryExpert()))
    print("agree")


@pytest.mark.slow
def test_executions_agree_in_two_processes():
    said = processes.run("tests.parallel.experts_test:in_a_process")
    assert all("agree" in lines for lines in said)


def test_tokens_without_room_are_counted_and_pass_as_zeros(wanted):
    (y, dropped), gradient = found(Capacity(1.0))
    _, expert = case()
    flat = expert.reshape(-1)
    size = 8  # 40 tokens over 8 experts, to a multiple of 8
    rank = np.array([np.sum(flat[:i] == flat[i]) for i in range(len(flat))])
    placed = (rank < size).reshape(expert.shape)
    assert dropped == np.sum(~placed) > 0
    np.testing.assert_allclose(y, np.where(placed[..., None], wanted[0][0], 0), atol=1e-5)
    by_x = gradient[1]
    np.testing.assert_allclose(by_x, np.where(placed[..., None], wanted[1][1], 0), atol=1e-5)
    np.testing.assert_allclose(gradient[2], np.where(placed, wanted[1][2], 0), atol=1e-5)


@pytest.mark.parametrize("tokens", [1000, 5000, 16384, 17003])
def test_buffers_of_any_size_divide_into_blocks(tokens):
    (weights, *_), _ = case()
    x, expert = jnp.zeros((1, tokens, WIDTH)), jnp.zeros((1, tokens), jnp.int32)
    run = functools.partial(Capacity(1.25), geglu)
    y, _ = jax.eval_shape(run, weights, x, expert, jnp.ones((1, tokens)))
    assert y.shape == x.shape


def test_what_cannot_be_is_an_error():
    with pytest.raises(ValueError, match="capacity factor of 0.5"):
        ExpertParallel(0.5)
    with pytest.raises(ValueError, match="8 experts do not divide over the 3 devices"):
        on_mesh = make_mesh({"data": 1, "expert": 3}, jax.devices()[:3])
        with jax.sharding.use_abstract_mesh(on_mesh.abstract_mesh):
            jax.eval_shape(loss(ExpertParallel(), case()[1]), case()[0])
    with pytest.raises(ValueError, match="batch of 8 does not divide over the 3 devices"):
        found_on = make_mesh({"data": 3}, jax.devices()[:3])
        given, expert = case()
        with jax.sharding.use_abstract_mesh(found_on.abstract_mesh):
            jax.eval_shape(loss(Dropless(), expert), given)
