"""StyleGAN3 (Karras et al. 2021).

    python -m ganjax.main --config=configs/stylegan3.py             # digits: CPU, minutes
    python -m ganjax.main --config=configs/stylegan3.py:ffhq256     # on a TPU

preset          what it is, and its source
--------------  ---------------------------------------------------------------------------------
digits          1,797 handwritten digits, built in; configuration T. CPU.
shapes          procedural coloured shapes, built in; configuration T. CPU.
ffhq256         T, "FFHQ-U ablations" in docs/configs.md of NVlabs/stylegan3.
ffhq256_r       R, likewise.
ffhq1024        T, "FFHQ-U and FFHQ" in the same file.
ffhq1024_r      R, likewise.
taichi256       T, frames of TaiChi (configs/stylegan2.py), with the settings of ffhq256: the paper
                of the modulated transformation module, which has it in its table 1, states none.
imagenet128     T, with the recommended gamma for 128 pixels; published by nobody.
lsun_church256  T, with the settings of ffhq256; published by nobody.
lsun_cat256     likewise.
auto            T, your data: batch, gamma and average by the official recommendations from
                resolution and devices; a run prints each with its rule. With ADA.

And with that module at low sampling rates, nothing else (docs/mtm.md):

digits_mtm
shapes_mtm
taichi256_mtm    FID 13.60 in the paper, 21.36 without.

T is equivariant to translation, R to rotation, too (docs/stylegan3.md). Your own data:

    python -m ganjax.data.prepare --source=folder --path=PICTURES --out=data/pets --resolution=256
    python -m ganjax.main --config=configs/stylegan3.py:auto --config.data.path=data/pets \\
        --config.data.classes=0

and try other weights of the gradient penalty, ``--config.loss.r1_gamma``, as the official guide
advises.

Any value can be overridden: ``--config.train.images=50000``. Counts are in images of the real
stream that the discriminator sees; a step consumes ``batch`` of them.
"""

import functools

import ml_collections

from ganjax import defaults
from ganjax.config import choose_preset
from ganjax.families import stylegan3


def get_config(preset: str = "digits") -> ml_collections.ConfigDict:
    """The config of a preset."""
    return choose_preset(PRESETS, preset)()


def tiny(preset: str = "digits") -> ml_collections.ConfigDict:
    """A preset shrunk until a test can run it: same code paths, built-in data."""
    config, _ = defaults.follow(stylegan3.RULES, get_config(preset), devices=8)
    config.unlock()
    config.data.update(source="digits", classes=10, resolution=16, prefetch=1, threads=0)
    config.model.update(
        g_channel_base=64,
        g_channel_max=8,
        d_channel_base=64,
        d_channel_max=8,
        latent_dim=8,
        w_dim=8,
        layers=3,
        critical=1,
        margin=2,
    )
    config.train.update(batch=8, images=3 * 8)
    config.evaluate.every_images = 0
    return config


def base() -> ml_collections.ConfigDict:
    """What the presets share: "stylegan3-t" of the official train.py, without ADA."""
    return defaults.config(
        stylegan3.__name__,
        model=dict(
            conditional=False,  # on the class
            latent_dim=512,
            w_dim=512,
            mapping_layers=2,
            layers=14,  # of the generator, but for its input and the one to an image
            critical=2,  # of them, the last ones, that use the whole band
            margin=10,  # pixels beyond each border of the image
            mtm=(),  # the transformation module at "low", "mid", "high", or at sampling rates
            kernel_size=3,  # of the convolutions; R: 1
            radial=False,  # downsample alike in all directions; R: True
            magnitude_half_life_images=20_000,  # of the mean magnitudes of layers' inputs
            g_channel_base=32768,  # channels of a layer: half of this by its cutoff frequency
            g_channel_max=512,  # ... and at most this
            d_channel_base=32768,  # channels at a resolution: this divided by it
            d_channel_max=512,
            group_size=4,  # of the standard deviation over the minibatch
            narrow=4,  # highest resolutions that are computed in `precision`
            clamp=256.0,  # limit of what convolutions return; 0: none
        ),
        loss=dict(
            r1_gamma=8.0,  # 0: no gradient penalty
            r1_every=16,  # steps
            blur_sigma=0.0,  # pixels, of what D sees at first; 0: none
            blur_fade_images=200_000,  # after which nothing is blurred
        ),
        augment=defaults.augment(),
        train=dict(
            images=25_000_000,
            batch=32,  # real images of a step, over all devices
            microbatches=1,
        ),
        optimizer=dict(g_lr=2.5e-3, d_lr=2e-3, b1=0.0, b2=0.99, eps=1e-8),
        ema=dict(
            half_life_images=10_000.0,
            ramp_up=0.05,  # the half-life is at most this share of the images seen; 0: constant
        ),
        sample=dict(
            truncation=1.0,  # distance from the mean w that is kept
        ),
    )


