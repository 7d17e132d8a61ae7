"""What the constructor arguments of Aurora's released code are of ours."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from ganjax.families.aurora import attention, blocks, networks, text, transformer
from ganjax.layers.equalized import EqualizedDense
from ganjax.layers.modulated import ModulatedConv
from ganjax.layers.moe import GEGLU, GELU, FeedForward, MixtureOfExperts
from ganjax.layers.mtm import ModulatedTransformConv

Options = Mapping[str, Any]
Make = Callable[..., Any]


def scores_of(options: Options, tied: bool = False) -> attention.Scores:
    """How queries and keys are compared."""
    if not options["l2_attention"]:
        return attention.means if options["scale_in"] else attention.products
    found = attention.tied_distances if tied else attention.distances
    return attention.WithoutSelf(found) if options["mask_self"] else found


def eps_of(options: Options) -> Make:
    """What demodulation adds."""
    return functools.partial(blocks.of_batch, eps=options["eps"])


def self_attention(options: Options) -> Make:
    """`SelfAttentionLayer`."""
    l2, tied = options["l2_attention"], options["l2_attention"] and options["tie"]
    conv = functools.partial(ModulatedConv, eps=eps_of(options), demodulate=options["demodulate"])
    return functools.partial(
        attention.SelfAttention,
        projection=attention.Tied if tied else attention.Untied if l2 else attention.Joint,
        scores=scores_of(options, tied),
        conv=conv,
    )


def feed_forward(options: Options, experts: int) -> Make:
    """`FeedForward`."""
    network = GELU if options["glu"] else GEGLU
    own = dict(ratio=options.get("mlp_ratio", 4), network=network)
    if experts < 2:
        return functools.partial(FeedForward, **own)
    # The eps of the router is no option.
    conv = functools.partial(ModulatedConv, eps=blocks.of_batch)
    router = functools.partial(transformer.StyleRouter, conv=conv)
    return functools.partial(MixtureOfExperts, experts, router, **own)


def attention_block(options: Options, experts: int, depth: int) -> Make:
    """`ResidualAttnBlock`."""
    block = functools.partial(
        transformer.AttentionBlock,
        self_attention=self_attention(options),
        cross_attention=functools.partial(attention.CrossAttention, scores=scores_of(options)),
        context=transformer.StyleToken if options["use_w_cond"] else transformer.text_alone,
        feed_forward=feed_forward(options, experts) if options["include_ff"] else None,
    )
    return functools.partial(
        transformer.ResidualAttentionBlock,
        depth,
        heads=options["num_heads"],
        head_dim=options["head_dim"],
        gain=options["attn_gain"],
        groups=options.get("group_channels", 32),
        clamp=options["conv_clamp"],
        initial_scale=0.0 if options["zero_out"] else 1.0,
        block=block,
    )


def text_head(options: Options, *, layers: int, multiplier: float, gain: float) -> Make:
    """`TextHead`."""
    # Without `scale_in` logits are multiplied by that flag, not by the scale.
    scores = scores_of(options)
    if not options["scale_in"]:
        masked = options["l2_attention"] and options["mask_self"]
        scores = attention.WithoutSelf(attention.uniform) if masked else attention.uniform
    return functools.partial(
        text.TextHead,
        layers=layers,
        heads=options["num_heads"],
        lr_multiplier=multiplier,
        gain=gain,
        attention=functools.partial(text.AcrossTexts, scores=scores),
    )


def mapping(options: Options, *, prefix: str = "", layers: int, features: int) -> Make:
    """`MappingNetwork`."""

    def normal(name: str) -> Make:
        if not options[name]:
            return networks.same
        return functools.partial(networks.normalize_2nd_moment, eps=options["eps"])

    embed: Make = networks.as_it_is
    if of_classes(options):
        embed = functools.partial(
            EqualizedDense,
            options["embedding_dim"],
            lr_multiplier=options["embedding_lr_mul"],
            use_bias=options["embedding_bias"],
        )
    return functools.partial(
        networks.MappingNetwork,
        layers=layers,
        features=features,
        lr_multiplier=options[f"{prefix}lr_mul"],
        normalize_latent=normal("normalize_z"),
        normalize_text=normal(
            "normalize_class_embed" if of_classes(options) else "normalize_text_cond"
        ),
        embed=embed,
    )


def of_classes(options: Options) -> bool:
    """Whether the condition is a class, not a text.

    Raises:
        ValueError: it is both or neither, which the released generator does not take.
    """
    if options["use_class_label"] == options["use_text_cond"]:
        raise ValueError("a generator is conditioned on a text or on a class: on one of the two")
    return options["use_class_label"]


def stages(options: Options) -> tuple[networks.Stage, ...]:
    """What `SynthesisNetwork` has at each resolution."""
    found = []
    size = options["init_res"]
    attended = options["attn_resolutions"]
    while size <= options["resolution"]:
        key = str(size)
        offsets = options["mtm"] and (size < 32 or size == options["init_res"])
        conv, second = blocks.convolutions(
            options["num_adaptive_kernels"][key],
            ModulatedTransformConv if offsets else None,
            eps=eps_of(options),
            demodulate=options["demodulate"],
        )
        after = None
        if key in map(str, options["attn_depth"] if attended is None else attended):
            experts = options["num_experts"][key]
            after = attention_block(options, experts, options["attn_depth"][key])
        channels = networks.channels_at(size, options["fmaps_base"], options["fmaps_max"])
        blocks_there = options["num_block_per_res"][key]
        found.append(networks.Stage(size, channels, blocks_there, conv, second, after))
        size *= 2
    return tuple(found)


def generator(options: Options) -> networks.Generator:
    """`Text2ImageGenerator`."""
    made = stages(options)
    head: Make = networks.labels_alone
    if not of_classes(options):
        head = text_head(
            options,
            layers=options["num_layers_text_enc"],
            multiplier=options["text_lr_mul"],
            gain=options["text_head_gain"],
        )
    return networks.Generator(
        made,
        latent_dim=options["z_dim"],
        text_dim=options["clip_out_dim"],
        context_dim=options["context_dim"],
        w_dim=options["w_dim"],
        image_channels=options["image_channels"],
        text_head=head,
        mapping_network=mapping(
            options,
            prefix="mapping_",
            layers=options["mapping_layers"],
            features=options["mapping_fmaps"],
        ),
        mapped_ws=1 if options["repeat_w"] else sum(stage.num_ws for stage in made),
        source=blocks.fourier_input if options["fourier_feat"] else blocks.ConstantInput,
        source_features=networks.channels_at(
            options["init_res"] // 2, options["fmaps_base"], options["fmaps_max"]
        ),
        gain=options["residual_gain"],
        taps=tuple(options["filter_kernel"]),
        clamp=options["conv_clamp"],
        accumulate=networks.added if options["skip_connection"] else networks.replaced,
        final=jnp.tanh if options["final_tanh"] else networks.same,
        outputs=(options["resolution"],) if of_classes(options) else None,
    )
