"""StyleGAN3's phases are StyleGAN2's, without path lengths and style mixing (appendix F).

    g/main   non-saturating logistic loss
    d/main   logistic loss; moves the running means of w and of the layers' input magnitudes
    d/r1     gradient penalty on reals, every 16 steps

In configuration R D sees blurred images at first. Means of magnitudes have a half-life in images.
"""

from typing import Any

from ganjax.adversarial.ada import from_config
from ganjax.families.stylegan2.networks import Discriminator
from ganjax.families.stylegan2.phases import Blur, Losses
from ganjax.families.stylegan3.networks import Generator


def losses(generator: Generator, discriminator: Discriminator, config: Any) -> Losses:
    """StyleGAN2's, by a config's sections ``loss``, ``augment`` and ``train``."""
    loss = config.loss
    return Losses(
        generator,
        discriminator,
        r1_gamma=loss.r1_gamma,
        path_weight=0.0,
        augment=from_config(config.augment, config.train.batch),
        blur=blur(float(loss.blur_sigma), float(loss.blur_fade_images)),
    )


def blur(sigma: float, fade_images: float) -> Blur | None:
    """Of the discriminator's input at first; a sigma of 0 pixels: none.

    Raises:
        ValueError: a blur that does not fade.
    """
    if not sigma:
        return None
    if fade_images <= 0:
        raise ValueError(
            f"config.loss.blur_fade_images={fade_images:g} with a blur; set it to the images after"
            " which there is none, or config.loss.blur_sigma to 0"
        )
    return Blur(sigma, fade_images)


def magnitude_beta(batch: int, half_life_images: float) -> float:
    """Share of the old mean of magnitudes in a new one, a step being `batch` images."""
    return 0.5 ** (batch / half_life_images)