def make_r(config: ml_collections.ConfigDict) -> None:
    """Configuration R: "stylegan3-r" of the official train.py."""
    model, batch = config.model, config.train.batch
    model.update(kernel_size=1, radial=True)
    model.update(g_channel_base=2 * model.g_channel_base, g_channel_max=2 * model.g_channel_max)
    config.loss.update(blur_sigma=10.0, blur_fade_images=batch * 200_000 // 32)


def digits():
    """Sizes for two CPU cores, in small batches; what comes of them: docs/stylegan3.md."""
    config = base()
    config.data.channels = 1
    config.model.update(
        conditional=True,
        latent_dim=64,
        w_dim=64,
        layers=5,
        margin=4,
        magnitude_half_life_images=2_000,
        g_channel_base=256,
        g_channel_max=32,
        d_channel_base=256,
        d_channel_max=64,
    )
    # Gamma and the average's half-life are those of StyleGAN2's digits.
    config.loss.r1_gamma = 0.3
    config.train.update(images=48_000, batch=16)
    config.optimizer.d_lr = 2.5e-3
    config.ema.half_life_images = 2_000.0
    defaults.for_minutes(config)
    return config


def shapes():
    """As digits, in colour."""
    config = digits()
    config.data.update(source="shapes", channels=3)
    return config


def ffhq256():
    """Half of the channels: 23.3 M parameters in G, 24.0 M in D; R: 15.8 M in G."""
    config = base()
    defaults.prepared(config, "ffhq256", resolution=256)
    config.data.flip = True
    config.model.update(g_channel_base=16384, d_channel_base=16384)
    config.loss.r1_gamma = 1.0
    config.train.batch = 64
    config.optimizer.d_lr = 2.5e-3
    config.ema.half_life_images = 20_000.0
    return config


def ffhq256_r():
    """As ffhq256."""
    config = ffhq256()
    make_r(config)
    return config


def ffhq1024():
    """22.3 M parameters in G, 29.0 M in D."""
    config = base()
    defaults.prepared(config, "ffhq1024", resolution=1024)
    config.data.flip = True
    config.loss.r1_gamma = 32.8
    return config


def ffhq1024_r():
    """15.1 M parameters in G."""
    config = ffhq1024()
    make_r(config)
    return config


def _as_ffhq256(name):
    """Without mirroring."""
    config = ffhq256()
    defaults.prepared(config, name, resolution=256)
    config.data.flip = False
    return config


def taichi256():
    """As ffhq256, which it has the size of."""
    return _as_ffhq256("taichi256")


def lsun_church256():
    """As ffhq256."""
    return _as_ffhq256("lsun_church256")


def lsun_cat256():
    """As ffhq256."""
    return _as_ffhq256("lsun_cat256")


def imagenet128():
    """Without classes, as that of StyleGAN2."""
    config = base()
    defaults.prepared(config, "imagenet128", resolution=128, classes=1000)
    config.loss.r1_gamma = 0.5
    return config


def auto():
    """For data of one's own; what is None follows from its resolution and the devices."""
    config = base()
    config.data.update(source="records", resolution=256, classes=1)
    config.augment.mode = "ada"
    for rule in stylegan3.RULES:
        group, _, name = rule.field.rpartition(".")
        with config.ignore_type():
            config[group][name] = None
    return config


PRESETS = {
    preset.__name__: preset
    for preset in (
        digits,
        shapes,
        ffhq256,
        ffhq256_r,
        ffhq1024,
        ffhq1024_r,
        taichi256,
        imagenet128,
        lsun_church256,
        lsun_cat256,
        auto,
    )
}
PRESETS |= {
    f"{preset.__name__}_mtm": functools.partial(defaults.with_mtm, preset)
    for preset in (digits, shapes, taichi256)
}
