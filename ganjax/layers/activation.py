"""Bias, activation, gain and clamp in one step, as StyleGAN's layers end."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

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

BENT = ("linear", "relu", "lrelu")  # of two straight parts


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
    dtype: Any = None,
) -> Float[Array, "*shape"]:
    """`clip(activation(x + bias) * gain, -clamp, clamp)`.

    Args:
        activation: one of `ACTIVATIONS`.
        axis: of `x` that the bias counts along.
        slope: of the leaky ReLU below zero; None: 0.2.
        gain: None: the activation's own.
        clamp: None: no limit.
        dtype: of the result; None: of `x`.
    """
    dtype = dtype or x.dtype
    kind = activation_of(activation)
    slope = kind.slope if slope is None else slope
    gain = kind.gain if gain is None else gain
    # Computed wide, and rounded once: within a convolution that is free, and roundings are not. The
    # bias' gradient is summed so, too.
    y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if bias is not None:
        shape = [1] * x.ndim
        shape[axis] = -1
        y = y + bias.reshape(shape)
    if activation in BENT and gain > 0 and slope >= 0:
        below = {"linear": 1.0, "relu": 0.0}.get(activation, slope)
        return _bent(y, gain, below * gain, clamp, (dtype, x.dtype))
    y = kind.function(y, slope)
    y = y if gain == 1 else y * gain
    return (y if clamp is None else jnp.clip(y, -clamp, clamp)).astype(dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3, 4))
def _bent(
    x: Array, above: float, below: float, limit: float | None, dtypes: tuple[Any, Any]
) -> Array:
    """`x * above` where x is positive, elsewhere `x * below`, clipped to `limit`.

    Its derivative is read off from the result, so that nothing else is kept for it. That of
    `jnp.clip` halves gradients on the limit, which may take a TPU longer than the convolution.

    Args:
        dtypes: of the result, and of the products with its derivative.
    """
    y = x * (above if above == below else jnp.where(x > 0, above, below).astype(x.dtype))
    return (y if limit is None else jnp.clip(y, -limit, limit)).astype(dtypes[0])


@_bent.defjvp
def _bent_jvp(above, below, limit, dtypes, primals, tangents):
    (x,), (dx,) = primals, tangents
    y = _bent(x, above, below, limit, dtypes)
    slope = above if above == below else jnp.where(y > 0, above, below)
    if limit is not None:
        slope = jnp.where(jnp.abs(y) < limit, slope, 0.0)
    return y, (dx.astype(dtypes[1]) * jnp.asarray(slope, dtypes[1])).astype(dtypes[0])
