"""TGANv2 (Saito et al. 2020): dense clips, of which later levels of resolution see ever fewer."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ganjax.adversarial.state import Ema, constant_decay
from ganjax.config import at_least
from ganjax.data.clips import Dense, read_clip
from ganjax.families.tganv2.losses import chainer_adam
from ganjax.families.tganv2.networks import (
    Discriminator,
    Generator,
    added,
    concatenated,
    example_inputs,
)
from ganjax.families.tganv2.phases import Losses, phases
from ganjax.families.tganv2.sampling import Sampling
from ganjax.family import Family, Inputs

__all__ = ["build", "networks"]

JOINS = {"concatenated": concatenated, "added": added}


def build(config: Any) -> Family:
    """The family for a config of ``configs/tganv2.py``.

    Raises:
        ValueError: clips, levels or a batch that the networks or phases do not have.
    """
    generator, discriminator = networks(config)
    optimizer, train = config.optimizer, config.train
    sampling = Sampling(generator, config.sample.frames)
    turns = phases(Losses(generator, discriminator, config.loss.r1_weight), train.batch)
    iterations = -(-optimizer.decay_images // train.batch)
    height, width = _square(config)
    return Family(
        networks={"g": generator, "d": discriminator},
        inputs={
            "g": Inputs(*example_inputs(generator)),
            "d": Inputs(*example_inputs(discriminator, config.data.channels)),
        },
        phases=turns,
        optimizers={
            player: chainer_adam(rate, iterations, optimizer.b2, optimizer.eps)
            for player, rate in (("g", optimizer.g_lr), ("d", optimizer.d_lr))
        },
        ema=Ema(constant_decay(config.ema.decay), buffers="average"),
        item={
            "clip": jax.ShapeDtypeStruct(
                (generator.frames, height, width, config.data.channels), np.uint8
            )
        },
        draws=sampling.draws,
        sample=sampling.sample,
        sheets=sampling.sheets(),
        videos=sampling.videos(),
    )


def networks(config: Any) -> tuple[Generator, Discriminator]:
    """Generator and discriminator modules for a config."""
    model = config.model
    times = read_clip(config.data.clip).times if config.data.clip else None
    if not isinstance(times, Dense):
        raise ValueError(
            "TGANv2 trains on dense clips. Set config.data.clip.times='dense', as "
            "configs/tganv2.py does."
        )
    frame_strides, batch_strides = tuple(model.frame_strides), tuple(model.batch_strides)
    at_least(config, {"model.levels": 1, "loss.r1_weight": 0, "optimizer.decay_images": 1})
    if min((*frame_strides, *batch_strides), default=1) < 1:
        raise ValueError(
            f"config.model.frame_strides={frame_strides}, batch_strides={batch_strides}: one of so"
            " many is kept; set each to 1 (all) or more."
        )
    kept = math.prod(frame_strides)
    if times.frames % kept:
        raise ValueError(
            f"config.data.clip.frames={times.frames}, of which the last level sees one of {kept} "
            f"(config.model.frame_strides={frame_strides}). Set it to a multiple of {kept}."
        )
    if model.join not in JOINS:
        raise ValueError(
            f"config.model.join={model.join!r}; set it to 'concatenated', as the released code has "
            "it, or 'added', as Eq. 7."
        )
    size, _ = _square(config)
    coarsest = 2 ** (model.levels + 2)
    if size % coarsest:
        raise ValueError(
            f"config.data.resolution={size}: with config.model.levels={model.levels} a multiple "
            f"of {coarsest} is wanted."
        )
    # None computes in the parameters' own precision: float32, or float64 in tests.
    dtype = None if config.precision == "float32" else jnp.dtype(config.precision)
    generator = Generator(
        levels=model.levels,
        frames=times.frames,
        latent_dim=model.latent_dim,
        bottom_width=size // coarsest,
        channels=model.g_channels,
        recurrent_channels=model.recurrent_channels,
        recurrent_layers=model.recurrent_layers,
        forget_bias=model.forget_bias,
        frame_strides=frame_strides,
        batch_strides=batch_strides,
        image_channels=config.data.channels,
        dtype=dtype,
    )
    discriminator = Discriminator(
        model.d_channels, join=JOINS[model.join], batch_strides=batch_strides, dtype=dtype
    )
    return generator, discriminator


def _square(config: Any) -> tuple[int, int]:
    size = config.data.resolution
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    if height != width:
        raise ValueError(
            f"config.data.resolution={height}x{width}: TGANv2's networks are square. Set "
            "config.data.resolution to one number."
        )
    return height, width
