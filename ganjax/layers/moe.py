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
from ganjax.parallel.experts import Dropless, Execution, Ffn, Run, plain_network
from ganjax.parallel.grouped import Join, Layer

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


class Network(NamedTuple):
    """A feed-forward network of one hidden layer.

    Attributes:
      inward: names of its kernels from tokens to the hidden layer; "out" leads from there.
      apply: ``apply(run, weights, x)``, row by row; see `parallel.experts` for `run`.
    """

    inward: tuple[str, ...]
    apply: Ffn

    def equalized(self, run: Run, weights: Any, x: Array) -> Array:
        """`apply` with kernels that are divided by ``sqrt(fan in)``.

        The hidden layer is scaled instead, before and after it is joined, which means the same:
        kernels are many, a TPU's product of blocks (`parallel.grouped`) takes them and rows as they
        lie, and ends in what is pointwise.
        """

        def scaled(x: Array, inward: tuple[Layer, ...], join: Join, outward: Layer) -> Array:
            before, after = (math.sqrt(layer.kernel.shape[-2]) for layer in (inward[0], outward))

            def joined(*products: Array) -> Array:
                return join(*(product * (1 / before) for product in products)) * (1 / after)

            inward = tuple(Layer(layer.kernel, layer.bias * before) for layer in inward)
            return run(x, inward, joined, outward)

        return self.apply(scaled, weights, x)


def exact_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """As ``jax.nn.gelu(x, approximate=False)``, by a function that TPU kernels have."""
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


def geglu(run: Run, weights: Any, x: Array) -> Array:
    """A value times a gelu of a gate, then out (Shazeer, 2020); see `parallel.experts` for `run`.

    Value and gate have a kernel each: halves of one would be padded in the gradient.
    """

    def gated(value: Array, gate: Array) -> Array:
        return value * exact_gelu(gate)

    inward = _layer(weights, "value"), _layer(weights, "gate")
    return run(x, inward, gated, _layer(weights, "out"))


def gelu(run: Run, weights: Any, x: Array) -> Array:
    """A gelu of a value, then out."""
    return run(x, (_layer(weights, "value"),), exact_gelu, _layer(weights, "out"))


def _layer(weights: Any, name: str) -> Layer:
    return Layer(weights[name], weights[f"{name}_bias"])


GEGLU = Network(("value", "gate"), geglu)
GELU = Network(("value",), gelu)


class FeedForward(nn.Module):
    """One network for all tokens; its parameters are those of an expert.

    Attributes:
        ratio: width of the hidden layer over that of the tokens.
        network: what it computes.
    """

    ratio: int = 4
    network: Network = GEGLU

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"], w: Float[Array, "n dw"]) -> Float[Array, "n t d"]:
        """What the network makes of the tokens, whatever w is; add it to them."""
        del w
        weights = _weights(self, self.network, x.shape[-1], self.ratio)
        return self.network.equalized(plain_network, weights, x)


def _weights(
    module: nn.Module, network: Network, width: int, ratio: int, stack: tuple[int, ...] = ()
) -> dict[str, Any]:
    """Parameters of a module; its network scales them at run time, see `Network.equalized`."""
    hidden = ratio * width
    sizes = {**{name: (width, hidden) for name in network.inward}, "out": (hidden, width)}
    weights = {}
    for name, size in sizes.items():
        weights[name] = module.param(name, initializers.Normal(), (*stack, *size))
        bias = f"{name}_bias"
        weights[bias] = module.param(bias, initializers.zeros, (*stack, size[1]))
    return weights


class MixtureOfExperts(nn.Module):
    """Tokens through their most probable expert, times its probability.

    Parameters of the experts are stacks: `value`, `gate` [e, d, h], `out` [e, h, d] and biases, and
    kernels are scaled by `1 / sqrt(fan in)` at run time, as of the other layers with an equalised
    learning rate.

    Attributes:
        experts: how many.
        router: makes the router, called with `features`; the router is called with x and w and
            gives logits [n, t, e].
        ratio, network: as of `FeedForward`.
        execution: how tokens meet experts; `parallel.experts` has several.
    """

    experts: int
    router: Callable[..., nn.Module]
    ratio: int = 4
    network: Network = GEGLU
    execution: Execution = Dropless()

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"], w: Float[Array, "n dw"]) -> Float[Array, "n t d"]:
        """What the experts make of the tokens; add it to them."""
        wide = jnp.promote_types(x.dtype, jnp.float32)
        logits = self.router(features=self.experts, name="router")(x.astype(wide), w.astype(wide))
        expert = jnp.argmax(logits, axis=-1)
        # NOTE: not the maximum, whose gradient is 0 / 0 where XLA rounds it otherwise than before.
        chosen = jax.nn.one_hot(expert, self.experts, dtype=logits.dtype)
        probability = jnp.sum(chosen * jax.nn.softmax(logits), axis=-1)
        weights = _weights(self, self.network, x.shape[-1], self.ratio, (self.experts,))
        y, dropped = self.execution(self.network.equalized, weights, x, expert, probability)
        if self.is_mutable_collection(COLLECTION) and not self.is_initializing():
            self.sow(COLLECTION, "told", told(logits, dropped))
        return y
