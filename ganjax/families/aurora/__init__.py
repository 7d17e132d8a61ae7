"""Aurora (Zhu et al., 2023): a text-to-image GAN with sparse mixtures of experts."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ganjax.adversarial.state import Ema, adam
from ganjax.config import at_least
from ganjax.data.sources import parse_resolution
from ganjax.families.aurora import discriminator as discriminators
from ganjax.families.aurora import networks
from ganjax.families.aurora.attention import distances, itself
from ganjax.families.aurora.discriminator import Discriminator, Predictor
from ganjax.families.aurora.encoder import Encoder
from ganjax.families.aurora.networks import Generator, MappingNetwork
from ganjax.families.aurora.phases import FROZEN, Losses, phases
from ganjax.families.aurora.sampling import Sampling
from ganjax.families.aurora.text import AcrossTokens, TextHead
from ganjax.families.stylegan2.phases import finite_gradients, half_life_decay
from ganjax.family import Family, Frozen, Growth, Inputs
from ganjax.layers.blocks import called, recomputed
from ganjax.parallel.experts import AXIS, Capacity, Dropless, Execution, ExpertParallel
from ganjax.parallel.rules import Rule, fsdp
from ganjax.pretrained import catalog
from ganjax.pretrained.blocks import shapes_of
from ganjax.pretrained.clip import Clip, computing_in

__all__ = ["build"]

EXECUTIONS = ("dropless", "capacity", "parallel")
LEAST = {
    **dict.fromkeys(("model.latent_dim", "model.w_dim", "model.context_dim"), 1),
    **dict.fromkeys(("model.text_layers", "model.d_predictor_layers", "model.head_dim"), 0),
    **dict.fromkeys(("model.text_heads", "model.heads", "model.groups", "model.mapping_layers"), 1),
    **dict.fromkeys(("model.source_features", "train.batch", "train.microbatches"), 1),
    **dict.fromkeys(("grow.most_images", "grow.every_images"), 0),
    **dict.fromkeys(("ema.half_life_images", "ema.ramp_up"), 0),
}
ENCODERS = ("pretrained", "random")  # where weights are from
SCORES = {"distances": distances, "itself": itself}


def build(config: Any) -> Family:
    """The family for a config of ``configs/aurora.py``.

    Raises:
        ValueError: an image size, text encoder, table of blocks or batch that the networks or
            phases do not have.
    """
    kind, encoder = _encoder(config)
    generator = _generator(config, encoder, config.model.execution)
    discriminator = _discriminator(config, encoder)
    loss, train, grow = config.loss, config.train, config.grow
    losses = Losses(
        generator,
        discriminator,
        encoder,
        r1_gamma=loss.r1_gamma,
        clip=loss.clip,
        match_real=loss.match_real,
        match_fake=loss.match_fake,
        balance=loss.balance,
        router_z=loss.router_z,
    )
    stages = tuple(grow.stages)
    if not config.sample.prompts:
        raise ValueError("config.sample.prompts has none; set at least one, for pictures of a run.")
    played = phases(
        losses,
        stages,
        batch=train.batch,
        microbatches=train.microbatches,
        r1_every=loss.r1_every,
    )
    sampling = Sampling(
        # What a sample is does not depend on those beside it: nothing is dropped.
        _generator(config, encoder, ("dropless",) * len(config.model.execution)),
        encoder,
        functools.partial(catalog.find_tokenizer, config.data.text),
        tuple(config.sample.prompts),
        config.sample.truncation,
        stages,
    )
    size, texts = generator.resolution, encoder.module.text
    growth = Growth(
        stages,
        most_images=grow.most_images,
        every_images=grow.every_images,
        margin=grow.margin,
        pictures=grow.pictures,
        network=grow.network,
        feature=grow.feature,
    )
    item = {
        "image": jax.ShapeDtypeStruct((size, size, generator.image_channels), np.uint8),
        "tokens": jax.ShapeDtypeStruct((texts.context,), np.int32),
    }
    if config.data.get("embedded"):
        item["text_states"] = jax.ShapeDtypeStruct((texts.context, texts.width), np.float16)
    return Family(
        networks={"g": generator, "d": discriminator},
        inputs={
            "g": Inputs(*networks.example_inputs(generator)),
            "d": Inputs(*discriminators.example_inputs(discriminator)),
        },
        phases=played,
        optimizers={
            "g": _optimizer(config, config.optimizer.g_lr),
            "d": _optimizer(config, config.optimizer.d_lr, lazy=loss.r1_every),
        },
        ema=Ema(
            half_life_decay(train.batch, config.ema.half_life_images, config.ema.ramp_up or None)
        ),
        item=item,
        draws=sampling.draws,
        sample=sampling.sample,
        sheets=sampling.sheets(),
        videos=sampling.videos(),
        rules=_rules(generator, config.model.execution),
        frozen={
            FROZEN: Frozen(
                lambda: shapes_of(kind.module, *kind.examples),
                functools.partial(_load, config, kind),
            )
        },
        growth=growth if len(stages) > 1 else None,
    )


def _encoder(config: Any) -> tuple[Any, Encoder]:
    try:
        kind = catalog.kind_of(config.data.text)
    except ValueError as error:
        raise ValueError(f"config.data.text={config.data.text!r}: {error}.") from None
    if not isinstance(kind.module, Clip):
        raise ValueError(
            f"config.data.text={config.data.text!r} is no CLIP, which reads the texts and sees the"
            " pictures. Set it to clip-shapes or clip-vit-l-14."
        )
    if config.model.encoder not in ENCODERS:
        raise ValueError(f"config.model.encoder={config.model.encoder!r}; set one of {ENCODERS}.")
    dtype = None if config.precision == "float32" else jnp.dtype(config.precision)
    return kind, Encoder(computing_in(kind.module, dtype))


def _load(config: Any, kind: Any) -> Any:
    """The encoder's variables."""
    if config.model.encoder == "random":
        return jax.jit(kind.module.init)(jax.random.key(0), *(_zeros(e) for e in kind.examples))
    return catalog.load(config.data.text).variables


