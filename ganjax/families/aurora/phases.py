"""Aurora's phases, stage by stage: G, D, and D's lazy gradient penalty (sections 3.3 and 3.4).

    g/main   non-saturating logistic loss, multi-level CLIP loss, losses of the mixtures of experts
    d/main   logistic loss, and the matching-aware one
    d/r1     gradient penalty on reals, every 16 steps

A stage plays with the blocks up to its resolution and leaves all others alone. Texts of fakes are
those of the real pictures of the same microbatch.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ganjax.adversarial.losses import logistic_d, logistic_g
from ganjax.adversarial.phases import Game, Outcome, Phase
from ganjax.families.aurora.discriminator import Discriminator
from ganjax.families.aurora.encoder import Encoder, Texts
from ganjax.families.aurora.losses import others, pyramid, rejected, told_by_layer
from ganjax.families.aurora.networks import Generator
from ganjax.layers.images import to_float

FROZEN = "clip"  # the name of the encoder's variables among the frozen ones
Pictures = dict[int, Array]  # [n, size, size, c] by size


@dataclasses.dataclass(frozen=True)
class Losses:
    """The losses over a pair of networks and a frozen one.

    Attributes:
        r1_gamma: weight of the gradient penalty; half of it multiplies the squared gradient.
        clip: of the CLIP loss, the mean over all resolutions; 0: none.
        match_real, match_fake: of the matching-aware loss, of reals and of fakes with the text of
            another sample; 0: none.
        balance, router_z: of the mixtures' losses, each summed over the layers.

    Raises:
        ValueError: a negative weight.
    """

    generator: Generator
    discriminator: Discriminator
    encoder: Encoder
    r1_gamma: float = 1.0
    clip: float = 0.1
    match_real: float = 0.5
    match_fake: float = 0.5
    balance: float = 0.001
    router_z: float = 0.001

    def __post_init__(self) -> None:
        for name in ("r1_gamma", "clip", "match_real", "match_fake", "balance", "router_z"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"config.loss.{name}={getattr(self, name):g} would reward what it is to"
                    " penalise; set it to 0 (none) or more."
                )

    def texts(self, game: Game) -> Texts:
        """Those of the microbatch."""
        return self.encoder.read(game.frozen[FROZEN], game.batch)

    def fakes(
        self, variables: Any, game: Game, texts: Texts, sizes: tuple[int, ...], averages: bool
    ) -> tuple[Pictures, dict[str, Any]]:
        """Pictures of the texts, by size, and what the generator's collections hold after."""
        mutable = ["averages"] if averages else False
        found: Any = self.generator.apply(
            variables, game.draws["z"], texts.states, texts.end, method="styles", mutable=mutable
        )
        (ws, tokens), side = found if mutable else (found, {})
        images, told = self.generator.apply(
            variables, ws, tokens, sizes, method="synthesize", mutable=["moe"]
        )
        return images, {**side, **told}

    def g_main(self, params: Any, game: Game, sizes: tuple[int, ...]) -> tuple[Array, Outcome]:
        """G's loss at the resolutions of a stage."""
        texts, judges = self.texts(game), game.players["d"]
        variables = {**game.players["g"], "params": params}
        images, side = self.fakes(variables, game, texts, sizes, averages=True)
        logits: Any = self.discriminator.apply(judges, images, texts.states, texts.end)
        loss = adversarial = logistic_g(logits.ravel())
        metrics = {"adversarial": adversarial, "logit_fake": jnp.mean(logits)}
        if self.clip:
            found = self.encoder.likeness(game.frozen[FROZEN], images, texts)
            metrics |= {f"clip_{size}": value for size, value in found.items()}
            loss = loss + self.clip * jnp.mean(jnp.stack(list(found.values())))
        told = told_by_layer(side)
        if told:
            metrics["balance"] = _sum([said.balance_loss for said in told.values()])
            metrics["router_z"] = _sum([said.z_loss for said in told.values()])
            loss = loss + self.balance * metrics["balance"] + self.router_z * metrics["router_z"]
        metrics |= self._routed(told)
        return loss, Outcome({"g": {"averages": side["averages"]}}, metrics)

    def d_main(self, params: Any, game: Game, sizes: tuple[int, ...]) -> tuple[Array, Outcome]:
        """D's loss: fakes, reals, and both with the texts of others."""
        texts = self.texts(game)
        fakes, _ = self.fakes(game.players["g"], game, texts, sizes, averages=False)
        reals = pyramid(to_float(game.batch["image"]), sizes)
        variables = {**game.players["d"], "params": params}

        def ask(method: str, *inputs: Any) -> Any:
            return self.discriminator.apply(variables, *inputs, method=method)

        described = ask("describe", texts.states, texts.end)
        # One pass for both. Interleaved, a sample stays on its device, and groups of the
        # minibatch's deviation have one kind each.
        looks = ask("look", {size: _interleaved(fakes[size], reals[size]) for size in sizes})

        def judged(described: Array) -> tuple[Array, Array]:
            logits = ask("judge", looks, _interleaved(described, described))
            logits = logits.reshape(-1, 2, logits.shape[-1])
            return logits[:, 0], logits[:, 1]

        fake, real = judged(described)
        real_loss, fake_loss = logistic_d(real.ravel(), fake.ravel())
        metrics = {
            "loss_real": real_loss,
            "loss_fake": fake_loss,
            "logit_real": jnp.mean(real),
            "logit_fake": jnp.mean(fake),
        }
        loss = real_loss + fake_loss
        if self.match_real or self.match_fake:
            other, counted = others(texts.tokens)
            wrong_fake, wrong_real = judged(described[other])
            metrics |= {
                "match_real": rejected(wrong_real, counted),
                "match_fake": rejected(wrong_fake, counted),
                "logit_mismatched": jnp.mean(wrong_real),
            }
            loss = loss + self.match_real * metrics["match_real"]
            loss = loss + self.match_fake * metrics["match_fake"]
        return loss, Outcome(metrics=metrics)

    def d_r1(self, params: Any, game: Game, sizes: tuple[int, ...]) -> tuple[Array, Outcome]:
        """Gradient penalty on reals: of the mean prediction by the pictures of all resolutions.

        Of a picture with a quarter of the pixels it weighs a quarter: the same change is spread
        over fewer of them, and each has the more of the gradient.
        """
        texts = self.texts(game)
        variables = {**game.players["d"], "params": params}

        def total(reals: Pictures) -> Array:
            logits: Any = self.discriminator.apply(variables, reals, texts.states, texts.end)
            return jnp.sum(jnp.mean(logits, axis=1))

        gradients = jax.grad(total)(pyramid(to_float(game.batch["image"]), sizes))
        squares = [
            jnp.sum(jnp.square(gradient)) * (size / self.generator.resolution) ** 2
            for size, gradient in gradients.items()
        ]
        penalty = jnp.sum(jnp.stack(squares)) / game.size
        return self.r1_gamma / 2 * penalty, Outcome(metrics={"penalty": penalty})

    def _routed(self, told: Mapping[str, Any]) -> dict[str, Array]:
        """Load, entropy and dropped share by resolution, the means of its mixtures."""
        metrics: dict[str, Array] = {}
        for stage, blocks in self.generator.blocks():
            names = [f"synthesis/net_{index}/" for index in blocks]
            said = [told[layer] for layer in told if layer.startswith(tuple(names))]
            if not said:
                continue
            mean = jax.tree.map(
                lambda *leaves: jnp.mean(jnp.stack(leaves), axis=0),
                *[(one.load, one.entropy, one.dropped) for one in said],
            )
            at, (load, entropy, dropped) = f"experts_{stage.resolution}", mean
            metrics |= {f"{at}_load_{expert}": share for expert, share in enumerate(load)}
            metrics |= {f"{at}_entropy": entropy, f"{at}_dropped": dropped}
        return metrics


