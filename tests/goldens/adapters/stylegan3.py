"""StyleGAN3's generator and operations (NVlabs/stylegan3, training/networks_stylegan3.py)."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ganjax.families.stylegan2 import official as stylegan2_official
from ganjax.families.stylegan3 import official
from ganjax.families.stylegan3.blocks import Signal, SynthesisInput, SynthesisLayer, ToRGB
from ganjax.families.stylegan3.networks import Conv, Generator
from ganjax.interop import entries as interop
from ganjax.interop.entries import collect
from ganjax.layers.alias_free import filtered_lrelu, lowpass_taps
from ganjax.layers.convolution import LAYOUT
from ganjax.layers.modulated import modulated_conv2d
from tests.goldens.adapters import stylegan2
from tests.goldens.adapters.stylegan2 import MappingMaker, array_of
from tests.goldens.adapters.stylegan2_ops import Found, only, pads, to_hwio, to_nchw, with_gradients
from tests.goldens.case import Adapter, Case

Options = Mapping[str, Any]


def pair(size: Any) -> Any:
    """The reference's (width, height) as ours (height, width)."""
    return size if isinstance(size, int) else (size[1], size[0])


def mapping(case: Case) -> Found:
    """`MappingNetwork`: as StyleGAN2's, with two layers."""
    return stylegan2.mapping(case, layers=2)


def build_generator(options: Options) -> Generator:
    """Our generator for the reference's constructor arguments."""
    options = dict(options)
    names = {
        "z_dim": "latent_dim",
        "c_dim": "classes",
        "w_dim": "w_dim",
        "img_resolution": "resolution",
        "img_channels": "image_channels",
        "channel_base": "channel_base",
        "channel_max": "channel_max",
        "num_layers": "layers",
        "num_critical": "critical",
        "first_cutoff": "first_cutoff",
        "first_stopband": "first_stopband",
        "last_stopband_rel": "last_stopband",
        "margin_size": "margin",
        "output_scale": "output_scale",
        "conv_kernel": "kernel_size",
        "filter_size": "filter_size",
        "lrelu_upsampling": "oversampling",
        "use_radial_filters": "radial",
        "conv_clamp": "clamp",
        "magnitude_ema_beta": "magnitude_beta",
    }
    # On a CPU the reference computes in float32 whatever is said.
    only(options, " ".join(names) + " mapping_kwargs num_fp16_res class_name")
    fields = {ours: options[name] for name, ours in names.items() if name in options}
    real = ("first_cutoff", "first_stopband", "last_stopband", "output_scale", "clamp")
    fields |= {name: float(fields[name]) for name in real if fields.get(name) is not None}
    chosen = {"num_layers": 2, **options.get("mapping_kwargs", {})}
    return Generator(mapping_network=MappingMaker(chosen), **fields)


def generator(case: Case) -> Found:
    """`Generator`: w, images, features, gradients, and what a training forward moves."""
    only(case.call, "batch feat_layers grad_params psi cutoff")
    module = build_generator(case.kwargs)
    variables = load(case.group("param/"), module)
    cotangent = case.images("in/cotangent_img")
    labels = array_of(case, "in/c")
    psi, cutoff = case.call.get("psi", 1), case.call.get("cutoff")

    def objective(inputs):
        held = {**variables, "params": inputs["params"]}
        ws = module.apply(held, inputs["z"], labels, psi, cutoff, method="styles") + inputs["ws"]
        image, kept = module.apply(
            held,
            ws,
            method="synthesize",
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        return jnp.vdot(image, cotangent), (ws, image, kept["intermediates"]["synthesis"])

    inputs = {"params": variables["params"], "z": jnp.asarray(case["in/z"])}
    inputs["ws"] = jnp.zeros((len(inputs["z"]), module.num_ws, module.w_dim), inputs["z"].dtype)

    @jax.jit
    def whole(inputs):
        gradient, (ws, image, kept) = jax.grad(objective, has_aux=True)(inputs)
        still = module.apply(variables, ws, jnp.eye(3), method="synthesize")
        trained, moved = module.apply(variables, inputs["z"], labels, mutable=["averages"])
        return gradient, ws, image, kept, still, trained, moved

    gradient, ws, image, kept, still, trained, moved = whole(inputs)
    found = {"out/ws": ws, "out/img": to_nchw(image)}
    found["out/img_identity_transform"] = to_nchw(still)
    found["out/img_psi1_update_emas"] = to_nchw(trained)
    for name, value in kept.items():
        if name != "__call__":
            # A layer and its convolution share a scope; the layer returns last.
            found[f"out/feat/{name}"] = to_nchw(value["__call__"][-1])
    after = official.to_official(moved, module)
    found |= {f"out/ema_after/{name}": array for name, array in after.items()}
    found |= {"grad/z": gradient["z"], "grad/ws": gradient["ws"]}
    gradients = official.to_official({"params": gradient["params"]}, module)
    return found | {f"grad/{name}": array for name, array in gradients.items()}


def load(state: Mapping[str, np.ndarray], module: nn.Module) -> dict[str, Any]:
    """Our variables from an official state dict, which must fit exactly."""
    variables, report = official.from_official(state, module)
    if not report.complete:
        raise ValueError(f"the state dict does not fit: {report}")
    return jax.tree.map(jnp.asarray, variables)


def load_part(
    state: Mapping[str, np.ndarray], module: nn.Module, *shapes: tuple[int, ...]
) -> tuple[Any, Any]:
    """Variables of a layer alone, whose filters must be those of the state dict, and their map."""
    inputs = (tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes), {})
    wanted = stylegan2_official.entries_of(module, inputs)
    taps = {}
    if not isinstance(module, SynthesisInput):
        way = module.resampling()
        taps = {"up_filter": way.up_taps, "down_filter": way.down_taps}
        taps = {name: array for name, array in taps.items() if array is not None}
    variables, report = interop.read(state, module, wanted, inputs, None, constants=taps)
    if not report.complete:
        raise ValueError(f"the state dict does not fit: {report}")
    return jax.tree.map(jnp.asarray, variables), wanted


