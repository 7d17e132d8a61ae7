"""StyleGAN2 (Karras et al., 2020), as in its ADA release (Karras et al., 2020a)."""

import functools
from collections.abc import Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ganjax.adversarial.ada import from_config
from ganjax.adversarial.phases import keep_extras
from ganjax.adversarial.state import Ema, adam
from ganjax.config import at_least
from ganjax.families.stylegan2.networks import (
    Discriminator,
    Generator,
    MappingNetwork,
    example_inputs,
    resolutions,
)
from ganjax.families.stylegan2.offsets import OffsetSampling
from ganjax.families.stylegan2.phases import Losses, finite_gradients, half_life_decay, phases
from ganjax.families.stylegan2.probes import Probes
from ganjax.families.stylegan2.rules import RULES
from ganjax.families.stylegan2.sampling import Sampling, absent, augmented
from ganjax.family import Family, Inputs, Probe
from ganjax.layers.mtm import conv_at

__all__ = ["RULES", "assemble", "build", "checked", "networks"]

# Less of these is no network, or no step.
LEAST = dict.fromkeys(
    (
        "model.channel_max",
        "model.g_channel_max",
        "model.d_channel_max",
        "model.latent_dim",
        "model.w_dim",
        "model.mapping_layers",
        "model.group_size",
        "train.batch",
        "train.microbatches",
        "loss.path_shrink",
    ),
    1,
) | dict.fromkeys(("model.clamp", "model.narrow", "ema.half_life_images", "ema.ramp_up"), 0)


def build(config: Any) -> Family:
    """The family for a config of ``configs/stylegan2.py``.

    Raises:
        ValueError: an image size, architecture or batch that the networks or phases do not have.
    """
    generator, discriminator = networks(config)
    loss = config.loss
    losses = Losses(
        generator,
        discriminator,
        r1_gamma=loss.r1_gamma,
        mixing=loss.mixing,
        path_weight=loss.path_weight,
        path_decay=loss.path_decay,
        augment=from_config(config.augment, config.train.batch),
    )
    return assemble(
        config,
        losses,
        Inputs(*example_inputs(generator)),
        Sampling(generator, config.sample.truncation),
        Probes(generator).by_name(),
        path_every=loss.path_every,
        path_shrink=loss.path_shrink,
        # The correction for lazy regularisation is the official code's even without one.
        g_lazy=loss.path_every,
    )


def assemble(
    config: Any,
    losses: Losses,
    inputs: Inputs,
    sampling: Sampling,
    probes: Mapping[str, Probe],
    *,
    g_lazy: int = 0,
    path_every: int = 4,
    path_shrink: int = 2,
    touch_all: bool = False,
) -> Family:
    """A family that plays StyleGAN2's phases: this one, StyleGAN3 and StyleGAN-V.

    Args:
        config: its sections ``loss`` (``r1_every``), ``train``, ``optimizer`` and ``ema``.
        losses: hold the networks.
        inputs: of the generator.
        sampling, probes: of the generator.
        g_lazy: the generator's Adam is corrected for a regulariser every so many steps; 0: not.
        path_every, path_shrink, touch_all: as of `phases`.
    """
    generator, discriminator = losses.generator, losses.discriminator
    optimizer, train, augment = config.optimizer, config.train, losses.augment
    size = (generator.resolution, generator.resolution, generator.image_channels)
    shown = OffsetSampling(sampling)
    sheets = shown.sheets()
    sheets["augment"] = (
        augmented(sheets["grid"], augment.pipe)
        if augment
        else absent("augment", "augmentation: train with --config.augment.mode=ada")
    )
    descend = functools.partial(_optimizer, b1=optimizer.b1, b2=optimizer.b2, eps=optimizer.eps)
    return Family(
        networks={"g": cast(nn.Module, generator), "d": discriminator},
        inputs={"g": inputs, "d": Inputs(*example_inputs(discriminator))},
        phases=phases(
            losses,
            batch=train.batch,
            microbatches=train.microbatches,
            path_every=path_every,
            path_shrink=path_shrink,
            r1_every=config.loss.r1_every,
            touch_all=touch_all,
        ),
        optimizers={
            "g": descend(optimizer.g_lr, lazy=g_lazy),
            "d": descend(optimizer.d_lr, lazy=config.loss.r1_every),
        },
        ema=Ema(
            half_life_decay(train.batch, config.ema.half_life_images, config.ema.ramp_up or None)
        ),
        item={
            "image": jax.ShapeDtypeStruct(size, np.uint8),
            "label": jax.ShapeDtypeStruct((), np.int32),
        },
        draws=sampling.draws,
        sample=shown.sample,
        sheets=sheets,
        videos=sampling.videos(),
        probes=probes,
        extras={
            **({"path_mean": np.zeros((), np.float32)} if losses.path_weight else {}),
            **(augment.extras() if augment else {}),
        },
        adjust=augment.adjust if augment else keep_extras,
    )


def networks(config: Any) -> tuple[Generator, Discriminator]:
    """Generator and discriminator modules for a config."""
    model, data = config.model, config.data
    size = checked(config)
    shared = dict(
        resolution=size,
        image_channels=data.channels,
        classes=data.classes if model.conditional else 0,
        channel_max=model.channel_max,
        clamp=model.clamp or None,
        narrow=model.narrow,
        # None computes in the parameters' own precision: float32, or float64 in tests.
        dtype=None if config.precision == "float32" else jnp.dtype(config.precision),
        lanes=config.lanes,
    )
    mapping = functools.partial(MappingNetwork, layers=model.mapping_layers)
    generator = Generator(
        latent_dim=model.latent_dim,
        w_dim=model.w_dim,
        channel_base=model.g_channel_base,
        architecture=model.g_architecture,
        mapping_network=mapping,
        conv_at=conv_at(model.mtm, resolutions(size)),
        **shared,
    )
    discriminator = Discriminator(
        channel_base=model.d_channel_base,
        architecture=model.d_architecture,
        group_size=model.group_size,
        **shared,
    )
    return generator, discriminator


def checked(config: Any) -> int:
    """The images' height, which is their width, of a config of StyleGAN2 or 3.

    Raises:
        ValueError: a size or a count of which there are no networks or batches.
    """
    size = config.data.resolution
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise ValueError(
            f"config.data.resolution={height}x{width}: StyleGAN's networks are square. Set"
            " config.data.resolution to one number."
        )
    at_least(config, LEAST)
    # Fewer leave no channel at the highest resolution.
    at_least(config, dict.fromkeys(("model.g_channel_base", "model.d_channel_base"), height))
    train, group = config.train, config.model.group_size
    seen, rest = divmod(train.batch, train.microbatches)
    if not rest and seen % min(group, seen):
        fits = max(size for size in range(1, group) if seen % size == 0)
        raise ValueError(
            f"config.model.group_size={group}: the {seen} images that D sees at once"
            " (config.train.batch / config.train.microbatches) do not divide into groups of so"
            f" many. Set config.model.group_size to {fits}, or the batch to a multiple of {group}."
        )
    return height


def _optimizer(
    learning_rate: float, *, b1: float, b2: float, eps: float, lazy: int
) -> optax.GradientTransformation:
    return optax.chain(finite_gradients(), adam(learning_rate, b1, b2, eps, lazy=lazy))
