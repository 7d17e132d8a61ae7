"""StyleGAN2 (Karras et al. 2020).

    python -m ganjax.main --config=configs/stylegan2.py             # digits: CPU, minutes
    python -m ganjax.main --config=configs/stylegan2.py:ffhq256     # on a TPU

preset          what it is, and its source
--------------  ---------------------------------------------------------------------------------
digits          1,797 handwritten digits, built in. CPU.
warped_digits   the same under random affine maps and waves, built in. CPU.
shapes          procedural coloured shapes, built in. CPU.
cifar10         "cifar" of stylegan2-ada-pytorch's train.py, class-conditional, with ADA.
imagenet128     size of the MTM paper's table 4; the rest, which it does not state, by `auto`.
lsun_church256  config F with gamma 100: the command in the README of NVlabs/stylegan2.
lsun_cat256     config F: likewise.
taichi256       frames of TaiChi, of which the MTM paper states no settings: by `auto`.
ffhq256         "paper256" of stylegan2-ada-pytorch's train.py, with ADA.
ffhq1024        "paper1024" of the same: config F of the StyleGAN2 paper, without ADA.
auto            your data: batch, gamma, average, channels and rates by the official rules from
                resolution and devices; a run prints each with its rule. With ADA.

And with the modulated transformation module at low resolutions, nothing else (docs/mtm.md):

digits_mtm
warped_digits_mtm
shapes_mtm
imagenet128_mtm       FID 19.16 in the paper, 21.14 without.
lsun_church256_mtm    2.32, 4.04 without.
lsun_cat256_mtm       5.92, 6.87 without.
taichi256_mtm         the paper has it in StyleGAN3: 13.60, 21.36 without.

Data that is not built in is made ready once (docs/data.md); without it a run says how:

    tfds build cifar10 --file_format=array_record
    python -m ganjax.data.prepare --source=folder --path=ILSVRC/train --out=data/imagenet128 \\
        --resolution=128
    python -m ganjax.data.prepare --source=zip --path=ffhq.zip --out=data/ffhq256 --resolution=256

LSUN comes as LMDB: ``python data.py export church_outdoor_train_lmdb --out_dir church --flat`` of
github.com/fyu/lsun makes a folder of it. TaiChi-HD: the loader of
github.com/AliaksandrSiarohin/video-preprocessing makes a folder of frames of each clip; a file
``dataset.json`` beside them with ``{"labels": null}`` says that folders are no classes. Your own:

    python -m ganjax.data.prepare --source=folder --path=PICTURES --out=data/pets --resolution=256
    python -m ganjax.main --config=configs/stylegan2.py:auto --config.data.path=data/pets \\
        --config.data.classes=0

Any value can be overridden: ``--config.train.images=50000``. Counts are in images of the real
stream that the discriminator sees; a step consumes ``batch`` of them.
"""

import functools

import ml_collections

from ganjax import defaults
from ganjax.config import choose_preset
from ganjax.families import stylegan2


def get_config(preset: str = "digits") -> ml_collections.ConfigDict:
    """The config of a preset."""
    return choose_preset(PRESETS, preset)()


def tiny(preset: str = "digits") -> ml_collections.ConfigDict:
    """A preset shrunk until a test can run it: same code paths, built-in data."""
    config = _settled(get_config(preset))
    config.data.update(source="digits", classes=10, resolution=16, prefetch=1, threads=0)
    config.model.update(
        g_channel_base=64,
        d_channel_base=64,
        channel_max=8,
        latent_dim=8,
        w_dim=8,
        mapping_layers=2,
    )
    config.loss.update(path_weight=2.0, path_every=2, r1_every=2)  # all phases, and soon
    config.train.update(batch=8, images=3 * 8)
    config.evaluate.every_images = 0
    return config


