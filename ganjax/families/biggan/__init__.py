"""BigGAN, BigGAN-deep and their SAGAN baseline (Brock et al. 2019)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ganjax.adversarial.penalties import add_orthogonal_gradient
from ganjax.adversarial.state import Ema, adam, constant_decay
from ganjax.families.biggan.networks import (
    DeepDiscriminator,
    DeepGenerator,
    Discriminator,
    Generator,
)
from ganjax.families.biggan.phases import Draws, Losses, phases
from ganjax.families.biggan.sampling import Sampling
from ganjax.family import Family, Inputs

ARCHITECTURES = {
    "biggan": (Generator, Discriminator),
    "biggan_deep": (DeepGenerator, DeepDiscriminator),
}


def build(config: Any) -> Family:
    """The family for a config of ``configs/biggan.py``.

    Raises:
      ValueError: an unknown architecture, or a resolution that the networks do not have.
    """
    generator, discriminator = networks(config)
    optimizer, train = config.optimizer, config.train
    label = jax.ShapeDtypeStruct((1,), jnp.int32)
    draws = Draws(generator.latent_dim, config.data.classes)
    sampling = Sampling(generator, standing_batch=train.batch, standing=config.sample.standing)
    height, width = _square(config.data.resolution)
    return Family(
        networks={"g": generator, "d": discriminator},
        inputs={
            "g": Inputs((float32(1, generator.latent_dim), label), {"train": False}),
            "d": Inputs((float32(1, height, width, config.data.channels), label)),
        },
        phases=phases(
            Losses(generator, discriminator),
            draws,
            batch=train.batch,
            d_steps=train.d_steps,
            d_microbatches=train.d_microbatches,
            g_microbatches=train.g_microbatches,
        ),
        optimizers={
            "g": _optimizer(optimizer, optimizer.g_lr, optimizer.g_ortho),
            "d": _optimizer(optimizer, optimizer.d_lr, optimizer.d_ortho),
        },
        ema=Ema(
            constant_decay(config.ema.decay, config.ema.start_step),
            # Spectral vectors and BatchNorm statistics are averaged too, as in the official code.
            buffers="average",
        ),
        item={
            "image": jax.ShapeDtypeStruct((height, width, config.data.channels), np.uint8),
            "label": jax.ShapeDtypeStruct((), np.int32),
        },
        draws=sampling.draws,
        sample=sampling.sample,
        ready=sampling.ready,
        sheets=sampling.sheets(),
        videos=sampling.videos(),
    )


def float32(*shape: int) -> jax.ShapeDtypeStruct:
    """An abstract float32 array."""
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def networks(config: Any) -> tuple[Any, Any]:
    """Generator and discriminator modules for a config."""
    model = config.model
    if model.architecture not in ARCHITECTURES:
        raise ValueError(
            f"config.model.architecture={model.architecture!r}; ganjax has "
            f"{sorted(ARCHITECTURES)}. Set one of them."
        )
    for name, value in (
        ("model.shared_dim", model.shared_dim),
        ("model.bn_eps", model.bn_eps),
        ("model.sn_eps", model.sn_eps),
        ("sample.standing", config.sample.standing),
    ):
        if value < 0:
            raise ValueError(f"config.{name}={value}; set it to 0 or more.")
    for size in model.attention:
        if size < 4 or size & (size - 1):
            raise ValueError(
                f"config.model.attention={tuple(model.attention)}: no feature map is "
                f"{size}x{size}. Set powers of two, as (64,), or () for none."
            )
    generator, discriminator = ARCHITECTURES[model.architecture]
    resolution, _ = _square(config.data.resolution)
    shared = dict(
        resolution=resolution,
        classes=config.data.classes,
        image_channels=config.data.channels,
        attention=tuple(model.attention),
        initializer=model.initializer,
        sn_eps=model.sn_eps,
        # None computes in the parameters' own precision: float32, or float64 in tests.
        dtype=None if config.precision == "float32" else jnp.dtype(config.precision),
    )
    return (
        generator(
            channels=model.g_channels,
            latent_dim=model.latent_dim,
            shared_dim=model.shared_dim,
            hierarchical=model.hierarchical,
            bn_eps=model.bn_eps,
            **shared,
        ),
        discriminator(channels=model.d_channels, **shared),
    )


def _optimizer(config, learning_rate: float, strength: float) -> optax.GradientTransformation:
    descend = adam(learning_rate, config.b1, config.b2, config.eps)
    if not strength:
        return descend
    # The official code spares the generator's shared embedding, and no other table.
    ortho = add_orthogonal_gradient(strength, exclude=r"^shared/", embeddings=r"embedding$")
    return optax.chain(ortho, descend)


def _square(resolution) -> tuple[int, int]:
    height, width = (resolution, resolution) if isinstance(resolution, int) else tuple(resolution)
    if height != width:
        raise ValueError(
            f"config.data.resolution={height}x{width}: BigGAN's networks are square. "
            "Set config.data.resolution to one number."
        )
    return height, width