def _sum(values: list[Array]) -> Array:
    """Of numbers."""
    return jnp.sum(jnp.stack(values))


def _interleaved(one: Array, other: Array) -> Array:
    return jnp.stack([one, other], axis=1).reshape(-1, *one.shape[1:])


def used(generator: Generator, resolution: int) -> dict[str, str]:
    """Of each player, a pattern of the parameters that a stage of a resolution has a use for."""
    sizes = "|".join(str(s.resolution) for s in generator.stages if s.resolution > resolution)
    if not sizes:
        return {"g": ".*", "d": ".*"}
    unused = [i for stage, own in generator.blocks() if stage.resolution > resolution for i in own]
    blocks = "|".join(map(str, unused))
    return {
        "g": rf"^(?!synthesis/(net_({blocks})|output_res_({sizes})x({sizes}))/)",
        # At its largest resolution features come from the picture alone.
        "d": rf"^(?!((b|rgb)({sizes})|(out|attention)({resolution}|{sizes}))/)",
    }


def phases(
    losses: Losses,
    stages: tuple[int, ...],
    *,
    batch: int,
    microbatches: int = 1,
    r1_every: int = 16,
) -> tuple[Phase, ...]:
    """``g/main``, ``d/main`` and ``d/r1`` of each stage; with ``@8`` behind them if of several.

    Args:
        stages: the largest resolution of each; the last is the generator's.
        batch: samples that an optimizer step sees, over all devices.
        microbatches: parts of it, whose gradients are averaged.

    Raises:
        ValueError: stages that are not of the generator or do not end with its resolution; a batch
            that does not divide; a penalty that is never played.
    """
    known = tuple(stage.resolution for stage in losses.generator.stages)
    if tuple(sorted(set(stages))) != tuple(stages) or not stages or stages[-1] != known[-1]:
        raise ValueError(
            f"config.grow.stages={tuple(stages)} is to rise to {known[-1]}, the resolution of the"
            f" data; set some of {known}, the last one among them"
        )
    if set(stages) - set(known):
        raise ValueError(
            f"config.grow.stages={tuple(stages)}: the generator has {known}; set some of them"
        )
    if batch % microbatches:
        raise ValueError(
            f"train.batch={batch} is no multiple of train.microbatches={microbatches}; set it to"
            f" {batch - batch % microbatches or microbatches}"
        )
    group = losses.discriminator.group_size or 1
    if batch // microbatches % group:
        # In D's pass over fakes and reals each group is of one kind.
        raise ValueError(
            f"train.batch={batch} in {microbatches} microbatches does not divide into groups of"
            f" model.group_size={group}; set it to a multiple of {group * microbatches}"
        )
    if losses.r1_gamma and r1_every < 1:
        raise ValueError(
            f"config.loss.r1_every={r1_every}: set 1 or more steps, or config.loss.r1_gamma=0"
        )
    played = []
    for number, largest in enumerate(stages):
        sizes = tuple(size for size in known if size <= largest)
        touches = used(losses.generator, largest)

        def phase(name: str, loss: Any, **more: Any) -> Phase:
            player = name[0]
            return Phase(
                name + (f"@{largest}" if len(stages) > 1 else ""),  # noqa: B023
                player=player,
                loss=functools.partial(loss, sizes=sizes),  # noqa: B023
                size=batch // microbatches,
                microbatches=microbatches,
                batch="real",
                touches=touches[player],  # noqa: B023
                stage=number,  # noqa: B023
                **more,
            )

        draw = functools.partial(draws, losses.generator.latent_dim)
        played.append(phase("g/main", losses.g_main, draw=draw, writes=("g/averages",)))
        played.append(phase("d/main", losses.d_main, draw=draw))
        if losses.r1_gamma:
            played.append(phase("d/r1", losses.d_r1, every=r1_every))
    return tuple(played)


def draws(latent_dim: int, key: Any, game: Game) -> dict[str, Float[Array, "n latent_dim"]]:
    """Everything random about a microbatch."""
    return {"z": jax.random.normal(key, (game.size, latent_dim))}
