"""A sparse mixture of experts: each token passes one of several feed-forward networks.

Which one a router says (Switch Transformer, Fedus et al., 2021; Eq. 9, Aurora). Where experts are
and how tokens get to them is an execution of `parallel.experts`: parameters and meaning are the
same for all.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ganjax.layers import initializers
from ganjax.parallel.experts import Dot, Dropless, Execution

COLLECTION = "moe"  # of what a layer tells of a call: sown, never stored


class Told(NamedTuple):
    """What a layer tells of a call, where collection "moe" is mutable.

    Attributes:
      z_loss: mean square of the router's log-sum-exp (ST-MoE, Zoph et al., 2022, Eq. 5).
      balance_loss: experts times what Switch Transformer's Eq. 4 is of each sample, on average: 1
        times the number of experts if all are chosen alike.
      load: share of tokens that each expert got.
      entropy: of the router's probabilities, in nats, on average.
      dropped: share of tokens that no expert had room for.
      expert: of each token.
    """

    z_loss: Float[Array, ""]
    balance_loss: Float[Array, ""]
    load: Float[Array, "e"]
    entropy: Float[Array, ""]
    dropped: Float[Array, ""]
    expert: Int[Array, "n t"]


def told(logits: Float[Array, "n t e"], dropped: Int[Array, ""]) -> Told:
    """The losses and statistics of a router's decisions."""
    experts = logits.shape[-1]
    logarithms = jax.nn.log_softmax(logits)
    probabilities = jnp.exp(logarithms)
    expert = jnp.argmax(logits, axis=-1)
    chosen = jax.nn.one_hot(expert, experts, dtype=logits.dtype)
    # Shares of each sample's tokens, then means over samples and experts.
    shares = jnp.mean(chosen, axis=1) * jnp.mean(probabilities, axis=1)
    return Told(
        z_loss=jnp.mean(jnp.square(jax.nn.logsumexp(logits, axis=-1))),
        balance_loss=experts**2 * jnp.mean(shares),
        load=jnp.mean(chosen, axis=(0, 1)),
        entropy=-jnp.mean(jnp.sum(probabilities * logarithms, axis=-1)),
        dropped=dropped / expert.size,
        expert=expert,
    )


def geglu(dot: Dot, weights: Any, x: Array) -> Array:
    """A value times a gelu of a gate, then out (Shazeer, 2020); see `parallel.experts` for `dot`.

    Value and gate have a kernel each: halves of one would be padded in the gradient.
    """
    value = dot(x, weights["value"], weights["value_bias"])
    gate = dot(x, weights["gate"], weights["gate_bias"])
    return dot(value * jax.nn.gelu(gate, approximate=False), weights["out"], weights["out_bias"])


class MixtureOfExperts(nn.Module):
    """Tokens through their most probable expert, times its probability.

    Parameters of the experts are stacks: `value`, `gate` [e, d, h], `out` [e, h, d] and biases.

    Attributes:
        experts: how many.
        router: makes the router, called with `features`; the router is called with x and w and
            gives logits [n, t, e].
        ratio: width of the hidden layer over that of the tokens.
        execution: how tokens meet experts; `parallel.experts` has several.
    """

    experts: int
    router: Callable[..., nn.Module]
    ratio: int = 4
    execution: Execution = Dropless()

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"], w: Float[Array, "n dw"]) -> Float[Array, "n t d"]:
        """What the experts make of the tokens; add it to them."""
        wide = jnp.promote_types(x.dtype, jnp.float32)
        logits = self.router(features=self.experts, name="router")(x.astype(wide), w.astype(wide))
        expert = jnp.argmax(logits, axis=-1)
        probability = jnp.max(jax.nn.softmax(logits), axis=-1)
        y, dropped = self.execution(geglu, self._weights(x.shape[-1]), x, expert, probability)
        if self.is_mutable_collection(COLLECTION) and not self.is_initializing():
            self.sow(COLLECTION, "told", told(logits, dropped))
        return y

    def _weights(self, width: int) -> dict[str, Any]:
        hidden = self.ratio * width
        sizes = {"value": (width, hidden), "gate": (width, hidden), "out": (hidden, width)}
        weights = {}
        for name, (inputs, outputs) in sizes.items():
            # Both as PyTorch's linear layers, of which the released code is made.
            init = initializers.Uniform(1 / math.sqrt(inputs))
            weights[name] = self.param(name, init, (self.experts, inputs, outputs))
            weights[f"{name}_bias"] = self.param(f"{name}_bias", init, (self.experts, outputs))
        return weights