def synthesis_input(case: Case) -> Found:
    """`SynthesisInput`."""
    options = case.kwargs
    only(options, "w_dim channels size sampling_rate bandwidth")
    module = SynthesisInput(
        options["channels"],
        pair(options["size"]),
        float(options["sampling_rate"]),
        float(options["bandwidth"]),
    )
    w = jnp.asarray(case["in/w"])
    variables, wanted = load_part(case.group("param/"), module, w.shape)

    def compute(params, w):
        return module.apply({**variables, "params": params}, w)

    inputs = {"params": variables["params"], "w": w}
    y, gradients = with_gradients(compute, inputs, case.images("in/cotangent_y"))
    found = {"out/y": to_nchw(y), "grad/w": gradients["w"]}
    params = collect({"params": gradients["params"]}, wanted)
    return found | {f"grad/{name}": array for name, array in params.items()}


def build_layer(options: Options) -> SynthesisLayer | ToRGB:
    """Our layer for the reference's constructor arguments."""
    ends = "size sampling_rate cutoff half_width"
    known = "w_dim is_torgb is_critically_sampled use_fp16 in_channels out_channels conv_kernel"
    known += " filter_size lrelu_upsampling use_radial_filters conv_clamp magnitude_ema_beta "
    only(
        options, known + " ".join(f"{end}_{part}" for end in ("in", "out") for part in ends.split())
    )
    before, after = (
        Signal(
            pair(options[f"{end}_size"]),
            *(float(options[f"{end}_{part}"]) for part in ends.split()[1:]),
        )
        for end in ("in", "out")
    )
    clamp = options.get("conv_clamp", 256)
    shared: dict[str, Any] = dict(
        clamp=None if clamp is None else float(clamp),
        magnitude_beta=options.get("magnitude_ema_beta", 0.999),
    )
    if options["is_torgb"]:
        return ToRGB(options["out_channels"], before, after, **shared)
    return SynthesisLayer(
        options["out_channels"],
        before,
        after,
        kernel_size=options.get("conv_kernel", 3),
        filter_size=options.get("filter_size", 6),
        oversampling=options.get("lrelu_upsampling", 2),
        radial=options.get("use_radial_filters", False) and not options["is_critically_sampled"],
        conv=Conv,
        **shared,
    )


def synthesis_layer(case: Case) -> Found:
    """`SynthesisLayer`, with and without a step of its running magnitude."""
    module = build_layer(case.kwargs)
    inputs = {"x": jnp.asarray(case.images("in/x")), "w": jnp.asarray(case["in/w"])}
    state = case.group("param/")
    variables, wanted = load_part(state, module, inputs["x"].shape, inputs["w"].shape)

    def compute(params, x, w):
        return module.apply({**variables, "params": params}, x, w)

    y, gradients = with_gradients(
        compute, {"params": variables["params"], **inputs}, case.images("in/cotangent_y")
    )
    trained, moved = module.apply(variables, *inputs.values(), mutable=["averages"])
    found = {"out/y": to_nchw(y), "out/y_update_emas": to_nchw(trained)}
    found["out/magnitude_ema_after"] = moved["averages"]["magnitude_ema"]
    found |= {"grad/x": to_nchw(gradients["x"]), "grad/w": gradients["w"]}
    params = collect({"params": gradients["params"]}, wanted)
    return found | {f"grad/{name}": array for name, array in params.items()}


