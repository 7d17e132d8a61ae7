"""StyleGAN-V (Skorokhodov et al., 2022): StyleGAN2 of videos at any times; its phases are those."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from ganjax.adversarial.ada import from_config
from ganjax.config import at_least
from ganjax.data.clips import Even, Sparse, read_clip
from ganjax.families import stylegan2
from ganjax.families.stylegan2.networks import MappingNetwork
from ganjax.families.stylegan2.rules import RULES
from ganjax.families.styleganv import motion as motions
from ganjax.families.styleganv import networks as nets
from ganjax.families.styleganv.phases import Losses
from ganjax.families.styleganv.sampling import Sampling
from ganjax.family import Family, Inputs

__all__ = ["RULES", "build", "modules"]

TRAJECTORIES = ("conv", "lstm")
ENCODINGS = ("waves", "mapped")
SPACINGS: dict[str, Any] = dict(octaves=motions.octaves, linear=motions.linear)
JOINS: dict[str, Any] = dict(constant=nets.to_constant, styles=nets.to_styles, added=nets.added)
DISCRIMINATORS = ("released", "paper")
LEAST = {
    **dict.fromkeys(("model.motion_noise_dim", "model.motion_dim", "model.motion_taps"), 1),
    **dict.fromkeys(("model.motion_distance", "model.waves", "model.join_share"), 1),
    **dict.fromkeys(("model.told_dim", "sample.stride"), 1),
    "loss.g_lazy": 0,
}
CONDITIONS: dict[str, Any] = dict(told=nets.told, blank=nets.blank)


def build(config: Any) -> Family:
    """The family for a config of ``configs/styleganv.py``.

    Raises:
        ValueError: an image size, name, sampling of times or batch that it does not have.
    """
    times, longest = _clip(config)
    generator, discriminator = modules(config)
    losses = Losses(
        generator,
        discriminator,
        r1_gamma=config.loss.r1_gamma,
        augment=from_config(config.augment, config.train.batch),
        times=dataclasses.replace(times, fractional=True),
        longest=longest,
    )
    sampling = Sampling(
        generator,
        config.sample.truncation,
        frames=times.frames,
        longest=longest,
        stride=config.sample.stride,
    )
    family = stylegan2.assemble(
        config,
        losses,
        Inputs(*nets.example_inputs(generator)),
        sampling,
        {},
        # As in the released code, though nothing regularises G.
        g_lazy=config.loss.g_lazy,
        touch_all=True,
    )
    frames, item = times.frames, dict(family.item)
    image = item.pop("image")
    item["clip"] = jax.ShapeDtypeStruct((frames, *image.shape), image.dtype)
    item["times"] = jax.ShapeDtypeStruct((frames,), np.float32)
    item["length"] = jax.ShapeDtypeStruct((), np.int32)
    inputs = {**family.inputs, "d": Inputs(*nets.example_inputs(discriminator))}
    return dataclasses.replace(family, inputs=inputs, item=item)


def modules(config: Any) -> tuple[nets.Generator, nets.Discriminator]:
    """Generator and discriminator modules for a config.

    Raises:
        ValueError: as of `build`.
    """
    model, (times, longest) = config.model, _clip(config)
    _check(config)
    generator, discriminator = stylegan2.networks(config)
    trajectory: Any = motions.Recurrence
    if _known("trajectory", model.trajectory, TRAJECTORIES) == "conv":
        trajectory = functools.partial(motions.Convolutions, taps=model.motion_taps)
    encoding: Any = functools.partial(
        motions.Mapped, size=model.motion_dim, classes=generator.classes
    )
    if _known("encoding", model.encoding, ENCODINGS) == "waves":
        encoding = functools.partial(
            motions.Waves,
            model.waves,
            model.shortest_period,
            model.longest_period,
            SPACINGS[_known("spacing", model.spacing, SPACINGS)],
        )
    motion = functools.partial(
        motions.MotionEncoder,
        noise_dim=model.motion_noise_dim,
        features=model.motion_dim,
        distance=model.motion_distance,
        trajectory=trajectory,
        encoding=encoding,
    )
    join = JOINS[_known("join", model.join, JOINS)]
    shared = dict(
        frames=times.frames,
        join_resolution=model.join_resolution,
        share=model.join_share,
        differences=(
            nets.between_the_first if isinstance(times, Even) else nets.between_neighbours
        ),
        projected=CONDITIONS[_known("projected", model.projected, CONDITIONS)],
        # Of labels and times: as many layers as the generator's has.
        mapping_network=functools.partial(MappingNetwork, layers=model.mapping_layers),
    )
    own: Any
    if _known("discriminator", model.discriminator, DISCRIMINATORS) == "paper":
        own = functools.partial(
            nets.HyperDiscriminator,
            encoder=functools.partial(nets.EncodedDifferences, longest, model.told_dim),
            w_dim=model.w_dim,
            modulated=CONDITIONS[_known("modulated", model.modulated, CONDITIONS)],
        )
    else:
        encoder = functools.partial(nets.LearnedDifferences, longest, model.told_dim)
        own = functools.partial(nets.Discriminator, encoder=encoder)
    return (
        # Noise of single pixels would stand still while they move.
        nets.Generator(**_fields(generator) | {"use_noise": False}, motion=motion, join=join),
        own(**(_fields(discriminator) | shared)),
    )


def _fields(module: Any) -> dict[str, Any]:
    """Those of a module that another one is to have, too."""
    return {
        field.name: getattr(module, field.name)
        for field in dataclasses.fields(module)
        if field.name not in ("name", "parent")
    }


def _check(config: Any) -> None:
    at_least(config, LEAST)
    model = config.model
    shortest, longest = model.shortest_period, model.longest_period
    if not 0 < shortest <= longest:
        raise ValueError(
            f"config.model.shortest_period={shortest:g} and longest_period={longest:g}; set the"
            " first to more than 0, and the second to no less."
        )
    size = 2 * model.waves if model.encoding == "waves" else model.motion_dim
    if model.join == "added" and size != model.w_dim:
        raise ValueError(
            f"config.model.join='added' adds motion codes of {size} numbers to a w of"
            f" {model.w_dim}; set config.model.w_dim={size}."
        )


def _clip(config: Any) -> tuple[Sparse | Even, int]:
    """Which frames of a clip are seen, and how long videos are."""
    clip = read_clip(config.data.clip or {})
    if not isinstance(clip.times, Sparse | Even) or clip.max_frames is None:
        raise ValueError(
            f"config.data.clip={clip}: StyleGAN-V sees a few frames of a part of a video. Set"
            " config.data.clip.times to sparse or even, and max_frames to a number."
        )
    return clip.times, clip.max_frames


def _known(field: str, value: str, names: Any) -> str:
    if value not in names:
        raise ValueError(f"config.model.{field}={value!r}; set one of {list(names)}.")
    return value
