"""Aurora's modulated convolution (zhujiapeng/Aurora, models/text_generator.py).

Only its layer `AdaptiveModulateConvLayer`, from which MTM has its operator.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ganjax.families.aurora.blocks import of_batch
from ganjax.layers.adaptive import AdaptiveModulatedConv
from ganjax.layers.equalized import finish
from ganjax.layers.modulated import ModulatedConv
from ganjax.layers.mtm import ModulatedTransformConv, OffsetField
from tests.goldens.adapters.stylegan2_ops import Found, only, to_nchw
from tests.goldens.case import Case

Options = Mapping[str, Any]
KNOWN = (
    "kernel_size num_kernels add_bias scale_factor filter_kernel demodulate activation_type"
    " conv_clamp eps mtm use_wscale wscale_gain lr_mul in_channels out_channels modulate_dim"
)


class Layer(nn.Module):
    """The reference's layer: a modulated convolution of ours, bias and activation."""

    conv: Callable[..., nn.Module]
    use_bias: bool
    activation: str
    clamp: float | None
    transformed: bool

    @nn.compact
    def __call__(self, x: Any, w: Any) -> Any:
        conv = self.conv(name="conv")
        if self.transformed and not isinstance(conv, ModulatedTransformConv):
            # The reference predicts where an upsampling convolution should look, and forgets it.
            OffsetField(conv.kernel_size, conv.demodulate, conv.eps, name="unused")(x, w)
        y = conv(x, w)
        bias = self.param("bias", nn.initializers.zeros, y.shape[-1:]) if self.use_bias else None
        return finish(y, bias, self.activation, 1.0, self.clamp)


def build(options: Options) -> Layer:
    """Our layer for the reference's constructor arguments."""
    only(options, KNOWN)
    many, up = options["num_kernels"], options["scale_factor"]
    eps = functools.partial(of_batch, eps=options["eps"])
    conv: Any = ModulatedConv
    if many > 1:
        conv = functools.partial(AdaptiveModulatedConv, kernels=many)
    fixed = dict(
        features=options["out_channels"],
        kernel_size=options["kernel_size"],
        demodulate=options["demodulate"],
        eps=eps,
    )
    if options["mtm"] and up == 1:
        conv = functools.partial(ModulatedTransformConv, conv=conv, **fixed)
    else:
        taps = options["filter_kernel"]
        conv = functools.partial(conv, up=up, taps=None if taps is None else tuple(taps), **fixed)
    clamp = options["conv_clamp"]
    return Layer(
        conv,
        options["add_bias"],
        options["activation_type"],
        None if clamp is None else float(clamp),
        options["mtm"],
    )


def mapped(options: Options, names: Any) -> dict[str, tuple[tuple[str, ...], Any, Any]]:
    """Of each of the reference's parameters: our path, our array of theirs, their gradient of ours.

    Theirs may be stored at another scale: `use_wscale`, `wscale_gain` and `lr_mul` decide.
    """
    multiplier, size = options["lr_mul"], options["kernel_size"]

    def scale(fan_in: int) -> float:
        """Their factor at run time over ours, `1 / sqrt(fan in)`."""
        gain = options["wscale_gain"] if options["use_wscale"] else math.sqrt(fan_in)
        return gain * multiplier

    dense_scale = scale(options["modulate_dim"])
    # Demodulation undoes any scale.
    fan_in = size * size * options["in_channels"]
    conv_scale = 1.0 if options["demodulate"] else scale(fan_in)
    many, transformed = options["num_kernels"] > 1, options["mtm"] and options["scale_factor"] == 1
    # The reference's upsampling convolves, ours correlates.
    step = -1 if options["scale_factor"] > 1 and size > 1 else 1
    field = ("conv", "offsets") if transformed else ("unused",)

    def conv(path: Any, factor: float, step: int = 1, many: bool = False) -> Any:
        def ours(a):
            a = a if many else a.reshape(a.shape[-4:])
            return np.moveaxis(a, (-4, -3), (-1, -2))[..., ::step, ::step, :, :] * factor

        def theirs(a):
            return jnp.moveaxis(a[..., ::step, ::step, :, :], (-1, -2), (-4, -3)) * factor

        return path, ours, theirs

    def vector(path: Any, factor: float = 1.0) -> Any:
        return path, lambda a: a.reshape(-1) * factor, lambda a: a * factor

    def dense(*path: str) -> dict[str, Any]:
        kernel = (*path, "kernel"), lambda a: a.T * dense_scale, lambda a: a.T * dense_scale
        return {"weight": kernel, "bias": vector((*path, "bias"), multiplier)}

    table: dict[str, Any] = {
        "weight": conv(("conv", "kernel"), conv_scale, step, many),
        "bias": vector(("bias",), multiplier),
        "mtm_weight": conv((*field, "kernel"), 1.0),
        "mtm_bias": vector((*field, "bias")),
        "mtm_scales": vector((*field, "scale")),
    }
    for name, path in (
        ("style", ("conv", "affine")),
        ("filter_weight", ("conv", "selection")),
        ("mtm_style", (*field, "affine")),
    ):
        table |= {f"{name}.{key}": entry for key, entry in dense(*path).items()}
    return {name: table[name] for name in names}


def modulated_conv(case: Case) -> Found:
    """`AdaptiveModulateConvLayer`: features, style, weights, offsets and mask, gradients."""
    only(case.call, "")
    layer = build(case.kwargs)
    state = {k: v for k, v in case.group("param/").items() if k != "filter"}
    entries = mapped(case.kwargs, state)
    params = unflatten_dict(
        {path: jnp.asarray(ours(state[name])) for name, (path, ours, _) in entries.items()}
    )
    inputs = {"x": jnp.asarray(case.images("in/x")), "w": jnp.asarray(case["in/w"])}
    cotangent = case.images("in/cotangent")

    def objective(params, inputs):
        y, kept = layer.apply(
            {"params": params},
            inputs["x"],
            inputs["w"],
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        return jnp.vdot(y, cotangent), (y, kept["intermediates"])

    gradient, (y, kept) = jax.grad(objective, (0, 1), has_aux=True)(params, inputs)
    found: Found = {"out/y": to_nchw(y)}
    for path, (*_, value) in flatten_dict(kept).items():  # paths end in "__call__"
        if path[:-1] == ("conv", "affine"):
            found["out/style"] = value
        elif path[:-1] == ("conv", "selection"):
            found["out/filter_weights"] = jax.nn.softmax(value)
        elif path[:-1] in (("conv", "offsets"), ("unused",)):
            offsets, mask = value
            found["out/offsets"] = to_nchw(offsets.reshape(*mask.shape[:3], -1))
            found["out/offsets_mask"] = to_nchw(mask)
    found |= {"grad/x": to_nchw(gradient[1]["x"]), "grad/w": gradient[1]["w"]}
    ours = flatten_dict(gradient[0])
    for name, (path, _, theirs) in entries.items():
        found[f"grad/{name}"] = theirs(ours[path]).reshape(state[name].shape)
    return found
