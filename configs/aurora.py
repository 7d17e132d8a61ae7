"""Aurora (Zhu et al. 2023): text to image, with sparse mixtures of experts.

    python -m ganjax.main --config=configs/aurora.py             # captioned shapes: CPU, minutes
    python -m ganjax.main --config=configs/aurora.py:laion64     # on TPUs
    python -m ganjax.main --mode=sample --workdir=... --prompt="a large red circle"

preset   what it is, and its source
-------  ------------------------------------------------------------------------------------------
shapes   coloured shapes and what a text says of them, built in; a tiny CLIP of its own. CPU.
laion64  the generator of the released weights, and the paper's optimizer (section 4.1). What the
         paper does not state is ours: docs/aurora.md.
coco64   the same on COCO's captioned photographs, of which there are far fewer.

Data that is not built in is made ready once (docs/data.md); without it a run says how:

    python -m ganjax.data.prepare --captions --source=webdataset --path=LAION --out=data/laion64 \\
        --resolution=64 --filters 'similarity>=0.3'
    python -m ganjax.data.prepare --captions --source=tfds --name=coco_captions --out=data/coco64 \\
        --resolution=64

The networks grow (section 3.4): a stage ends when samples are as close to real pictures as these
are to one another, or after `grow.most_images`.

Any value can be overridden: ``--config.train.images=50000``. Counts are in images of the real
stream that the discriminator sees; a step consumes ``batch`` of them.
"""

import ml_collections

from ganjax import defaults
from ganjax.config import choose_preset
from ganjax.families import aurora


def get_config(preset: str = "shapes") -> ml_collections.ConfigDict:
    """The config of a preset."""
    return choose_preset(PRESETS, preset)()


def tiny(preset: str = "shapes") -> ml_collections.ConfigDict:
    """A preset shrunk until a test can run it: same code paths, built-in data."""
    config = get_config(preset)
    config.data.update(
        source="captioned_shapes",
        text="clip-shapes",
        path="",
        split="train",
        resolution=8,
        prefetch=1,
        threads=0,
    )
    config.model.update(
        encoder="random",
        latent_dim=4,
        w_dim=8,
        context_dim=8,
        source_features=4,
        channel_base=64,
        channel_max=8,
        blocks=(1, 1),
        kernels=(1, 2),
        experts=(0, 2),
        attention=(0, 1),
        execution=("dropless", "dropless"),
        transformed=4,
        groups=4,
        heads=2,
        head_dim=4,
        text_layers=1,
        text_heads=2,
        mapping_layers=1,
        d_channel_base=64,
        d_channel_max=8,
        d_outputs=(),
        d_attention=(),
        d_predictor_layers=1,
    )
    config.mesh.update(data=-1, expert=1, fsdp=1)
    config.loss.r1_every = 1  # a program for each stage
    config.grow.update(stages=(4, 8), most_images=2 * 8, every_images=0)
    config.train.update(batch=8, images=3 * 8)
    config.evaluate.every_images = 0
    return config


def base() -> ml_collections.ConfigDict:
    """What the presets share: sizes of the released generator, the paper's optimizer."""
    return defaults.config(
        aurora.__name__,
        data=dict(
            text="",  # the CLIP whose vocabulary reads captions
            objects=2,  # in a picture of captioned_shapes at most
            filters=(),  # of a webdataset, as ("similarity>=0.3",)
            embedded=False,  # records hold what the text tower says: prepare --text
        ),
        model=dict(
            encoder="pretrained",  # weights of the CLIP that data.text names; random: of none
            latent_dim=128,
            w_dim=1024,
            context_dim=1024,  # channels of tokens after the text heads
            text_layers=4,  # of both text heads
            text_heads=8,
            text_lr_multiplier=0.01,  # of both text heads
            text_scores="distances",  # of their tokens; itself: as released weights want it
            mapping_layers=4,
            mapping_lr_multiplier=0.01,
            source_features=1600,
            channel_base=16384,  # channels at a resolution: this divided by it
            channel_max=1600,  # ... and at most this
            # Of 4x4, 8x8 and so on:
            blocks=(3, 3, 3, 2, 2),  # convolution blocks
            kernels=(1, 1, 2, 4, 8),  # of which each sample mixes its own
            experts=(0, 4, 8, 16, 16),  # of each feed-forward network
            attention=(0, 2, 2, 2, 1),  # attention blocks after each convolution block
            execution=("dropless",) * 5,  # dropless, capacity, parallel (over mesh.expert)
            capacity_factor=1.25,  # of capacity and parallel: room over an expert's even share
            transformed=32,  # convolutions have offsets at fewer pixels than this
            heads=8,
            head_dim=64,  # 0: of the channels an equal part
            groups=32,  # of the group norms
            d_channel_base=16384,
            d_channel_max=1024,
            d_outputs=(8, 16, 32),  # resolutions with predictions, beside the last one
            d_attention=(8, 16),  # resolutions with self-attention
            d_predictor_layers=4,
            group_size=4,  # of the standard deviation over the minibatch
        ),
        loss=dict(
            r1_gamma=1.0,  # 0: no gradient penalty
            r1_every=16,  # steps
            clip=0.1,  # of the CLIP loss, the mean over resolutions
            match_real=0.5,  # of reals with others' texts, as fakes
            match_fake=0.5,  # of fakes with others' texts
            balance=0.001,  # of the experts' load
            router_z=0.001,  # of the size of the routers' logits
        ),
        grow=dict(
            stages=(4, 8, 16, 32, 64),  # the largest resolution of each; one: no growth
            every_images=2_000_000,  # between measurements; 0: none
            most_images=0,  # of a stage; 0: until samples are close enough
            margin=1.0,  # times the distance of two sets of real pictures
            pictures=10_000,  # of each set
            network="inception-2015-12-05",
            feature="2048",
        ),
        train=dict(
            images=1_000_000_000,
            batch=1024,  # real images of a step, over all devices
            microbatches=1,
            recompute=False,  # G's blocks for their gradients: a third more of G, less memory
        ),
        optimizer=dict(g_lr=2.5e-3, d_lr=2.5e-3, b1=0.0, b2=0.99, eps=1e-8, weight_decay=1e-5),
        ema=dict(
            half_life_images=10_000.0,
            ramp_up=0.0,  # the half-life is at most this share of the images seen; 0: constant
        ),
        sample=dict(
            prompts=(),  # where nobody asks for others
            truncation=1.0,  # distance from a prompt's mean w that is kept
        ),
    )


