"""A tiny CLIP of the built-in captioned shapes, for text-to-image GANs and for metrics on a laptop.

    python -m ganjax.pretrained.train_clip --config=configs/clip.py --out=runs/clip

preset   what it is
-------  ------------------------------------------------------------------------------------------
shapes   what `clip-shapes` is trained by where it is first wanted. CPU, a minute or two.

Any value can be overridden: ``--config.steps=2000``. No family: a network that others look through.
"""

import dataclasses

import ml_collections

from ganjax.config import choose_preset
from ganjax.pretrained.clip_shapes import Training


def get_config(preset: str = "shapes") -> ml_collections.ConfigDict:
    """The config of a preset."""
    return choose_preset(PRESETS, preset)()


def shapes():
    """Convolutions that look at 32x32 pixels, and a transformer of one layer that reads."""
    return ml_collections.ConfigDict(dataclasses.asdict(Training()))


PRESETS = {"shapes": shapes}
