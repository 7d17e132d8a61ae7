"""StyleGAN2's networks (NVlabs/stylegan3, training/networks_stylegan2.py)."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from ganjax.families.stylegan2 import official
from ganjax.families.stylegan2.networks import Discriminator, Generator, MappingNetwork, spread
from tests.goldens.adapters.stylegan2_ops import Found, only, to_nchw
from tests.goldens.case import Adapter, Case

Options = Mapping[str, Any]

# Options that change how the reference computes on a GPU, and nothing of what it does on a CPU.
INERT = "class_name use_fp16 fp16_channels_last fused_modconv_default num_fp16_res freeze_layers"


def build_mapping(options: Options, **fixed: Any) -> MappingNetwork:
    """Our mapping for the reference's constructor arguments."""
    names = {
        "z_dim": "latent_dim",
        "c_dim": "classes",
        "w_dim": "w_dim",
        "num_layers": "layers",
        "embed_features": "embed_features",
        "layer_features": "layer_features",
        "activation": "activation",
        "lr_multiplier": "lr_multiplier",
        "w_avg_beta": "w_avg_beta",
    }
    only(options, " ".join(names) + " num_ws")
    fields = {names[key]: value for key, value in options.items() if key in names}
    return MappingNetwork(**(fields | fixed))


def check_precision(options: Options, old: bool) -> None:
    """The older repository computes in float16 on a CPU, too."""
    if old and options.get("num_fp16_res", 0):
        raise ValueError(f"num_fp16_res={options['num_fp16_res']} in float16 is not in ganjax")


def build_generator(options: Options, old: bool = False) -> Generator:
    """Our generator for the reference's constructor arguments.

    Args:
        old: of stylegan2-ada-pytorch, which keeps w's mean for less long.
    """
    options = {**options.get("synthesis_kwargs", {}), **options}
    options.pop("synthesis_kwargs", None)
    check_precision(options, old)
    known = (
        "z_dim c_dim w_dim img_resolution img_channels mapping_kwargs channel_base channel_max"
        " architecture resample_filter conv_clamp activation use_noise layer_kwargs"
    )
    only(options, f"{known} {INERT}")
    layers = {**options, **options.get("layer_kwargs", {})}
    only(options.get("layer_kwargs", {}), f"activation use_noise {INERT}")
    mapping = {"w_avg_beta": 0.995 if old else 0.998, **options.get("mapping_kwargs", {})}
    return Generator(
        resolution=options["img_resolution"],
        image_channels=options.get("img_channels", 3),
        latent_dim=options["z_dim"],
        classes=options.get("c_dim", 0),
        w_dim=options["w_dim"],
        channel_base=options.get("channel_base", 32768),
        channel_max=options.get("channel_max", 512),
        architecture=options.get("architecture", "skip"),
        mapping_network=MappingMaker(mapping),
        activation=layers.get("activation", "lrelu"),
        use_noise=layers.get("use_noise", True),
        taps=taps_of(options),
        clamp=clamp_of(options, old),
    )


class MappingMaker:
    """`build_mapping` with the reference's options, equal to another one with the same."""

    def __init__(self, options: Options):
        self.options = tuple(sorted(options.items()))

    def __call__(self, **fixed: Any) -> MappingNetwork:
        return build_mapping(dict(self.options), **fixed)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MappingMaker) and self.options == other.options

    def __hash__(self) -> int:
        return hash(self.options)


def clamp_of(options: Options, old: bool) -> float | None:
    """What the two repositories have where nothing is said differs."""
    clamp = options.get("conv_clamp", None if old else 256)
    return None if clamp is None else float(clamp)


def taps_of(options: Options) -> tuple:
    taps = options.get("resample_filter", (1, 3, 3, 1))
    return tuple(taps) if isinstance(taps, list | tuple) else taps