def base() -> ml_collections.ConfigDict:
    """What the presets share: "stylegan2" of stylegan2-ada-pytorch's train.py."""
    return defaults.config(
        stylegan2.__name__,
        model=dict(
            conditional=False,  # on the class
            latent_dim=512,
            w_dim=512,
            mapping_layers=8,
            g_channel_base=32768,  # channels at a resolution: this divided by it
            d_channel_base=32768,
            channel_max=512,  # ... and at most this
            mtm=(),  # the transformation module at "low", "mid", "high", or at resolutions
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
        augment=defaults.augment(),
        train=dict(
            images=25_000_000,
            batch=32,  # real images of a step, over all devices
            microbatches=1,
        ),
        optimizer=dict(g_lr=2e-3, d_lr=2e-3, b1=0.0, b2=0.99, eps=1e-8),
        ema=dict(
            half_life_images=10_000.0,
            ramp_up=0.0,  # the half-life is at most this share of the images seen; 0: constant
        ),
        sample=dict(
            truncation=1.0,  # distance from the mean w that is kept
        ),
    )


def digits():
    """Sizes for two CPU cores, without path lengths; what comes of them: docs/stylegan2.md."""
    config = base()
    config.data.channels = 1
    config.model.update(
        conditional=True,
        latent_dim=64,
        w_dim=64,
        mapping_layers=2,
        g_channel_base=256,
        d_channel_base=256,
        channel_max=64,
    )
    # Gamma and batch by trial; "auto" would give 0.006 and 32, "cifar" has 0.01 and 64.
    config.loss.update(r1_gamma=0.3, path_weight=0.0, mixing=0.0)
    config.train.update(images=64_000, batch=16)
    # Rates, average and mapping by the rules of the official "auto".
    config.optimizer.update(g_lr=2.5e-3, d_lr=2.5e-3)
    config.ema.update(half_life_images=2_000, ramp_up=0.05)
    defaults.for_minutes(config)
    return config


def warped_digits():
    """Digits, where geometry is most of the variation; small ones, to see more of them."""
    config = digits()
    config.data.update(source="warped_digits", resolution=16)
    config.train.images = 128_000
    return config


def shapes():
    """As digits, in colour."""
    config = digits()
    config.data.update(source="shapes", channels=3, classes=10)
    return config


def cifar10():
    """The official preset has no mixing, no path lengths, and a plain discriminator."""
    config = base()
    config.data.update(source="tfds", name="cifar10")
    config.model.update(conditional=True, mapping_layers=2, d_architecture="orig", group_size=32)
    config.loss.update(r1_gamma=0.01, path_weight=0.0, mixing=0.0)
    config.augment.mode = "ada"
    config.train.update(images=100_000_000, batch=64)
    config.optimizer.update(g_lr=2.5e-3, d_lr=2.5e-3)
    config.ema.update(half_life_images=500_000, ramp_up=0.05)
    return config


def imagenet128():
    """27.75 M parameters in G, where the MTM paper's table 4 has 27.78 M; without classes.

    The paper states no other setting: these are those of `auto` on 8 devices, without ADA.
    """
    config = auto()
    defaults.prepared(config, "imagenet128", resolution=128, classes=1000)
    config.model.update(g_channel_base=32768, d_channel_base=32768)
    config.augment.mode = "none"
    return _settled(config)


def lsun_church256():
    """Config F with gamma 100 and 88 M images."""
    config = base()
    defaults.prepared(config, "lsun_church256", resolution=256)
    config.loss.r1_gamma = 100.0
    config.train.images = 88_000_000
    return config


def lsun_cat256():
    """Config F with 88 M images."""
    config = base()
    defaults.prepared(config, "lsun_cat256", resolution=256)
    config.train.images = 88_000_000
    return config


def taichi256():
    """Frames as pictures, as in the MTM paper, which states no settings: `auto` on 8 devices.

    Without ADA.
    """
    config = auto()
    defaults.prepared(config, "taichi256", resolution=256)
    config.augment.mode = "none"
    return _settled(config)


def ffhq256():
    """Half of the channels above 64 pixels."""
    config = base()
    defaults.prepared(config, "ffhq256", resolution=256)
    config.data.flip = True
    config.model.update(g_channel_base=16384, d_channel_base=16384, group_size=8)
    config.loss.r1_gamma = 1.0
    config.augment.mode = "ada"
    config.train.batch = 64
    config.optimizer.update(g_lr=2.5e-3, d_lr=2.5e-3)
    config.ema.half_life_images = 20_000.0
    return config


def ffhq1024():
    """30.4 M and 29.0 M parameters."""
    config = base()
    defaults.prepared(config, "ffhq1024", resolution=1024)
    config.data.flip = True
    config.loss.r1_gamma = 2.0
    return config


def auto():
    """For data of one's own; what is None follows from its resolution and the devices."""
    config = base()
    config.data.update(source="records", resolution=256, classes=1)
    for rule in stylegan2.RULES:
        group, _, name = rule.field.rpartition(".")
        with config.ignore_type():
            config[group][name] = None
    config.ema.ramp_up = 0.05
    config.augment.mode = "ada"
    return config


def _settled(config, devices=8):
    """With the values that the rules of `auto` give on so many devices."""
    settled, _ = defaults.follow(stylegan2.RULES, config, devices)
    return settled.unlock()


PRESETS = {
    preset.__name__: preset
    for preset in (
        digits,
        warped_digits,
        shapes,
        cifar10,
        imagenet128,
        lsun_church256,
        lsun_cat256,
        taichi256,
        ffhq256,
        ffhq1024,
        auto,
    )
}


PRESETS |= {
    f"{preset.__name__}_mtm": functools.partial(defaults.with_mtm, preset)
    for preset in (
        digits,
        warped_digits,
        shapes,
        imagenet128,
        lsun_church256,
        lsun_cat256,
        taichi256,
    )
}