def shapes():
    """Sizes for four CPU cores and 30 to 40 minutes; what comes of them: docs/aurora.md."""
    config = base()
    config.data.update(
        source="captioned_shapes", text="clip-shapes", resolution=32, classes=1, objects=1
    )
    config.model.update(
        latent_dim=32,
        w_dim=64,
        context_dim=64,
        text_layers=1,
        text_heads=4,
        text_lr_multiplier=0.1,
        mapping_layers=2,
        mapping_lr_multiplier=0.1,
        source_features=32,
        channel_base=512,
        channel_max=64,
        blocks=(1, 1, 1, 1),
        kernels=(1, 2, 1, 1),
        experts=(0, 4, 0, 0),
        attention=(0, 1, 0, 0),
        execution=("dropless",) * 4,
        transformed=8,
        heads=2,
        head_dim=16,
        groups=8,
        d_channel_base=512,
        d_channel_max=64,
        d_outputs=(8, 16),
        d_attention=(),
        d_predictor_layers=1,
    )
    config.loss.update(r1_gamma=0.1, clip=0.05, match_real=1.0, match_fake=1.0)
    config.grow.update(
        stages=(4, 8, 16, 32),
        every_images=24_000,
        most_images=48_000,
        margin=4.0,  # as close as a small run gets
        pictures=256,
        # Not the CLIP that G learns to please.
        network="pixels",
        feature="pixels",
    )
    config.train.update(images=140_000, batch=16)
    config.ema.update(half_life_images=2_000, ramp_up=0.05)
    config.sample.prompts = (
        "a large red circle",
        "a blue square",
        "an orange star",
        "a purple triangle",
        # Of these no picture is in the split that is trained on.
        "a yellow heart",
        "a green cross",
        "a cyan star",
        "a white circle",
    )
    defaults.for_minutes(config)
    config.log.grid_every_images = 20_000
    config.checkpoint.every_images = config.evaluate.every_images = 20_000
    return config


def laion64():
    """1,166,329,387 parameters in G, as the released weights have."""
    config = base()
    defaults.prepared(config, "laion64", resolution=64)
    config.data.text = "clip-vit-l-14"
    # For slices of 64 v5e chips and more (docs/tpu.md): experts of the many pixels lie apart, all
    # else is split over the chips that hold the same ones.
    config.mesh.update(data=1, expert=8, fsdp=-1)
    config.model.execution = ("dropless",) * 3 + ("parallel",) * 2
    config.train.recompute = True
    config.sample.prompts = PHOTOGRAPHS
    return config


def coco64():
    """The same networks; 118,287 photographs of five captions each."""
    config = laion64()
    config.data.path = "data/coco64"
    config.train.images = 50_000_000
    config.grow.every_images = 500_000
    return config


PHOTOGRAPHS = (
    "a photo of a red bus in a street",
    "a cat on a sofa",
    "a bowl of fruit on a wooden table",
    "mountains behind a lake at sunset",
    "a dog that runs on a beach",
    "a plate of food with broccoli",
    "an oil painting of a sailing ship",
    "a man who rides a wave on a surfboard",
)

PRESETS = {preset.__name__: preset for preset in (shapes, laion64, coco64)}