def _zeros(example: jax.ShapeDtypeStruct) -> np.ndarray:
    return np.zeros(example.shape, example.dtype)


def _generator(config: Any, encoder: Encoder, executions: tuple[str, ...]) -> Generator:
    model, size = config.model, parse_resolution(config.data.resolution)
    known = tuple(4 * 2**level for level in range(len(model.blocks)))
    at_least(config, LEAST)
    if min(model.blocks, default=1) < 1:
        raise ValueError(f"config.model.blocks={tuple(model.blocks)}; set 1 or more of each.")
    rows: Any = (model.blocks, model.kernels, model.experts, model.attention, executions)
    if size != (known[-1], known[-1]) or {len(row) for row in rows} != {len(known)}:
        raise ValueError(
            f"config.data.resolution={config.data.resolution}, and config.model.blocks, kernels,"
            f" experts, attention and execution have {[len(row) for row in rows]} entries: set one"
            " for each of 4x4, 8x8 and so on up to the resolution."
        )
    made = networks.stages(
        dict(zip(known, zip(*rows[:4], strict=True), strict=True)),
        base=model.channel_base,
        most=model.channel_max,
        executions=dict(zip(known, (_execution(name, model) for name in executions))),
        transformed=model.transformed,
        dtype=None if config.precision == "float32" else jnp.dtype(config.precision),
        heads=model.heads,
        head_dim=model.head_dim or None,
        groups=model.groups,
    )
    return Generator(
        made,
        latent_dim=model.latent_dim,
        text_dim=encoder.module.text.width,
        context_dim=model.context_dim,
        w_dim=model.w_dim,
        image_channels=config.data.channels,
        text_head=_text_head(config),
        mapping_network=functools.partial(
            MappingNetwork,
            layers=model.mapping_layers,
            features=model.w_dim,
            lr_multiplier=model.mapping_lr_multiplier,
        ),
        source_features=model.source_features,
        through=recomputed if config.train.get("recompute") else called,
    )


def _discriminator(config: Any, encoder: Encoder) -> Discriminator:
    model = config.model
    return Discriminator(
        tuple(4 * 2**level for level in range(len(model.blocks))),
        image_channels=config.data.channels,
        text_dim=encoder.module.text.width,
        channel_base=model.d_channel_base,
        channel_max=model.d_channel_max,
        outputs=tuple(model.d_outputs),
        predictor=functools.partial(Predictor, layers=model.d_predictor_layers),
        text_head=_text_head(config),
        text_features=model.context_dim,
        attention=tuple(model.d_attention),
        heads=model.heads,
        group_size=model.group_size,
        dtype=None if config.precision == "float32" else jnp.dtype(config.precision),
    )


def _text_head(config: Any) -> Any:
    model = config.model
    if model.text_scores not in SCORES:
        raise ValueError(
            f"config.model.text_scores={model.text_scores!r}; set one of {tuple(SCORES)}."
        )
    if model.context_dim % model.text_heads:
        raise ValueError(
            f"config.model.text_heads={model.text_heads} do not divide the {model.context_dim}"
            " channels of config.model.context_dim; set one of them so that they do."
        )
    attention = functools.partial(AcrossTokens, scores=SCORES[model.text_scores])
    return functools.partial(
        TextHead,
        layers=model.text_layers,
        heads=model.text_heads,
        lr_multiplier=model.text_lr_multiplier,
        attention=attention,
    )


def _execution(name: str, model: Any) -> Execution:
    if name not in EXECUTIONS:
        raise ValueError(f"config.model.execution has {name!r}; set each to one of {EXECUTIONS}.")
    if name == "dropless":
        return Dropless()
    return (Capacity if name == "capacity" else ExpertParallel)(model.capacity_factor)


def _rules(generator: Generator, executions: tuple[str, ...]) -> tuple[Rule, ...]:
    """Experts that are executed in parallel lie apart, and blocks that are computed again gather
    their own parameters; all else is left to what comes after."""
    split = [
        str(index)
        for (_, blocks), name in zip(generator.blocks(), executions, strict=True)
        for index in blocks
        if name == "parallel"
    ]

    def apart(shape: tuple[int, ...], mesh: Mesh) -> P:
        return P(AXIS) if mesh.shape.get(AXIS, 1) > 1 else P()

    leaves = "(value|gate|out)(_bias)?"
    rules = []
    if split:
        rules.append(Rule(rf"synthesis/net_({'|'.join(split)})/.*ff/{leaves}$", apart))
    if generator.through is recomputed:
        rules.append(Rule(r"^g/params/synthesis/net_\d+/", fsdp(), late=True))
    return tuple(rules)


def _optimizer(config: Any, rate: float, lazy: int = 0) -> optax.GradientTransformation:
    own = config.optimizer
    descend = adam(rate, own.b1, own.b2, own.eps, lazy=lazy, weight_decay=own.weight_decay)
    return optax.chain(finite_gradients(), descend)