def build_discriminator(options: Options, old: bool = False) -> Discriminator:
    """Our discriminator for the reference's constructor arguments."""
    check_precision(options, old)
    known = (
        "c_dim img_resolution img_channels architecture channel_base channel_max conv_clamp"
        " cmap_dim block_kwargs mapping_kwargs epilogue_kwargs"
    )
    only(options, f"{known} {INERT}")
    block, epilogue = options.get("block_kwargs", {}), options.get("epilogue_kwargs", {})
    only(block, f"activation resample_filter {INERT}")
    only(epilogue, "mbstd_group_size mbstd_num_channels activation")
    return Discriminator(
        resolution=options["img_resolution"],
        image_channels=options.get("img_channels", 3),
        classes=options.get("c_dim", 0),
        channel_base=options.get("channel_base", 32768),
        channel_max=options.get("channel_max", 512),
        architecture=options.get("architecture", "resnet"),
        cmap_dim=options.get("cmap_dim"),
        mapping_network=MappingMaker(options.get("mapping_kwargs", {})),
        activation=block.get("activation", "lrelu"),
        epilogue_activation=epilogue.get("activation", "lrelu"),
        taps=taps_of(block),
        clamp=clamp_of(options, old),
        group_size=epilogue.get("mbstd_group_size", 4),
        group_channels=epilogue.get("mbstd_num_channels", 1),
    )


def is_old(case: Case) -> bool:
    """Of stylegan2-ada-pytorch rather than of stylegan3."""
    return "stylegan2-ada" in case.meta.get("reference", "")


def load(
    state: Mapping[str, np.ndarray], module: nn.Module, official: Any = official
) -> dict[str, Any]:
    """Our variables from an official state dict, which must fit exactly."""
    variables, report = official.from_official(state, module)
    if not report.complete:
        raise ValueError(f"the state dict does not fit: {report}")
    return jax.tree.map(jnp.asarray, variables)


def array_of(case: Case, key: str) -> Any:
    """An input, or None."""
    return jnp.asarray(case[key]) if key in case else None


def mapping(case: Case, layers: int = 8) -> Found:
    """`MappingNetwork`: w with and without truncation, its running mean, gradients.

    Args:
        layers: where the case says nothing.
    """
    only(case.call, "batch trunc grad_params")
    defaults = {"w_avg_beta": 0.995 if is_old(case) else 0.998, "num_layers": layers}
    module = build_mapping({**defaults, **case.kwargs})
    variables = load(case.group("param/"), module)
    count = case.kwargs.get("num_ws")
    average = variables.get("averages", {}).get("w_avg", np.zeros(module.w_dim))
    inputs = {"z": array_of(case, "in/z"), "c": array_of(case, "in/c")}
    cotangent = case["in/cotangent_w_psi1"]

    def many(w, *truncation):
        return spread(w, count, average, *truncation) if count else w

    def objective(params, inputs):
        w, changed = module.apply(
            {**variables, "params": params}, inputs["z"], inputs["c"], mutable=["averages"]
        )
        return jnp.vdot(many(w), cotangent), (w, changed)

    (gradient, d_inputs), (w, changed) = jax.grad(objective, (0, 1), has_aux=True)(
        variables["params"], inputs
    )
    found = {"out/w_psi1": many(w)}
    for psi, cutoff in case.call.get("trunc", ()):
        found[f"out/w_psi{psi}_cutoff{cutoff}"] = many(w, psi, cutoff)
    if changed:
        found["out/w_avg_after_update"] = changed["averages"]["w_avg"]
    found |= {f"grad/{key}": g for key, g in d_inputs.items() if g is not None}
    gradients = official.to_official({"params": gradient}, module)
    return found | {f"grad/{name}": array for name, array in gradients.items()}


def noise_of(case: Case, prefix: str) -> dict[str, Any]:
    """Recorded noise by layer: `<prefix><number>_b8.conv0` is [n, 1, h, w]."""
    return {
        key.partition("_")[2]: jnp.asarray(array.transpose(0, 2, 3, 1))
        for key, array in case.group(prefix).items()
    }


