"""Batch normalisation, alone and conditioned on the class; standing statistics for sampling."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ganjax.layers import initializers


class BatchNorm(nn.Module):
    """Normalisation by mean and variance over the whole batch and all pixels.

    Under `jit` the batch is the global one, over all devices and hosts. Statistics are in float32
    (float64 for float64 inputs) and come from one pass over the input: the mean and the mean square
    share one all-reduce.

    Collection "batch_stats": `mean` and `var` [c], running averages; they normalise when not
    training, and are moved in training where the collection is mutable. Collection "batch_moments"
    (only where it is mutable): `mean` and biased `var` of this batch; see `standing_statistics`.

    Attributes:
        eps: added to the variance.
        momentum: share of the current batch in the running averages.
        unbiased: the running variance is that of n - 1, as of `torch.nn.functional.batch_norm`;
            False: that of n, as of the official BigGAN code's own (`mybn`) layer. Normalisation in
            training is by that of n either way.
        affine: the layer has a `gain` and a `bias` of its own.
    """

    eps: float = 1e-5
    momentum: float = 0.1
    unbiased: bool = True
    affine: bool = True

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n h w c"],
        gain: Float[Array, "#n 1 1 c"] | None = None,
        bias: Float[Array, "#n 1 1 c"] | None = None,
        *,
        train: bool,
    ) -> Float[Array, "n h w c"]:
        """`(x - mean) / std * gain + bias`, in the dtype of `x`; 1 and 0 where not given."""
        channels = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", initializers.zeros, None, (channels,))
        running_var = self.variable("batch_stats", "var", initializers.ones, None, (channels,))
        if self.affine:
            gain = self.param("gain", initializers.ones, (channels,))
            bias = self.param("bias", initializers.zeros, (channels,))

        wide = jnp.promote_types(x.dtype, jnp.float32)
        y = x.astype(wide)
        if train:
            mean, var = self._moments(y, lax.stop_gradient(running_mean.value))
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                count = y.size // channels
                kept = var * (count / max(count - 1, 1)) if self.unbiased else var
                running_mean.value = self._moved(running_mean.value, mean)
                running_var.value = self._moved(running_var.value, kept)
            self._sow("mean", mean)
            self._sow("var", var)
        else:
            mean, var = running_mean.value, running_var.value

        scale = lax.rsqrt(var + self.eps)
        if gain is not None:
            scale = scale * gain
        y = (y - mean) * scale
        if bias is not None:
            y = y + bias
        return y.astype(x.dtype)

    def _moments(self, x: Array, centre: Array) -> tuple[Array, Array]:
        """Mean and biased variance of each channel, in one pass.

        Squares are taken about the running mean: of the plain mean square, float32 would lose what
        is left of the variance of a channel whose mean is large.
        """
        shifted = x - centre
        mean = jnp.mean(shifted, axis=(0, 1, 2))
        square = jnp.mean(jnp.square(shifted), axis=(0, 1, 2))
        return mean + centre, jnp.maximum(square - jnp.square(mean), 0.0)

    def _moved(self, running: Array, now: Array) -> Array:
        now = lax.stop_gradient(now).astype(running.dtype)
        return (1 - self.momentum) * running + self.momentum * now

    def _sow(self, name: str, value: Array) -> None:
        if not self.is_initializing():
            self.sow(
                "batch_moments", name, lax.stop_gradient(value), lambda old, new: new, lambda: 0.0
            )


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation whose gain and bias depend on the condition (Dumoulin et al., 2017).

    `norm(x) * (1 + gain(y)) + bias(y)`.

    Attributes:
        conditioning: makes the two maps from the condition to channels, called as
            `conditioning(features, name=...)`: a dense layer, or an embedding of classes.
        norm: makes the normalisation, called as `norm(affine=False)`.
    """

    conditioning: Callable[..., nn.Module]
    norm: Callable[..., nn.Module] = BatchNorm

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], y: Array, *, train: bool) -> Array:
        channels = x.shape[-1]
        gain = self.conditioning(features=channels, name="gain")(y)
        bias = self.conditioning(features=channels, name="bias")(y)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        gain = 1 + gain.astype(wide)[:, None, None, :]  # [n, 1, 1, c]
        bias = bias.astype(wide)[:, None, None, :]
        norm = self.norm(affine=False)
        # Statistics live beside the maps, not a level below.
        nn.share_scope(self, norm)
        return norm(x, gain, bias, train=train)


Variables = Mapping[str, Any]


def standing_statistics(
    apply_train: Callable[[Variables, Any], Mapping[str, Any]],
    variables: Variables,
    batches: Iterable[Any],
) -> dict[str, Any]:
    """Batch statistics for sampling: their mean over passes in training mode (BigGAN, section 4.2).

    Args:
        apply_train: `(variables, batch) -> mutated`: one pass in training mode with at least
            "batch_moments" mutable; whatever other collections it returns (the vectors of the
            spectral norm) carry over to the next pass and to the result. To be jitted.
        variables: the network's; unchanged.
        batches: inputs of the passes, e.g. latents and labels.

    Returns:
        `variables` with "batch_stats" replaced by the means over passes of the batch mean and of
        the biased batch variance.

    Raises:
        ValueError: there was no batch.
    """
    current, total, passes = dict(variables), None, 0
    for batch in batches:
        mutated = dict(apply_train(current, batch))
        moments = mutated.pop("batch_moments")
        mutated.pop("batch_stats", None)
        current.update(mutated)
        total = moments if total is None else jax.tree.map(jnp.add, total, moments)
        passes += 1
    if total is None:
        raise ValueError("standing_statistics got no batch; it takes at least one, the paper 100")
    current["batch_stats"] = jax.tree.map(lambda leaf: leaf / passes, total)
    return current
