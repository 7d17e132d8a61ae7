"""StyleGAN-V (Skorokhodov et al. 2022).

    python -m ganjax.main --config=configs/styleganv.py                     # shapes: CPU, minutes
    python -m ganjax.main --config=configs/styleganv.py:faceforensics256    # on a TPU

preset             what it is, and its source
-----------------  ------------------------------------------------------------------------------
shapes             procedural shapes that move, built in. CPU.
faceforensics256   "stylegan-v" of the released configs: "auto" of its train.py, with ADA.
sky_timelapse256   the same, motion codes 256 frames apart (section 4.1 and appendix B.3).
ucf101_256         as faceforensics256.
rainbow_jelly256   as faceforensics256.
mead1024           as faceforensics256 at 1024 pixels.

All have the released discriminator, which projects on distances between frames. The paper's, which
also modulates convolutions: ``--config.model.discriminator=paper`` (docs/styleganv.md, with the
ablations of the paper's tables 2 and 3).

Data that is not built in is made ready once (docs/data.md); without it a run says how:

    python -m ganjax.data.prepare --videos --source=folder --path=VIDEOS --out=data/ffs256 \\
        --resolution=256

Any value can be overridden: ``--config.data.clip.frames=2``. Counts are in clips of the real stream
that the discriminator sees; a step consumes ``batch`` of them.
"""

import ml_collections

from ganjax import defaults
from ganjax.config import choose_preset
from ganjax.families import styleganv


def get_config(preset: str = "shapes") -> ml_collections.ConfigDict:
    """The config of a preset."""
    return choose_preset(PRESETS, preset)()


def tiny(preset: str = "shapes") -> ml_collections.ConfigDict:
    """A preset shrunk until a test can run it: same code paths, built-in data."""
    config = _settled(get_config(preset))
    config.data.update(source="shapes", path="", classes=10, resolution=16, prefetch=1, threads=0)
    config.data.clip.max_frames = 64
    config.model.update(
        g_channel_base=64,
        d_channel_base=64,
        channel_max=8,
        latent_dim=8,
        w_dim=8,
        mapping_layers=2,
        motion_noise_dim=8,
        motion_dim=8,
        motion_taps=3,
        waves=4,
        join_resolution=8,
        told_dim=8,
    )
    config.loss.r1_every = 2  # all phases, and soon
    config.train.update(batch=8, images=3 * 8)
    config.evaluate.every_images = 0
    return config


def base() -> ml_collections.ConfigDict:
    """What the presets share: configs/ of universome/stylegan-v, for 256 pixels."""
    config = defaults.config(
        styleganv.__name__,
        model=dict(
            conditional=False,  # on the class
            latent_dim=512,
            w_dim=512,
            mapping_layers=2,
            g_channel_base=16384,  # channels at a resolution: this divided by it
            d_channel_base=16384,
            channel_max=512,  # ... and at most this
            mtm=(),  # the transformation module at "low", "mid", "high", or at resolutions
            g_architecture="skip",  # skip, resnet, orig
            d_architecture="resnet",  # resnet, orig
            group_size=4,  # clips, of the standard deviation over the minibatch
            narrow=4,  # highest resolutions that are computed in `precision`
            clamp=256.0,  # limit of what convolutions return; 0: none
            trajectory="conv",  # what makes codes of noise: conv, lstm
            motion_noise_dim=512,
            motion_dim=512,  # of codes
            motion_taps=11,  # of each of two convolutions over codes
            motion_distance=16,  # frames between codes
            encoding="waves",  # what makes motion of codes: waves, mapped
            waves=256,
            shortest_period=16.0,  # of waves, in frames
            longest_period=1024.0,
            spacing="octaves",  # of periods: octaves (released code), linear (paper, Eq. 6)
            join="constant",  # motion goes to the constant, to styles, or is added to these
            discriminator="released",  # released, paper: the paper's modulates convolutions
            join_resolution=16,  # pixels of the features that are joined over frames
            join_share=2,  # one of so many of their channels is kept
            told_dim=256,  # entries that stand for a distance between frames
            projected="told",  # what D projects on: told (distances), blank (zeros)
            modulated="told",  # what modulates the paper's D: likewise
        ),
        loss=dict(
            r1_gamma=0.2048,  # 0: no gradient penalty
            r1_every=16,  # steps
            g_lazy=4,  # G's Adam is corrected as if regularised every so many steps; 0: not
        ),
        augment=defaults.augment(),
        train=dict(
            images=25_000_000 // 3,  # clips, of 3 frames
            batch=64,  # real clips of a step, over all devices
            microbatches=1,
        ),
        optimizer=dict(g_lr=2.5e-3, d_lr=2.5e-3, b1=0.0, b2=0.99, eps=1e-8),
        ema=dict(
            half_life_images=20_000.0,
            ramp_up=0.0,  # the half-life is at most this share of the clips seen; 0: constant
        ),
        sample=dict(
            truncation=1.0,  # distance from the mean w that is kept
            stride=8,  # frames between the pictures of a strip
        ),
    )
    config.data.clip = ml_collections.ConfigDict(
        dict(
            times="sparse",  # sparse: at random distances; even: at equal ones
            frames=3,  # k
            max_dist=32,  # frames from the first to the last
            dists=(1, 2, 4, 8, 16, 32),  # as likely as each other; the paper's: 2 to 32
            max_frames=1024,  # of longer videos a random part is taken
            rate=25.0,  # frames a second of the data
        )
    )
    # NOTE: the released code takes a run that resumes nothing for one that goes on from weights:
    # ADA is as fast, and the average has no ramp.
    config.augment.ramp_images = 100_000
    return config