def filters(case: Case) -> Found:
    """`SynthesisLayer.design_lowpass_filter`."""
    found: Found = {}
    for index, options in enumerate(case.call["settings"]):
        only(options, "numtaps cutoff width fs radial")
        taps = lowpass_taps(
            options["numtaps"],
            float(options["cutoff"]),
            float(options["width"]),
            float(options["fs"]),
            options.get("radial", False),
        )
        if taps is not None:
            found[f"out/{index}_taps"] = taps
    return found


def activations(case: Case) -> Found:
    """`filtered_lrelu`."""
    found: Found = {}
    for index, options in enumerate(case.call["settings"]):
        only(options, "fu fd b up down padding gain slope clamp flip_filter")
        named = {
            key: case[f"in/{index}_{name}"] if f"in/{index}_{name}" in case else None
            for key, name in (("up_taps", "fu"), ("down_taps", "fd"))
        }
        more = {key: float(options[key]) for key in ("gain", "slope", "clamp") if options.get(key)}

        def compute(x, b=None, named=named, more=more, options=options):
            return filtered_lrelu(
                x,
                b,
                **named,
                **more,
                up=options.get("up", 1),
                down=options.get("down", 1),
                padding=pads(options.get("padding", 0)),
                flip=options.get("flip_filter", False),
            )

        inputs = {"x": jnp.asarray(case.images(f"in/{index}_x"))}
        if f"in/{index}_b" in case:
            inputs["b"] = jnp.asarray(case[f"in/{index}_b"])
        y, gradients = with_gradients(compute, inputs, case.images(f"in/cotangent_{index}_y"))
        found[f"out/{index}_y"] = to_nchw(y)
        found |= {f"grad/{index}_{key}": to_nchw(g) for key, g in gradients.items()}
    return found


def modulated(case: Case) -> Found:
    """`modulated_conv2d`: its gain of input channels scales the input here."""
    found: Found = {}
    for index, options in enumerate(case.call["settings"]):
        only(options, "padding input_gain k cout demodulate")
        padding = options.get("padding", 0)
        height, width = (padding, padding) if isinstance(padding, int) else padding
        gain = case[f"in/{index}_input_gain"] if "input_gain" in options else np.ones(())
        gain = gain[:, None, None] if gain.ndim == 2 else gain

        def operation(x, kernel, height=height, width=width):
            pads = ((height, height), (width, width))
            return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=LAYOUT)

        def compute(x, w, s, gain=gain, options=options, operation=operation):
            return modulated_conv2d(
                x * gain,
                to_hwio(w),
                s,
                demodulate=options.get("demodulate", True),
                eps=Conv.keywords["eps"],
                operation=operation,
            )

        inputs = {"x": jnp.asarray(case.images(f"in/{index}_x"))}
        inputs |= {key: jnp.asarray(case[f"in/{index}_{key}"]) for key in ("w", "s")}
        y, gradients = with_gradients(compute, inputs, case.images(f"in/cotangent_{index}_y"))
        found |= {f"out/{index}_y": to_nchw(y), f"grad/{index}_x": to_nchw(gradients["x"])}
        found |= {f"grad/{index}_{key}": gradients[key] for key in ("w", "s")}
    return found


def _adapter(names: str, reference: str, compute: Any) -> Adapter:
    return Adapter("stylegan3", names, reference, compute)


ADAPTERS = (
    _adapter(r"^mapping", r":MappingNetwork$", mapping),
    _adapter(r"^G_", r"networks_stylegan3\.py:Generator", generator),
    _adapter(r"^synthesis_input", r":SynthesisInput$", synthesis_input),
    _adapter(r"^synthesis_layer", r":SynthesisLayer$", synthesis_layer),
    _adapter(r"^op_lowpass_filter", r"design_lowpass_filter", filters),
    _adapter(r"^op_filtered_lrelu", r"ops/filtered_lrelu\.py", activations),
    _adapter(r"^op_modulated_conv2d", r":modulated_conv2d", modulated),
)
