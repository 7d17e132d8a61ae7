"""StyleGAN2 (Karras et al., 2020), as in its ADA release (Karras et al., 2020a)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ganjax.adversarial.ada import from_config
from ganjax.adversarial.phases import keep_extras
from ganjax.adversarial.state import Ema, adam
from ganjax.families.stylegan2.networks import (
    Discriminator,
    Generator,
    MappingNetwork,
    example_inputs,
)
from ganjax.families.stylegan2.phases import Losses, finite_gradients, half_life_decay, phases
from ganjax.families.stylegan2.probes import Probes
from ganjax.families.stylegan2.rules import RULES
from ganjax.families.stylegan2.sampling import Sampling
from ganjax.family import Family, Inputs

__all__ = ["RULES", "build", "networks"]


def build(config: Any) -> Family:
    """The family for a config of ``configs/stylegan2.py``.

    Raises:
        ValueError: an image size, architecture or batch that the networks or phases do not have.
    """
    generator, discriminator = networks(config)
    optimizer, loss, train = config.optimizer, config.loss, config.train
    augment = from_config(config.augment, train.batch)
    losses = Losses(
        generator,
        discriminator,
        r1_gamma=loss.r1_gamma,
        mixing=loss.mixing,
        path_weight=loss.path_weight,
        path_decay=loss.path_decay,
        augment=augment,
    )
    sampling = Sampling(generator, config.sample.truncation)
    size = (generator.resolution, generator.resolution, generator.image_channels)
    descend = functools.partial(_optimizer, b1=optimizer.b1, b2=optimizer.b2, eps=optimizer.eps)
    return Family(
        networks={"g": generator, "d": discriminator},
        inputs={
            "g": Inputs(*example_inputs(generator)),
            "d": Inputs(*example_inputs(discriminator)),
        },
        phases=phases(
            losses,
            batch=train.batch,
            microbatches=train.microbatches,
            path_every=loss.path_every,
            path_shrink=loss.path_shrink,
            r1_every=loss.r1_every,
        ),
        optimizers={
            # The correction for lazy regularisation is the official code's even without one.
            "g": descend(optimizer.g_lr, lazy=loss.path_every),
            "d": descend(optimizer.d_lr, lazy=loss.r1_every),
        },
        ema=Ema(
            half_life_decay(train.batch, config.ema.half_life_images, config.ema.ramp_up or None)
        ),
        item={
            "image": jax.ShapeDtypeStruct(size, np.uint8),
            "label": jax.ShapeDtypeStruct((), np.int32),
        },
        draws=sampling.draws,
        sample=sampling.sample,
        sheets=sampling.sheets(),
        videos=sampling.videos(),
        probes=Probes(generator).by_name(),
        extras={
            **({"path_mean": np.zeros((), np.float32)} if loss.path_weight else {}),
            **(augment.extras() if augment else {}),
        },
        adjust=augment.adjust if augment else keep_extras,
    )


def networks(config: Any) -> tuple[Generator, Discriminator]:
    """Generator and discriminator modules for a config."""
    model, data = config.model, config.data
    height, width = (data.resolution,) * 2 if isinstance(data.resolution, int) else data.resolution
    if height != width:
        raise ValueError(
            f"config.data.resolution={height}x{width}: StyleGAN2's networks are square. Set"
            " config.data.resolution to one number."
        )
    shared = dict(
        resolution=height,
        image_channels=data.channels,
        classes=data.classes if model.conditional else 0,
        channel_max=model.channel_max,
        clamp=model.clamp or None,
        narrow=model.narrow,
        # None computes in the parameters' own precision: float32, or float64 in tests.
        dtype=None if config.precision == "float32" else jnp.dtype(config.precision),
    )
    mapping = functools.partial(MappingNetwork, layers=model.mapping_layers)
    generator = Generator(
        latent_dim=model.latent_dim,
        w_dim=model.w_dim,
        channel_base=model.g_channel_base,
        architecture=model.g_architecture,
        mapping_network=mapping,
        **shared,
    )
    discriminator = Discriminator(
        channel_base=model.d_channel_base,
        architecture=model.d_architecture,
        group_size=model.group_size,
        **shared,
    )
    return generator, discriminator


def _optimizer(
    learning_rate: float, *, b1: float, b2: float, eps: float, lazy: int
) -> optax.GradientTransformation:
    return optax.chain(finite_gradients(), adam(learning_rate, b1, b2, eps, lazy=lazy))
