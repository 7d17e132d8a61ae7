"""Attention blocks with their mixture of experts: what is computed how precisely."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from ganjax.families.aurora import networks
from ganjax.layers.initializers import init_on_host

QUICKLY = {"xla_backend_optimization_level": 0}

X, W, TEXT = (
    jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)
    for seed, shape in enumerate([(2, 2, 2, 8), (2, 4), (2, 3, 6)])
)


def block(dtype):
    return networks.attention(4, 1, heads=2, head_dim=4, groups=4, dtype=dtype)()


def made(variables):
    """(y, what the mixture told) computed widely, and narrowly."""

    def one(dtype):
        x = X.astype(dtype or X.dtype)
        y, told = block(dtype).apply(variables, x, W, TEXT, mutable=["moe"])
        return y, told["moe"]["attn_blocks_0"]["ff"]["told"][0]

    return one(None), one(jnp.bfloat16)


def test_experts_and_attention_compute_narrowly_and_routers_widely():
    start = init_on_host(block(None), jax.random.key(0), X, W, TEXT)
    rng = np.random.default_rng(3)
    # What starts from zero would hide the rest.
    variables = jax.tree.map(lambda a: np.float32(a + 0.3 * rng.standard_normal(a.shape)), start)
    lowered = jax.jit(made).lower(variables)
    (wide, said), (narrow, same) = lowered.compile(QUICKLY)(variables)
    assert wide.dtype == jnp.float32 and narrow.dtype == jnp.bfloat16
    # Rounding may choose another expert.
    alike = (same.expert == said.expert).reshape(wide.shape[:3])
    assert alike.sum() >= 6
    np.testing.assert_allclose(
        np.float32(narrow)[alike], wide[alike], rtol=0, atol=0.03 * np.abs(wide).max()
    )
    assert same.z_loss.dtype == jnp.float32
    np.testing.assert_allclose(same.z_loss, said.z_loss, rtol=0.02)
    found = re.findall(r"(?:dot_general|convolution).* : \((tensor.*)\) ->", lowered.as_text())
    # Of the four tokens of a picture or of the three of a text; the routers' are of 4x1 pixels.
    routers = [types for types in found if types.startswith("tensor<2x4x1x8x")]
    tokens = [t for t in found if re.match(r"tensor<2x(2x)?([34]|2x2)x\d+x", t)]
    tokens = [types for types in tokens if types not in routers]
    widely, narrowly = ([t for t in tokens if kind in t] for kind in ("xf32", "xbf16"))
    assert len(narrowly) == len(widely) >= 7 and not set(narrowly) & set(widely)
    assert ["bf16" in types for types in routers] == [False, False]
