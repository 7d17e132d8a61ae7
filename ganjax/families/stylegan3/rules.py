"""Values of a config from resolution and number of devices, by the official recommendations.

They are those of docs/configs.md and train.py of NVlabs/stylegan3; a config's field that is None
asks for them.
"""

from typing import Any

from ganjax.defaults import FieldRule
from ganjax.families.stylegan2.rules import half_life_images, resolution

BATCH = 32  # of all recommended settings


def batch(config: Any, devices: int) -> int:
    """That of the recommended settings, or one image a device."""
    return max(BATCH, devices)


def r1_gamma(config: Any, devices: int) -> float:
    """2 at 256 pixels, and four times as much for twice the resolution."""
    return 2.0 * (resolution(config) / 256) ** 2


def blur_fade_images(config: Any, devices: int) -> float:
    """200,000 images at batch 32."""
    return config.train.batch * 200_000 / BATCH


_CONFIGS, _TRAIN = "(docs/configs.md of NVlabs/stylegan3)", "(train.py of NVlabs/stylegan3)"

RULES = (
    FieldRule("train.batch", batch, f"32, at least 1 a device {_CONFIGS}"),
    FieldRule("loss.r1_gamma", r1_gamma, f"2 at 256 pixels, by their number {_CONFIGS}"),
    FieldRule("loss.blur_fade_images", blur_fade_images, f"200,000 at batch 32 {_TRAIN}"),
    FieldRule("ema.half_life_images", half_life_images, f"10,000 at batch 32 {_TRAIN}"),
)
