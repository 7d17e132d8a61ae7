"""TGANv2 (Saito et al. 2020).

    python -m ganjax.main --config=configs/tganv2.py             # shapes: CPU
    python -m ganjax.main --config=configs/tganv2.py:ucf101_192  # the paper's, on accelerators

preset            what it is, and its source
----------------  -------------------------------------------------------------------------------
shapes            built-in videos of moving shapes, 32x32, 3 levels. CPU.
ucf101_192        the paper's, "TGANv2 (bs=64)" of Tables 1 and 2: Inception Score 22.70.
faceforensics256  Section 5.3: faces at 256x256, 64 videos over 8 devices.

Data that is not built in is made ready once (docs/data.md); without it a run says how:

    tfds build ucf101/ucf101_1 --file_format=array_record
    python -m ganjax.data.prepare --videos --source=folder --path=FACES --resolution=256 \\
        --out=data/faceforensics256

Any value can be overridden: ``--config.train.batch=256`` is the paper's other run. Its Table 1's
variants: ``--config.model.batch_strides="(1, 1, 1)"``, likewise ``frame_strides``. Counts are in
videos of the real stream, of which a step consumes ``batch``.
"""

import ml_collections

from ganjax import defaults
from ganjax.config import choose_preset
from ganjax.families import tganv2


def get_config(preset: str = "shapes") -> ml_collections.ConfigDict:
    """The config of a preset."""
    return choose_preset(PRESETS, preset)()


def tiny(preset: str = "shapes") -> ml_collections.ConfigDict:
    """A preset shrunk until a test can run it: same code paths, built-in data."""
    config = get_config(preset)
    config.data.update(source="shapes", classes=10, resolution=16, prefetch=1, threads=0)
    config.data.clip.frames = 4
    config.model.update(
        levels=2,
        frame_strides=(2,),
        batch_strides=(2,),
        g_channels=1,
        d_channels=2,
        recurrent_channels=4,
        latent_dim=8,
    )
    config.train.update(batch=16, images=3 * 16)  # two a device of eight, and one of those left
    config.optimizer.decay_images = 160
    config.sample.frames = 4
    config.evaluate.every_images = 0
    return config


def base() -> ml_collections.ConfigDict:
    """What the presets share: the paper's Section 5.2 and the released configuration."""
    config = defaults.config(
        tganv2.__name__,
        model=dict(
            levels=4,  # resolutions that are rendered and judged
            frame_strides=(2, 2, 2),  # from one level to the next one of so many frames is kept
            batch_strides=(2, 2, 2),  # ... and one of so many videos; 1: all
            join="concatenated",  # logits of the levels: as released; added: Eq. 7
            latent_dim=256,
            g_channels=32,  # of the last block
            recurrent_channels=1024,
            recurrent_layers=1,
            forget_bias=0.0,  # at initialisation, of the recurrent layers' forget gates
            d_channels=64,  # of the first block
        ),
        loss=dict(r1_weight=0.5),  # summed over levels and videos (Eq. 10)
        train=dict(
            images=100_000 * 64,
            batch=64,  # videos of the first level, over all devices
        ),
        optimizer=dict(
            g_lr=1e-4,
            d_lr=1e-4,
            b2=0.9,  # b1 is 0
            eps=8e-8,
            decay_images=100_000 * 64,  # until the rates are 0
        ),
        ema=dict(decay=0.0),  # the paper averages nothing
        sample=dict(
            frames=16,  # of a video; the recurrent layers can go on
        ),
    )
    config.data.clip = dict(times="dense", frames=16, stride=1, max_frames=None, rate=25.0)
    return config


def shapes():
    """Sizes for two CPU cores; what is known of it: docs/tganv2.md."""
    config = base()
    config.data.update(source="shapes", classes=10)
    config.model.update(
        levels=3,
        frame_strides=(2, 2),
        batch_strides=(2, 2),
        latent_dim=64,
        g_channels=6,
        recurrent_channels=128,
        forget_bias=2.5,  # a latent lasts for all 16 frames from the first step on
        d_channels=10,
    )
    # Summed over pixels, gradients of so small videos need little of it.
    config.loss.r1_weight = 0.001
    config.train.update(images=24_000, batch=16)
    # Rates do not reach 0: near it the discriminators get ahead.
    config.optimizer.update(g_lr=5e-4, d_lr=2e-3, b2=0.99, decay_images=32_000)
    defaults.for_minutes(config)
    return config


def ucf101_192():
    """16 frames of 192x192 pixels; G 88,032,460 parameters, D 116,077,060."""
    config = base()
    config.data.update(
        source="tfds", name="ucf101/ucf101_1", resolution=192, classes=101, flip=True
    )
    return config


def faceforensics256():
    """Likewise, of 256x256 pixels."""
    config = base()
    defaults.prepared(config, "faceforensics256", resolution=256)
    return config


PRESETS = {preset.__name__: preset for preset in (shapes, ucf101_192, faceforensics256)}
