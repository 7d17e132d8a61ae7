"""BigGAN (Brock et al. 2019) and its SAGAN baseline.

    python -m ganjax.main --config=configs/biggan.py               # digits: CPU, minutes
    python -m ganjax.main --config=configs/biggan.py:imagenet128   # the paper's, on a TPU pod

preset        what it is, and its source
------------  -----------------------------------------------------------------------------------
digits        1,797 handwritten digits, built in. Two CPU cores, under ten minutes.
shapes        procedural coloured shapes, built in. CPU; hard for so small a network.
cifar10       the official PyTorch code's scripts/launch_cifar_ema.sh. One GPU.
sagan128      SAGAN baseline, row 1 of Table 1: batch 256, 64 channels, no embedding shared.
imagenet128   the paper's, Table 1 with all on: batch 2048, 96 channels. v5e:16x16.
imagenet256   the paper's, Table 2 and appendix B.
imagenet512   the paper's, Table 2 and appendix B.

Data that is not built in is made ready once (docs/data.md); without it a run says how:

    tfds build cifar10 --file_format=array_record
    python -m ganjax.data.prepare --source=folder --path=ILSVRC/train --out=data/imagenet128 \\
        --resolution=128

Any value can be overridden: ``--config.train.images=50000``. Counts are in images of the real
stream that the discriminator sees; a step consumes ``d_steps * batch`` of them.
"""

import ml_collections

from ganjax import defaults
from ganjax.config import choose_preset
from ganjax.families import biggan


def get_config(preset: str = "digits") -> ml_collections.ConfigDict:
    """The config of a preset."""
    return choose_preset(PRESETS, preset)()


def tiny(preset: str = "digits") -> ml_collections.ConfigDict:
    """A preset shrunk until a test can run it: same code paths, built-in data."""
    config = get_config(preset)
    config.data.update(source="digits", classes=10, resolution=32, prefetch=1, threads=0)
    config.model.update(g_channels=2, d_channels=2, latent_dim=8, shared_dim=4)
    config.train.update(batch=8, images=3 * 8 * config.train.d_steps)
    config.ema.start_step = min(config.ema.start_step, 2)
    config.evaluate.every_images = 0
    return config


def base() -> ml_collections.ConfigDict:
    """What the presets share; the optimisation is the paper's (section 2 and appendix C)."""
    config = defaults.config(
        biggan.__name__,
        model=dict(
            architecture="biggan",  # biggan, biggan_deep
            g_channels=96,  # the paper's Ch.
            d_channels=96,
            latent_dim=120,
            shared_dim=128,  # 0: an embedding of its own for each layer (Table 1's Shared)
            hierarchical=True,  # Table 1's Hier.
            attention=(64,),  # resolutions with self-attention
            initializer="orthogonal",  # orthogonal, normal, xavier
            bn_eps=1e-4,
            sn_eps=1e-4,
        ),
        train=dict(
            images=0,
            batch=2048,  # real images of an optimizer step, over all devices
            d_steps=2,
            d_microbatches=1,
            g_microbatches=1,
        ),
        optimizer=dict(
            g_lr=5e-5,
            d_lr=2e-4,
            b1=0.0,
            b2=0.999,
            eps=1e-8,
            g_ortho=1e-4,  # Eq. 3
            d_ortho=0.0,
        ),
        ema=dict(decay=0.9999, start_step=20_000),  # per generator step
        sample=dict(
            standing=16,  # passes for standing statistics; 0: running averages
        ),
    )
    config.log.grid_every_images = 1_000_000
    config.watch.every_images = 1_000_000
    config.checkpoint.every_images = 4_000_000
    return config


def digits():
    """Sizes for two CPU cores; what comes of them: docs/digits.md."""
    config = base()
    config.model.update(
        g_channels=8, d_channels=8, latent_dim=40, shared_dim=16, attention=(), bn_eps=1e-5
    )
    config.data.channels = 1
    config.train.update(images=64_000, batch=32)
    config.optimizer.update(g_lr=1e-3, d_lr=1e-3)
    config.ema.update(decay=0.99, start_step=100)
    defaults.for_minutes(config)
    return config


def shapes():
    """As digits, in colour."""
    config = digits()
    config.data.update(source="shapes", channels=3, classes=10)
    return config


def cifar10():
    """scripts/launch_cifar_ema.sh of the official PyTorch code: 500 epochs of 50,000."""
    config = base()
    config.data.update(source="tfds", name="cifar10")
    config.model.update(
        g_channels=64,
        d_channels=64,
        latent_dim=128,
        shared_dim=0,
        hierarchical=False,
        attention=(),
        initializer="normal",
        bn_eps=1e-5,
        sn_eps=1e-8,
    )
    config.train.update(images=25_000_000, batch=50, d_steps=4)
    config.optimizer.update(g_lr=2e-4, d_lr=2e-4, g_ortho=0.0)
    config.ema.start_step = 1000
    config.log.update(scalars_every_images=10_000, grid_every_images=100_000)
    config.checkpoint.every_images = 500_000
    return config


def imagenet128():
    """Shared, hierarchical and orthogonal in Table 1: FID 8.51 after 165k generator steps."""
    config = base()
    defaults.prepared(config, "imagenet128", resolution=128, classes=1000)
    config.train.images = 165_000 * 2 * 2048
    return config


def imagenet256():
    """Latents of 140 (appendix B)."""
    config = imagenet128()
    config.data.update(path="data/imagenet256", resolution=256)
    config.model.latent_dim = 140
    return config


def imagenet512():
    """Latents of 160 (appendix B)."""
    config = imagenet128()
    config.data.update(path="data/imagenet512", resolution=512)
    config.model.latent_dim = 160
    return config


def sagan128():
    """Row 1 of Table 1, with SAGAN's learning rates and one discriminator step."""
    config = imagenet128()
    config.model.update(
        g_channels=64, d_channels=64, latent_dim=128, shared_dim=0, hierarchical=False
    )
    config.train.update(images=1_000_000 * 256, batch=256, d_steps=1)
    config.optimizer.update(g_lr=1e-4, d_lr=4e-4, g_ortho=0.0)
    config.ema.update(decay=0.999, start_step=0)
    return config


PRESETS = {
    preset.__name__: preset
    for preset in (digits, shapes, cifar10, sagan128, imagenet128, imagenet256, imagenet512)
}
