"""Regulariser and optimizer of TGANv2; its losses are `logistic_d` and `logistic_g`."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


def r1_sum(
    discriminate: Callable[[Sequence[Array]], Float[Array, "m"]],
    videos: Sequence[Float[Array, "_ _ _ _ c"]],
    weight: float = 0.5,
) -> Float[Array, ""]:
    """R1 of Eq. 10: `weight` times the squared gradients of real videos' logits, summed.

    Over levels, videos and pixels: there is no mean and no half.
    """
    gradients = jax.grad(lambda videos: jnp.sum(discriminate(videos)))(list(videos))
    wide = [g.astype(jnp.promote_types(g.dtype, jnp.float32)) for g in gradients]
    return weight * jnp.stack([jnp.sum(jnp.square(g)) for g in wide]).sum()


def chainer_adam(
    learning_rate: float, iterations: int, b2: float = 0.9, eps: float = 8e-8
) -> optax.GradientTransformation:
    """Chainer's Adam with b1 = 0 and a learning rate that falls linearly to 0 (Section 5.2).

    The step is `rate sqrt(1 - b2^t) g / (sqrt(v) + eps)`: eps is added to the square root of `v` as
    it is, before its bias is corrected. In `optax.adam` it counts `sqrt(1 - b2^t)` times as much.

    Args:
        learning_rate: of the first iteration.
        iterations: after which it is 0.
        b2: decay of `v`, the running mean of squared gradients.
        eps: the released configuration's.
    """
    if not (learning_rate >= 0 and iterations >= 1 and 0 <= b2 < 1):
        raise ValueError(
            f"Adam with a learning rate of {learning_rate:g} over {iterations} iterations, b2="
            f"{b2:g}: set the rate to 0 or more, iterations to 1 or more, b2 in [0, 1)."
        )
    falling = optax.linear_schedule(learning_rate, 0.0, iterations)

    def rate(count: Array) -> Array:
        return -falling(count) * jnp.sqrt(1 - b2 ** (count + 1))

    return optax.chain(
        # Without a first moment, Adam is RMSprop with a corrected rate.
        optax.scale_by_rms(b2, eps, eps_in_sqrt=False),
        optax.scale_by_schedule(rate),
    )
