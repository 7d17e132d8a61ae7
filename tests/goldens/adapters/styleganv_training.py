"""StyleGAN-V's training: augmentation of clips, losses, and trajectories through the train step."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ganjax.adversarial.phases import Game
from ganjax.data.clips import Even
from ganjax.families.styleganv import official
from ganjax.families.styleganv.phases import Losses
from tests.goldens.adapters.ada import at_percentile
from tests.goldens.adapters.ada import build as build_pipe
from tests.goldens.adapters.biggan import prefixed
from tests.goldens.adapters.stylegan2 import load
from tests.goldens.adapters.stylegan2_ops import Found, only, to_nchw
from tests.goldens.adapters.stylegan2_training import (
    Path,
    Run,
    Tape,
    Taping,
    build_losses,
    gradient_of,
    reported,
    trajectory,
)
from tests.goldens.adapters.styleganv import build_discriminator, build_generator
from tests.goldens.case import Adapter, Case

PHASES = {"Gmain": "g/main", "Dmain": "d/main", "Dreg": "d/r1"}
GAINS = {"Dreg": 16}  # of the loss cases


@dataclasses.dataclass(frozen=True)
class TapedClips(Taping, Losses):
    """StyleGAN-V's."""


def build(modules: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[TapedClips, int, Tape]:
    """Losses for the reference's constructor arguments, and the tape that they fill."""
    given = {key: value for key, value in options.items() if key != "cfg"}
    losses, shrink, tape = build_losses(*modules.values(), given, True, TapedClips)
    frames = modules["d"].frames
    # Times are given; of one frame there are no sparse ones.
    return dataclasses.replace(losses, times=Even(frames, fractional=True)), shrink, tape


def by_frame(name: str, tape: Tape, losses: Any) -> Found:
    """What a phase tells, as the reference has it: [n * frames, ...], and logits [n]."""
    found = dict(reported(name, tape, losses, Path(0.0, 0.0)))
    for key, value in found.items():
        if key.startswith(("scores", "G_", "D_")):
            found[key] = value[:, 0]
        elif key == "gen_img":
            found[key] = to_nchw(value.reshape(-1, *value.shape[2:]))
    return found


def told_of_r1(tape: Tape, losses: Any) -> Found:
    """The gradient penalty of each frame, and of each clip."""
    logits, gradient = tape.pop(0)[1], tape.pop(0)[1]
    frames = np.square(gradient).sum((-3, -2, -1))
    return {
        "scores_real": logits,
        "r1_penalty": frames.reshape(-1),
        "D_reg": losses.r1_gamma / 2 * frames.mean(1),
    }


def loss(case: Case) -> Found:
    """`StyleGAN2Loss.accumulate_gradients` of clips, phase by phase."""
    options = dict(case.kwargs)
    modules = {
        "g": build_generator(options.pop("G")),
        "d": build_discriminator(options.pop("D")),
    }
    players = {
        letter: load(case.group(f"param/{letter.upper()}."), module, official)
        for letter, module in modules.items()
    }
    losses, _, tape = build(modules, options)
    batch = {
        "clip": jnp.asarray(np.moveaxis(case["in/real_img"], 2, -1)),
        "times": jnp.asarray(case["in/real_t"]),
    }
    draws = {name: jnp.asarray(case[f"in/{key}"]) for name, key in DRAWN.items()}
    draws["first"] = jnp.zeros(len(draws["z"]), jnp.int32)
    if modules["g"].classes:
        batch["label"], draws["label"] = (jnp.asarray(case[f"in/{k}_c"]) for k in ("real", "gen"))
    found: Found = {}
    for phase, name in PHASES.items():
        game = Game(players, {}, batch, draws, None, {}, 0, jnp.asarray(0), len(batch["clip"]))
        gradient, _ = gradient_of(losses, name, game)
        gain = GAINS.get(phase, 1)
        gradient = jax.tree.map(lambda leaf, gain=gain: leaf * gain, gradient)
        letter = phase[0]
        gradients = official.to_official({"params": gradient}, modules[letter.lower()])
        found |= prefixed(f"out/{phase}_grad.{letter}.", gradients)
        if name == "d/r1":
            told = told_of_r1(tape, losses)
            found["out/r1_penalty_per_frame"] = told["r1_penalty"]
            found["out/loss_Dr1"] = told["D_reg"].mean() * gain
            continue
        told = by_frame(name, tape, losses)
        found["out/logits_fake"] = told["scores_fake"]
        if name == "g/main":
            found["out/loss_Gmain"] = told["G_loss"].mean()
        else:
            fake, real = told["scores_fake"], told["scores_real"]
            found["out/logits_real"] = real
            found["out/loss_Dgen"] = np.logaddexp(0, fake).mean()
            found["out/loss_Dreal"] = np.logaddexp(0, -real).mean()
    return found


DRAWN = {"z": "gen_z", "times": "gen_t", "motion": "motion_z"}


def pipeline(case: Case) -> Found:
    """`AugmentPipe` on clips, at one percentile of all of its draws.

    Those are the same for all clips: how many frames one has, the case does not say.
    """
    only(case.call, "p debug_percentile reshape")
    pipe, p = build_pipe(case.kwargs), case.call["p"]
    images = jnp.asarray(case.images("in/img"))
    clips = images[None]
    draws = pipe.draw(jax.random.key(0), clips.shape)
    draws = at_percentile(draws, case.call["debug_percentile"])
    result, pull = jax.vjp(jax.jit(lambda clips: pipe(clips, draws, p)), clips)
    cotangent = jnp.asarray(case.images("in/cotangent_out")).reshape(clips.shape)
    found = {"out/out": result, "grad/img": pull(cotangent)[0]}
    return {key: to_nchw(array.reshape(images.shape)) for key, array in found.items()}


class ClipRun(Run):
    """A training run on clips."""

    official = official

    def _networks(self, options: Mapping[str, Any], size: Mapping[str, Any]) -> dict[str, Any]:
        modules = {
            "g": build_generator({**options["G_kwargs"], **size}),
            "d": build_discriminator({**options["D_kwargs"], **size}),
        }
        self.frames = modules["d"].frames
        return modules

    def _losses(self, options: Mapping[str, Any]) -> tuple[Any, int, Tape]:
        return build(self.modules, options)

    def _batch(self, iteration: int) -> Found:
        batch = super()._batch(iteration)
        return {
            **batch,
            "clip": batch.pop("image"),
            "times": self.case.stored[f"data/t{iteration}"].astype(self.case.dtype),
        }

    def _more(self, prefix: str, own: str, rows: slice) -> Found:
        times = self.case[f"{prefix}_t"][rows]
        first = np.zeros(len(times), np.int32)
        return {"times": times, "motion": self.case[f"{own}motion_z"], "first": first}

    def _reported(self, name: str) -> Found:
        if name == "d/r1":
            return told_of_r1(self.tape, self.losses)
        return by_frame(name, self.tape, self.losses)

    def sample(self, labels: Any, **truncation: Any) -> Any:
        where = (jnp.asarray(self.case[f"final/{name}"]) for name in ("z", "t", "motion_z"))
        clips = self.modules["g"].apply(self.state.ema, *where, labels, **truncation)
        return clips.reshape(-1, *clips.shape[2:])


ADAPTERS = (
    Adapter("styleganv", r"^augment", r"augment\.py:AugmentPipe", pipeline),
    Adapter("styleganv", r"^loss", r"loss\.py:StyleGAN2Loss$", loss),
    Adapter(
        "trajectory",
        r"^styleganv",
        r"universome/stylegan-v \S+ src/training/\{training_loop",
        lambda case: trajectory(case, ClipRun),
        wide=True,
        given=r"^(init|data|rand)/|^final/([zct]|motion_z)$",
    ),
)
