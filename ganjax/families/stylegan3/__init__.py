"""StyleGAN3 (Karras et al., 2021), configurations T and R; D and phases are StyleGAN2's."""

import functools
from typing import Any

import jax.numpy as jnp

from ganjax.config import at_least
from ganjax.families import stylegan2
from ganjax.families.stylegan2.networks import Discriminator, MappingNetwork
from ganjax.families.stylegan3.networks import Conv, Generator, example_inputs
from ganjax.families.stylegan3.phases import losses, magnitude_beta
from ganjax.families.stylegan3.probes import Probes
from ganjax.families.stylegan3.rules import RULES
from ganjax.families.stylegan3.sampling import Sampling
from ganjax.family import Family, Inputs
from ganjax.layers.mtm import ModulatedTransformConv, conv_at

__all__ = ["RULES", "build", "networks"]

LEAST = {"model.margin": 0, "model.magnitude_half_life_images": 1, "loss.blur_sigma": 0}
TransformConv = functools.partial(ModulatedTransformConv, conv=Conv)


def build(config: Any) -> Family:
    """The family for a config of ``configs/stylegan3.py``.

    Raises:
        ValueError: an image size or batch that the networks or phases do not have.
    """
    generator, discriminator = networks(config)
    return stylegan2.assemble(
        config,
        losses(generator, discriminator, config),
        Inputs(*example_inputs(generator)),
        Sampling(generator, config.sample.truncation),
        Probes(generator).by_name(),
    )


def networks(config: Any) -> tuple[Generator, Discriminator]:
    """Generator and discriminator modules for a config."""
    model, data, train = config.model, config.data, config.train
    size = stylegan2.checked(config)
    at_least(config, LEAST)
    mapping = functools.partial(MappingNetwork, layers=model.mapping_layers)
    shared = dict(
        resolution=size,
        image_channels=data.channels,
        classes=data.classes if model.conditional else 0,
        clamp=model.clamp or None,
        narrow=model.narrow,
        # None computes in the parameters' own precision: float32, or float64 in tests.
        dtype=None if config.precision == "float32" else jnp.dtype(config.precision),
    )
    generator = Generator(
        latent_dim=model.latent_dim,
        w_dim=model.w_dim,
        channel_base=model.g_channel_base,
        channel_max=model.g_channel_max,
        layers=model.layers,
        critical=model.critical,
        margin=model.margin,
        kernel_size=model.kernel_size,
        radial=model.radial,
        magnitude_beta=magnitude_beta(train.batch, float(model.magnitude_half_life_images)),
        mapping_network=mapping,
        **shared,
    )
    rates = (int(signal.rate) for signal in generator.signals())
    generator = generator.clone(conv_at=conv_at(model.mtm, rates, TransformConv))
    discriminator = Discriminator(
        channel_base=model.d_channel_base,
        channel_max=model.d_channel_max,
        group_size=model.group_size,
        lanes=config.lanes,
        **shared,
    )
    return generator, discriminator
