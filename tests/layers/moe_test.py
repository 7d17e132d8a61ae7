import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ganjax.layers.initializers import Normal, init_on_host
from ganjax.layers.moe import MixtureOfExperts, told
from ganjax.parallel.experts import Capacity, EveryExpert


class Router(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x, w):
        kernel = self.param("kernel", Normal(), (x.shape[-1] + w.shape[-1], self.features))
        w = jnp.broadcast_to(w[:, None], (*x.shape[:2], w.shape[-1]))
        return jnp.concatenate([x, w], axis=-1) @ kernel


def made(execution, x, w):
    layer = MixtureOfExperts(4, Router, ratio=2, execution=execution)
    return layer, jax.tree.map(jnp.asarray, init_on_host(layer, jax.random.key(0), x, w))


X = jnp.float32(np.random.default_rng(0).standard_normal((3, 10, 6)))
W = jnp.float32(np.random.default_rng(1).standard_normal((3, 2)))


def test_a_token_gets_its_likeliest_expert_times_the_probability():
    layer, variables = made(EveryExpert(), X, W)
    y, tells = layer.apply(variables, X, W, mutable=["moe"])
    params = variables["params"]
    logits = Router(4).apply({"params": params["router"]}, X, W)
    probability = np.asarray(jax.nn.softmax(logits))
    for i, j in ((0, 0), (1, 7), (2, 3)):
        e = int(np.argmax(logits[i, j]))
        value = X[i, j] @ params["value"][e] / np.sqrt(6) + params["value_bias"][e]
        gate = X[i, j] @ params["gate"][e] / np.sqrt(6) + params["gate_bias"][e]
        hidden = value * np.asarray(jax.nn.gelu(gate, approximate=False))
        out = hidden @ params["out"][e] / np.sqrt(12) + params["out_bias"][e]
        np.testing.assert_allclose(y[i, j], probability[i, j, e] * out, rtol=2e-5, atol=1e-6)
    (said,) = tells["moe"]["told"]
    np.testing.assert_array_equal(said.expert, np.argmax(logits, axis=-1))
    assert said.dropped == 0


def test_the_router_sees_the_style():
    layer, variables = made(EveryExpert(), X, W)
    one, other = (
        layer.apply(variables, X, style, mutable=["moe"])[1]["moe"]["told"][0].expert
        for style in (W, -3 * W)
    )
    assert np.any(one != other)


def test_losses_and_statistics():
    logits = np.random.default_rng(2).standard_normal((2, 6, 3)).astype(np.float32)
    said = told(jnp.asarray(logits), jnp.int32(3))
    probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    chosen = np.eye(3)[np.argmax(logits, axis=-1)]
    z = np.mean(np.log(np.exp(logits).sum(-1)) ** 2)
    np.testing.assert_allclose(said.z_loss, z, rtol=1e-5)
    balance = 9 * np.mean(chosen.mean(1) * probability.mean(1))
    np.testing.assert_allclose(said.balance_loss, balance, rtol=1e-5)
    np.testing.assert_allclose(said.load, chosen.mean((0, 1)), rtol=1e-6)
    np.testing.assert_allclose(
        said.entropy, -np.mean((probability * np.log(probability)).sum(-1)), rtol=1e-5
    )
    assert said.dropped == 0.25
    even = told(jnp.zeros((1, 5, 4)), jnp.int32(0))
    np.testing.assert_allclose(even.entropy, np.log(4), rtol=1e-6)


def test_dropped_tokens_are_told():
    same = jnp.repeat(X[:1, :1], 40, axis=1)  # all of them want one expert
    layer, variables = made(Capacity(1.0), same, W[:1])
    y, tells = layer.apply(variables, same, W[:1], mutable=["moe"])
    (said,) = tells["moe"]["told"]
    np.testing.assert_allclose(said.dropped, 24 / 40)  # 16 have room: a quarter, to eights
    assert np.all(y[0, :16] != 0) and np.all(y[0, 16:] == 0)
