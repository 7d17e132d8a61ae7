"""Bias, activation, gain and clamp in one step, as StyleGAN's layers end."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class Activation:
    """A pointwise function.

    Attributes:
        function: of the input and `slope`.
        slope: default slope of the leaky ReLU below zero; the others have no use for it.
        gain: default factor, which keeps the variance of a normal input about 1.
    """

    function: Callable[[Array, float], Array]
    slope: float = 0.0
    gain: float = 1.0


ACTIVATIONS = {
    "linear": Activation(lambda x, slope: x),
    "relu": Activation(lambda x, slope: jax.nn.relu(x), gain=math.sqrt(2)),
    "lrelu": Activation(lambda x, slope: jnp.where(x > 0, x, x * slope), 0.2, math.sqrt(2)),
    "tanh": Activation(lambda x, slope: jnp.tanh(x)),
    "sigmoid": Activation(lambda x, slope: jax.nn.sigmoid(x)),
    "elu": Activation(lambda x, slope: jax.nn.elu(x)),
    "selu": Activation(lambda x, slope: jax.nn.selu(x)),
    "softplus": Activation(lambda x, slope: jax.nn.softplus(x)),
    "swish": Activation(lambda x, slope: jax.nn.swish(x), gain=math.sqrt(2)),
}


def activation_of(name: str) -> Activation:
    """ValueError for a name that is not in `ACTIVATIONS`."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation={name!r}; set one of {sorted(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def bias_act(
    x: Float[Array, "*shape"],
    bias: Float[Array, "c"] | None = None,
    activation: str = "linear",
    *,
    axis: int = -1,
    slope: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> Float[Array, "*shape"]:
    """`clip(activation(x + bias) * gain, -clamp, clamp)`, in the dtype of `x`.

    Args:
        activation: one of `ACTIVATIONS`.
        axis: of `x` that the bias counts along.
        slope: of the leaky ReLU below zero; None: 0.2.
        gain: None: the activation's own.
        clamp: None: no limit.
    """
    kind = activation_of(activation)
    if bias is not None:
        shape = [1] * x.ndim
        shape[axis] = -1
        # Added wide, which is free within a convolution: its gradient is summed so too.
        x = (x + bias.reshape(shape)).astype(x.dtype)
    x = kind.function(x, kind.slope if slope is None else slope)
    gain = kind.gain if gain is None else gain
    if gain != 1:
        x = x * jnp.asarray(gain, x.dtype)
    return x if clamp is None else jnp.clip(x, -clamp, clamp)
