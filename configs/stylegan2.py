"""StyleGAN2 (Karras et al. 2020).

    python -m ganjax.main --config=configs/stylegan2.py             # digits: CPU, minutes
    python -m ganjax.main --config=configs/stylegan2.py:ffhq256     # on a TPU

preset        what it is, and its source
------------  -----------------------------------------------------------------------------------
digits        1,797 handwritten digits, built in. CPU.
shapes        procedural coloured shapes, built in. CPU.
cifar10       "cifar" of stylegan2-ada-pytorch's train.py, class-conditional, without ADA.
ffhq256       "paper256" of stylegan2-ada-pytorch's train.py, without ADA.
ffhq1024      "paper1024" of the same: config F of the StyleGAN2 paper.

Any value can be overridden: ``--config.train.images=50000``. Counts are in images of the real
stream that the discriminator sees; a step consumes ``batch`` of them.
"""

import ml_collections

from ganjax.config import choose_preset
from ganjax.families import stylegan2


def get_config(preset: str = "digits") -> ml_collections.ConfigDict:
    """The config of a preset."""
    return choose_preset(PRESETS, preset)()


def tiny(preset: str = "digits") -> ml_collections.ConfigDict:
    """A preset shrunk until a test can run it: same code paths, built-in data."""
    config = get_config(preset)
    config.data.update(source="digits", classes=10, resolution=16, prefetch=1, threads=0)
    config.model.update(
        g_channel_base=64,
        d_channel_base=64,
        channel_max=8,
        latent_dim=8,
        w_dim=8,
        mapping_layers=2,
    )
    config.train.update(batch=8, images=3 * 8)
    config.evaluate.every_images = 0
    return config


def base() -> ml_collections.ConfigDict:
    """What the presets share: "stylegan2" of stylegan2-ada-pytorch's train.py."""
    return ml_collections.ConfigDict(
        dict(
            family=stylegan2.__name__,
            seed=0,
            precision="auto",  # compute dtype: bfloat16 on accelerators, float32 on CPU
            data=dict(
                source="digits",  # digits, shapes, folder, zip, tfds, records
                path="",  # folder, zip file or record shards
                name="",  # TFDS dataset
                split="train",
                resolution=32,  # pixels, a power of two
                channels=3,
                classes=10,
                flip=False,  # mirror half of the images
                max_broken=10,  # unreadable images to skip before giving up
                threads=2,
                prefetch=8,  # batches
            ),
            model=dict(
                conditional=False,  # on the class
                latent_dim=512,
                w_dim=512,
                mapping_layers=8,
                g_channel_base=32768,  # channels at a resolution: this divided by it
                d_channel_base=32768,
                channel_max=512,  # ... and at most this
                g_architecture="skip",  # skip, resnet, orig
                d_architecture="resnet",  # resnet, skip, orig
                group_size=4,  # of the standard deviation over the minibatch
                narrow=4,  # highest resolutions that are computed in `precision`
                clamp=256.0,  # limit of what convolutions return; 0: none
            ),
            loss=dict(
                r1_gamma=10.0,  # 0: no gradient penalty
                r1_every=16,  # steps
                path_weight=2.0,  # 0: no path-length regularisation
                path_every=4,  # steps
                path_decay=0.01,
                path_shrink=2,  # path lengths are of this part of a batch
                mixing=0.9,  # probability of styles from two latents
            ),
            train=dict(
                images=25_000_000,
                batch=32,  # real images of a step, over all devices
                microbatches=1,
            ),
            optimizer=dict(g_lr=2e-3, d_lr=2e-3, b1=0.0, b2=0.99, eps=1e-8),
            ema=dict(
                half_life_images=10_000,
                ramp_up=0.0,  # the half-life is at most this share of the images seen; 0: constant
            ),
            mesh=dict(data=-1, expert=1, fsdp=1),  # -1: the remaining devices
            log=dict(
                scalars_every_images=100_000,
                grid_every_images=200_000,
                grid_rows=8,
            ),
            checkpoint=dict(every_images=200_000, keep=3),
            watch=dict(
                every_images=200_000,
                min_diversity=0.05,  # of the real images'
                max_sigma=1e4,
                max_sigma_growth=10.0,  # over what is usual for the layer
                max_logit_gap=50.0,
                min_logit_gap=0.01,  # of the largest so far
                patience=3,  # checks in a row
            ),
            evaluate=dict(
                every_images=0,  # measures and saves; 0: never
                metrics=(),  # the first one chooses the best checkpoint; see --help
                samples=0,  # of the metrics of built-in data; 0: as they state it
            ),
            sample=dict(
                truncation=1.0,  # distance from the mean w that is kept
            ),
        )
    )


def digits():
    """Sizes for two CPU cores; gamma, average and mapping by the rules of the official "auto"."""
    config = base()
    config.data.channels = 1
    config.model.update(
        conditional=True,
        latent_dim=64,
        w_dim=64,
        mapping_layers=2,
        g_channel_base=512,
        d_channel_base=512,
        channel_max=64,
    )
    # Such small images need little of the gradient penalty: 0.0002 pixels / batch.
    config.loss.update(r1_gamma=0.01, mixing=0.0)
    config.train.update(images=64_000, batch=32)
    config.optimizer.update(g_lr=2.5e-3, d_lr=2.5e-3)
    config.ema.update(half_life_images=2_000, ramp_up=0.05)
    config.log.update(scalars_every_images=640, grid_every_images=3_200)
    config.checkpoint.every_images = 16_000
    config.watch.every_images = 3_200
    config.evaluate.every_images = 16_000
    return config


def shapes():
    """As digits, in colour."""
    config = digits()
    config.data.update(source="shapes", channels=3, classes=10)
    return config


def cifar10():
    """The official preset has no mixing, no path lengths, and a plain discriminator."""
    config = base()
    config.data.update(source="tfds", name="cifar10", threads=8)
    config.model.update(conditional=True, mapping_layers=2, d_architecture="orig", group_size=32)
    config.loss.update(r1_gamma=0.01, path_weight=0.0, mixing=0.0)
    config.train.update(images=100_000_000, batch=64)
    config.optimizer.update(g_lr=2.5e-3, d_lr=2.5e-3)
    config.ema.update(half_life_images=500_000, ramp_up=0.05)
    return config


def ffhq256():
    """Half of the channels above 64 pixels."""
    config = base()
    config.data.update(source="records", path="data/ffhq256", resolution=256, flip=True)
    config.data.threads = 16
    config.model.update(g_channel_base=16384, d_channel_base=16384, group_size=8)
    config.loss.r1_gamma = 1.0
    config.train.batch = 64
    config.optimizer.update(g_lr=2.5e-3, d_lr=2.5e-3)
    config.ema.half_life_images = 20_000
    return config


def ffhq1024():
    """30.4 M and 29.0 M parameters."""
    config = base()
    config.data.update(source="records", path="data/ffhq1024", resolution=1024, flip=True)
    config.data.threads = 16
    config.loss.r1_gamma = 2.0
    return config


PRESETS = {preset.__name__: preset for preset in (digits, shapes, cifar10, ffhq256, ffhq1024)}