def generator(case: Case) -> Found:
    """`Generator`: w, images, features of all blocks, gradients."""
    only(case.call, "batch noise_mode noise_labels psi cutoff grad_params")
    module = build_generator(case.kwargs, is_old(case))
    variables = load(case.group("param/"), module)
    mode = case.call["noise_mode"]
    noise: Any = mode
    if mode == "random":
        noise = noise_of(case, "in/noise/")
    cotangent = case.images("in/cotangent_img")
    psi, cutoff = case.call.get("psi", 1), case.call.get("cutoff")

    def objective(inputs, variables, labels, noise):
        variables = {**variables, "params": inputs["params"]}
        ws = module.apply(variables, inputs["z"], labels, psi, cutoff, method="styles")
        ws = ws + inputs["ws"]
        image, kept = module.apply(
            variables,
            ws,
            noise,
            method="synthesize",
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        silent = module.apply(variables, ws, "none", method="synthesize")
        return jnp.vdot(image, cotangent), (ws, image, silent, kept["intermediates"])

    inputs = {"params": variables["params"], "z": jnp.asarray(case["in/z"])}
    inputs["ws"] = jnp.zeros((len(inputs["z"]), module.num_ws, module.w_dim), inputs["z"].dtype)
    if isinstance(noise, str):
        run = functools.partial(objective, noise=noise)
        arguments = (inputs, variables, array_of(case, "in/c"))
    else:
        run, arguments = objective, (inputs, variables, array_of(case, "in/c"), noise)
    gradient, (ws, image, silent, kept) = jax.jit(jax.grad(run, has_aux=True))(*arguments)
    found = {"out/ws": ws, "out/img": to_nchw(image), "out/img_noise_none": to_nchw(silent)}
    found |= block_features(kept)
    found |= {"grad/z": gradient["z"], "grad/ws": gradient["ws"]}
    gradients = official.to_official({"params": gradient["params"]}, module)
    return found | {f"grad/{name}": array for name, array in gradients.items()}


def block_features(kept: Any) -> Found:
    """`out/feat/b8_x` and `out/feat/b8_img` from the recorded outputs of blocks."""
    found: Found = {}
    for path, (value, *_) in flatten_dict(kept).items():
        if path[-1] != "__call__" or len(path) < 2:
            continue
        if isinstance(value, tuple):
            for name, array in zip(("x", "img"), value):
                if array is not None:
                    found[f"out/feat/{path[-2]}_{name}"] = to_nchw(array)
        elif path[-2] == "mbstd":
            found["out/feat/b4_mbstd"] = to_nchw(value)
        elif path[:-1] == ("mapping",):
            found["out/feat/cmap"] = value
        elif path[:-1] == ("b4",):
            found["out/feat/b4_out"] = value
    return found


def discriminator(case: Case) -> Found:
    """`Discriminator`: logits, features of all blocks, gradients."""
    only(case.call, "batch grad_params max_feat_res")
    module = build_discriminator(case.kwargs, is_old(case))
    variables = load(case.group("param/"), module)
    cotangent = case["in/cotangent_logits"][:, 0]

    def objective(params, images, variables, labels):
        logits, kept = module.apply(
            {**variables, "params": params},
            images,
            labels,
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        return jnp.vdot(logits, cotangent), (logits, kept["intermediates"])

    (gradient, d_images), (logits, kept) = jax.jit(jax.grad(objective, (0, 1), has_aux=True))(
        variables["params"], jnp.asarray(case.images("in/img")), variables, array_of(case, "in/c")
    )
    found = {"out/logits": logits[:, None], "grad/img": to_nchw(d_images)}
    gradients = official.to_official({"params": gradient}, module)
    return found | block_features(kept) | {f"grad/{name}": g for name, g in gradients.items()}


def _adapter(names: str, reference: str, compute: Any) -> Adapter:
    return Adapter("stylegan2", names, reference, compute)


ADAPTERS = (
    _adapter(r"^mapping", r":MappingNetwork$", mapping),
    _adapter(r"^G_", r"networks(_stylegan2)?\.py:Generator", generator),
    _adapter(r"^D_", r"networks(_stylegan2)?\.py:Discriminator", discriminator),
)
