"""BigGAN's phases: two discriminator steps on fresh data, then one of the generator.

Hinge loss (BigGAN, section 2); the generator runs in training mode throughout, so its BatchNorm
statistics and spectral vectors move in the discriminator's turn too, as in the official code.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ganjax.adversarial.losses import hinge_d, hinge_g
from ganjax.adversarial.phases import Game, Outcome, Phase
from ganjax.layers.images import to_float

G_SIDE = ("batch_stats", "spectral")
D_SIDE = ("spectral",)
WRITES = ("g/batch_stats", "g/spectral", "d/spectral")

Judge = Callable[..., tuple[Array, Array, Any]]


def judge_together(
    discriminator: nn.Module,
    variables: dict[str, Any],
    real: Float[Array, "n h w c"],
    real_labels: Int[Array, "n"],
    fake: Float[Array, "n h w c"],
    fake_labels: Int[Array, "n"],
) -> tuple[Array, Array, Any]:
    """Logits of real and fake images from one pass, hence one power iteration.

    The two are interleaved: unlike a concatenation this keeps each sample on its device, so a
    sharded batch needs no permutation between devices.

    Returns:
      ``(real logits [n], fake logits [n], side state)``.
    """
    images = _interleave(real, fake)
    labels = _interleave(real_labels, fake_labels)
    logits, side = discriminator.apply(variables, images, labels, mutable=list(D_SIDE))
    logits = logits.reshape(-1, 2)
    return logits[:, 0], logits[:, 1], side


def judge_apart(
    discriminator: nn.Module,
    variables: dict[str, Any],
    real: Float[Array, "n h w c"],
    real_labels: Int[Array, "n"],
    fake: Float[Array, "m h w c"],
    fake_labels: Int[Array, "m"],
) -> tuple[Array, Array, Any]:
    """The official ``split_D``: fakes first, then reals, a power iteration each."""
    fake_logits, side = discriminator.apply(variables, fake, fake_labels, mutable=list(D_SIDE))
    variables = {**variables, **side}
    real_logits, side = discriminator.apply(variables, real, real_labels, mutable=list(D_SIDE))
    return real_logits, fake_logits, side


@dataclasses.dataclass(frozen=True)
class Losses:
    """The two losses over a pair of networks."""

    generator: nn.Module
    discriminator: nn.Module
    judge: Judge = judge_together

    def d_main(self, params: Any, game: Game) -> tuple[Array, Outcome]:
        """Hinge loss on a real and a fake batch of equal size."""
        z, fake_labels = game.draws["z"], game.draws["label"]
        fake, g_side = self.generator.apply(
            game.players["g"], z, fake_labels, train=True, mutable=list(G_SIDE)
        )
        real = to_float(game.batch["image"])
        variables = {**game.players["d"], "params": params}
        real_logits, fake_logits, d_side = self.judge(
            self.discriminator, variables, real, game.batch["label"], fake, fake_labels
        )
        real_loss, fake_loss = hinge_d(real_logits, fake_logits)
        metrics = {
            "loss_real": real_loss,
            "loss_fake": fake_loss,
            "logit_real": jnp.mean(real_logits),
            "logit_fake": jnp.mean(fake_logits),
        }
        return real_loss + fake_loss, Outcome({"g": g_side, "d": d_side}, metrics)

    def g_main(self, params: Any, game: Game) -> tuple[Array, Outcome]:
        """Hinge loss of the generator; the discriminator's spectral vectors move here too."""
        z, labels = game.draws["z"], game.draws["label"]
        variables = {**game.players["g"], "params": params}
        fake, g_side = self.generator.apply(variables, z, labels, train=True, mutable=list(G_SIDE))
        logits, d_side = self.discriminator.apply(
            game.players["d"], fake, labels, mutable=list(D_SIDE)
        )
        return hinge_g(logits), Outcome({"g": g_side, "d": d_side})


@dataclasses.dataclass(frozen=True)
class Draws:
    """Latents from N(0, std^2) and labels for a microbatch of fakes.

    NOTE: labels are uniform over the classes, as in the official code, not the data's.
    """

    latent_dim: int
    classes: int
    std: float = 1.0

    def __call__(self, key: Array, game: Game) -> dict[str, Array]:
        latent_key, label_key = jax.random.split(key)
        return {
            "z": self.std * jax.random.normal(latent_key, (game.size, self.latent_dim)),
            "label": jax.random.randint(label_key, (game.size,), 0, self.classes),
        }


def phases(
    losses: Losses,
    draws: Draws,
    *,
    batch: int,
    d_steps: int = 2,
    d_microbatches: int = 1,
    g_microbatches: int = 1,
) -> tuple[Phase, ...]:
    """``d/main`` ``d_steps`` times, then ``g/main``.

    Args:
      batch: samples an optimizer step sees, real and fake each, over all devices.

    Raises:
      ValueError: a count below 1, or ``batch`` is no multiple of a number of microbatches.
    """
    microbatches = {"d_microbatches": d_microbatches, "g_microbatches": g_microbatches}
    for name, count in ({"d_steps": d_steps} | microbatches).items():
        if count < 1:
            raise ValueError(f"train.{name}={count}; set it to 1 or more.")
    for name, count in microbatches.items():
        if batch % count:
            raise ValueError(
                f"train.batch={batch} is no multiple of train.{name}={count}. Set train.batch to "
                f"{batch - batch % count or count} or another multiple."
            )
    return (
        Phase(
            "d/main",
            player="d",
            loss=losses.d_main,
            size=batch // d_microbatches,
            draw=draws,
            batch="real",
            times=d_steps,
            microbatches=d_microbatches,
            writes=WRITES,
        ),
        Phase(
            "g/main",
            player="g",
            loss=losses.g_main,
            size=batch // g_microbatches,
            draw=draws,
            microbatches=g_microbatches,
            writes=WRITES,
        ),
    )


def _interleave(a: Array, b: Array) -> Array:
    return jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:])
