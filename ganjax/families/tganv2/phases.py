"""TGANv2's phases: the generator's turn, then the discriminators' on the very same videos."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from ganjax.adversarial.losses import logistic_d, logistic_g
from ganjax.adversarial.phases import Game, Outcome, Phase
from ganjax.families.tganv2.losses import r1_sum
from ganjax.families.tganv2.networks import Discriminator, Generator
from ganjax.families.tganv2.subsampling import levels_of
from ganjax.layers.images import to_float


@dataclasses.dataclass(frozen=True)
class Losses:
    """The losses over a pair of networks (the released code's `DiracUpdater`).

    Attributes:
        generator, discriminator: the modules; the discriminator's `join` says what a logit is.
        r1_weight: lambda of Eq. 10.
    """

    generator: Generator
    discriminator: Discriminator
    r1_weight: float = 0.5

    def g_main(self, params: Any, game: Game) -> tuple[Array, Outcome]:
        """Logistic loss of the generator, which passes its videos on."""
        _check_devices(game.size, self.generator.batch_strides)
        videos, moved = self._videos({**game.players["g"], "params": params}, game.draws)
        logits: Any = self.discriminator.apply(game.players["d"], videos)
        return logistic_g(logits), Outcome({"g": moved}, passed={"videos": videos})

    def d_main(self, params: Any, game: Game) -> tuple[Array, Outcome]:
        """Logistic loss of the discriminators, and R1.

        Generated videos are those of the generator's turn, from before its weights moved; of its
        present weights where it had none.
        """
        fake = game.passed.get("videos")
        if fake is None:
            fake, _ = self._videos(game.players["g"], game.draws)
        g = self.generator
        real = levels_of(
            to_float(game.batch["clip"]),
            game.draws["real_offsets"],
            g.frame_strides,
            g.batch_strides,
        )

        def judge(videos: Sequence[Array]) -> Any:
            return self.discriminator.apply({"params": params}, videos)

        real_logits, fake_logits = judge(real), judge(jax.lax.stop_gradient(fake))
        real_loss, fake_loss = logistic_d(real_logits, fake_logits)
        penalty = r1_sum(judge, real, self.r1_weight) if self.r1_weight else jnp.zeros(())
        metrics = {
            "loss_real": real_loss,
            "loss_fake": fake_loss,
            "logit_real": jnp.mean(real_logits),
            "logit_fake": jnp.mean(fake_logits),
            "r1": penalty,
        }
        return real_loss + fake_loss + penalty, Outcome(metrics=metrics)

    def _videos(self, variables: Mapping[str, Any], draws: Mapping[str, Any]) -> tuple[Any, Any]:
        """Videos of every level, and where their statistics moved the running ones."""
        return self.generator.apply(
            variables, draws["z"], draws["offsets"], mutable=["batch_stats"]
        )


@dataclasses.dataclass(frozen=True)
class Draws:
    """Latents and the first frames of the levels.

    NOTE: as in the released code, generated videos share theirs, real ones have their own.
    """

    generator: Generator

    def __call__(self, key: Array, game: Game) -> dict[str, Array]:
        latent_key, key, real_key = jax.random.split(key, 3)
        g = self.generator
        ends = jnp.array([g.max_offset + 1, *g.frame_strides])
        return {
            "z": latents(latent_key, (game.size, g.latent_dim)),
            "offsets": jax.random.randint(key, ends.shape, 0, ends),
            "real_offsets": self._of_each(real_key, game.size),
        }

    def _of_each(self, key: Array, n: int) -> Int[Array, "n levels"]:
        ends = jnp.array(self.generator.frame_strides, jnp.int32)
        return jax.random.randint(key, (n, len(ends)), 0, ends)


def latents(key: Array, shape: tuple[int, ...]) -> Array:
    """Uniform on [-1, 1] (Section 4.1)."""
    return jax.random.uniform(key, shape, minval=-1.0)


def _check_devices(videos: int, batch_strides: Sequence[int]) -> None:
    """Every level's videos stay where the first one's are, as each device keeps some of them."""
    devices, kept = jax.sharding.get_abstract_mesh().size or 1, math.prod(batch_strides)
    if devices > 1 and videos % (devices * kept):
        raise ValueError(
            f"config.train.batch={videos} leaves the last level {-(-videos // kept)} videos for "
            f"{devices} devices, some of which would wait for others. Set it to a multiple of "
            f"{devices * kept}, or config.model.batch_strides to smaller ones."
        )


def phases(losses: Losses, batch: int) -> tuple[Phase, ...]:
    """``g/main``, then ``d/main``.

    Args:
        batch: videos of the first level, over all devices.

    Raises:
        ValueError: a batch below 1.
    """
    if batch < 1:
        raise ValueError(f"train.batch={batch}; set it to 1 or more.")
    draw = Draws(losses.generator)
    return (
        Phase(
            "g/main",
            player="g",
            loss=losses.g_main,
            size=batch,
            draw=draw,
            writes=("g/batch_stats",),
        ),
        Phase("d/main", player="d", loss=losses.d_main, size=batch, draw=draw, batch="real"),
    )