def shapes():
    """Sizes for two CPU cores; what comes of them: docs/styleganv.md."""
    config = base()
    config.data.update(source="shapes", resolution=32, channels=3, classes=10)
    config.data.clip.max_frames = 256
    config.model.update(
        conditional=True,
        latent_dim=64,
        w_dim=64,
        g_channel_base=256,
        d_channel_base=256,
        channel_max=64,
        motion_noise_dim=64,
        motion_dim=64,
        motion_distance=64,  # these videos move slowly
        waves=32,
        shortest_period=64.0,
        longest_period=512.0,
        told_dim=64,
    )
    config.loss.r1_gamma = 0.5
    config.train.update(images=128_000, batch=16)
    config.ema.update(half_life_images=2_000, ramp_up=0.05)
    config.log.grid_rows = 6
    defaults.for_minutes(config)
    return config


def _released(name, resolution=256, rate=25.0):
    config = base()
    config.data.clip.rate = rate
    defaults.prepared(config, name, resolution=resolution)
    config.data.flip = True
    config.augment.mode = "ada"
    return config


def faceforensics256():
    """32.1 M and 25.3 M parameters; FVD 47.41 (16 frames) and 89.34 (128) in the paper."""
    return _released("ffs256", rate=30.0)


def sky_timelapse256():
    """79.52 and 197.0."""
    config = _released("sky_timelapse256")
    config.model.update(motion_distance=256, shortest_period=256.0)
    return config


def ucf101_256():
    """1431.0 and 1773.4."""
    return _released("ucf101_256")


def rainbow_jelly256():
    """195.4 and 262.5."""
    return _released("rainbow_jelly256", rate=30.0)


def mead1024():
    """156.1 (16 frames); by "auto" twice the channels, and gamma by the number of pixels."""
    config = _released("mead1024", resolution=1024, rate=30.0)
    config.model.update(g_channel_base=32768, d_channel_base=32768)
    config.loss.r1_gamma = 0.0002 * 1024**2 / 64
    config.optimizer.update(g_lr=2e-3, d_lr=2e-3)
    return config


def _settled(config, devices=8):
    """With the values that the rules give on so many devices, where a preset leaves them None."""
    settled, _ = defaults.follow(styleganv.RULES, config, devices)
    return settled.unlock()


PRESETS = {
    preset.__name__: preset
    for preset in (
        shapes,
        faceforensics256,
        sky_timelapse256,
        ucf101_256,
        rainbow_jelly256,
        mead1024,
    )
}
