"""StyleGAN2's operations (NVlabs/stylegan3, torch_utils/ops and training/networks_stylegan2.py)."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ganjax.layers.activation import ACTIVATIONS, bias_act
from ganjax.layers.filtering import (
    conv2d_resample,
    downsample2d,
    filter2d,
    setup_filter,
    upfirdn2d,
    upsample2d,
)
from ganjax.layers.minibatch import MinibatchStd
from ganjax.layers.modulated import modulated_conv2d
from tests.goldens.case import Adapter, Case

Found = dict[str, Any]


def to_nchw(array: Any) -> Any:
    """[n, h, w, c] to [n, c, h, w]; other ranks as they are."""
    return array.transpose(0, 3, 1, 2) if array.ndim == 4 else array


def to_oihw(kernel: Any) -> Any:
    """[h, w, i, o] to [o, i, h, w]."""
    return kernel.transpose(3, 2, 0, 1)


def to_hwio(weight: Any) -> Any:
    """[o, i, h, w] to [h, w, i, o]."""
    return weight.transpose(2, 3, 1, 0)


def only(options: Mapping[str, Any], known: str) -> None:
    """ValueError for an option that the adapter would otherwise pass over."""
    unknown = sorted(set(options) - set(known.split()))
    if unknown:
        raise ValueError(f"options {unknown} are not known here, only {known}")


def with_gradients(
    compute: Callable[..., Any], inputs: Mapping[str, Any], cotangent: Any
) -> tuple[Any, Found]:
    """`compute(**inputs)` and the gradients of its product with a cotangent.

    Operation by operation, as a compilation of many small cases takes longer than they do.
    """
    y, pull = jax.vjp(lambda inputs: compute(**inputs), dict(inputs))
    return y, pull(jnp.asarray(cotangent, y.dtype))[0]


def pair(value: Any) -> Any:
    """The reference's [x, y] as ours (vertical, horizontal)."""
    return value if isinstance(value, int) else tuple(value[::-1])


def pads(value: Any) -> Any:
    """The reference's p, [x, y] or [x0, x1, y0, y1] as ours."""
    if isinstance(value, int):
        return value
    x0, x1, y0, y1 = value if len(value) == 4 else (value[0], value[0], value[1], value[1])
    return ((y0, y1), (x0, x1))


def setup_filters(case: Case) -> Found:
    """`setup_filter`."""
    found = {}
    for index, options in enumerate(case.call["settings"]):
        only(options, "f normalize flip_filter gain separable")
        found[f"out/{index}_filter"] = setup_filter(
            options["f"],
            normalize=options.get("normalize", True),
            flip=options.get("flip_filter", False),
            gain=float(options.get("gain", 1.0)),
            separable=options.get("separable"),
        )
    return found


def upfirdn(case: Case) -> Found:
    """`upfirdn2d`, `upsample2d`, `downsample2d`, `filter2d`."""
    found: Found = {}
    for index, options in enumerate(case.call["settings"]):
        only(options, "fshape fn up down padding gain flip_filter")
        taps = case[f"in/{index}_f"] if f"in/{index}_f" in case else None
        name = options.get("fn", "upfirdn2d")
        more: Found = {
            "flip": options.get("flip_filter", False),
            "gain": float(options.get("gain", 1.0)),
        }
        more["padding"] = pads(options.get("padding", 0))
        if name == "upfirdn2d":
            more |= {"up": pair(options.get("up", 1)), "down": pair(options.get("down", 1))}
        elif name != "filter2d":
            more |= {key: options[key] for key in ("up", "down") if key in options}
        functions = (upfirdn2d, upsample2d, downsample2d, filter2d)
        (function,) = [f for f in functions if f.__name__ == name]

        def compute(x, function=function, taps=taps, more=more):
            return function(x, taps, **more)

        y, gradients = with_gradients(
            compute,
            {"x": jnp.asarray(case.images(f"in/{index}_x"))},
            case.images(f"in/cotangent_{index}_y"),
        )
        found |= {f"out/{index}_y": to_nchw(y), f"grad/{index}_x": to_nchw(gradients["x"])}
    return found


def convolutions(case: Case) -> Found:
    """`conv2d_resample`; its weights are correlated unless `flip_weight` is false."""
    found: Found = {}
    for index, options in enumerate(case.call["settings"]):
        only(options, "k cin cout padding up down f groups flip_weight flip_filter")
        size = options["k"]
        padding = pads(options.get("padding", 0))

        def compute(x, w, index=index, options=options, padding=padding, size=size):
            kernel = to_hwio(w)
            return conv2d_resample(
                x,
                kernel if options.get("flip_weight", True) else kernel[::-1, ::-1],
                case[f"in/{index}_f"] if f"in/{index}_f" in case else None,
                up=options.get("up", 1),
                down=options.get("down", 1),
                # What keeps the size is how our networks call it.
                padding=None if padding == size // 2 else padding,
                groups=options.get("groups", 1),
                flip=options.get("flip_filter", False),
            )

        inputs = {"x": jnp.asarray(case.images(f"in/{index}_x"))}
        inputs["w"] = jnp.asarray(case[f"in/{index}_w"])
        y, gradients = with_gradients(compute, inputs, case.images(f"in/cotangent_{index}_y"))
        found |= {f"out/{index}_y": to_nchw(y), f"grad/{index}_w": gradients["w"]}
        found[f"grad/{index}_x"] = to_nchw(gradients["x"])
    return found


def modulated(case: Case) -> Found:
    """`modulated_conv2d`; noise is added after the demodulation."""
    found: Found = {}
    for index, options in enumerate(case.call["settings"]):
        only(options, "demodulate up down flip_weight noise k cout")
        taps = case["in/resample_filter"]
        noise = case[f"in/{index}_noise"] if f"in/{index}_noise" in case else np.zeros(())
        noise = noise[..., None] if noise.ndim == 2 else to_hwc(noise)

        def compute(x, weight, styles, options=options, taps=taps, noise=noise):
            kernel = to_hwio(weight)

            def operation(x, kernel):
                return conv2d_resample(
                    x, kernel, taps, up=options.get("up", 1), down=options.get("down", 1)
                )

            y = modulated_conv2d(
                x,
                kernel if options.get("flip_weight", True) else kernel[::-1, ::-1],
                styles,
                demodulate=options["demodulate"],
                operation=operation,
            )
            return y + noise

        inputs = {"x": jnp.asarray(case.images(f"in/{index}_x"))}
        inputs |= {key: jnp.asarray(case[f"in/{index}_{key}"]) for key in ("weight", "styles")}
        y, gradients = with_gradients(compute, inputs, case.images(f"in/cotangent_{index}_y"))
        found[f"out/{index}_y"] = to_nchw(y)
        found |= {f"grad/{index}_{key}": to_nchw(gradients[key]) for key in ("x",)}
        found |= {f"grad/{index}_{key}": gradients[key] for key in ("weight", "styles")}
    return found


def to_hwc(noise: np.ndarray) -> np.ndarray:
    """[n, 1, h, w] to [n, h, w, 1]; a scalar as it is."""
    return noise.transpose(0, 2, 3, 1) if noise.ndim == 4 else noise


def activations(case: Case) -> Found:
    """`bias_act`: every activation with every setting that the case has an output for."""
    found: Found = {}
    settings = case.call["settings"]
    names = {match[1] for key in case.stored if (match := re.match(r"out/(.+)_\d+_y$", key))}
    if unknown := names - set(ACTIVATIONS):
        raise ValueError(f"activations {sorted(unknown)} are not in ganjax")
    for name in sorted(names):
        for index, options in enumerate(settings):
            only(options, "bias dim gain alpha clamp")
            axis = options.get("dim", 1)

            def compute(x, b=None, name=name, options=options, axis=axis):
                named = {"slope": "alpha", "gain": "gain", "clamp": "clamp"}
                more = {ours: float(options[key]) for ours, key in named.items() if key in options}
                return bias_act(x, b, name, axis=axis, **more)

            inputs = {"x": jnp.asarray(case["in/x"])}
            if options.get("bias", True):
                inputs["b"] = jnp.asarray(case[f"in/b_dim{axis}"])
            y, gradients = with_gradients(compute, inputs, case["in/cotangent"])
            found[f"out/{name}_{index}_y"] = y
            found |= {f"grad/{name}_{index}_{key}": g for key, g in gradients.items()}
    return found


def minibatch_std(case: Case) -> Found:
    """`MinibatchStdLayer`."""
    found: Found = {}
    for index, options in enumerate(case.call["settings"]):
        only(options, "x group_size num_channels")
        layer = MinibatchStd(options["group_size"], options.get("num_channels", 1))
        y, gradients = with_gradients(
            lambda x, layer=layer: layer.apply({}, x),
            {"x": jnp.asarray(case.images(f"in/{index}_x"))},
            case.images(f"in/cotangent_{index}_y"),
        )
        found |= {f"out/{index}_y": to_nchw(y), f"grad/{index}_x": to_nchw(gradients["x"])}
    return found


def _adapter(names: str, reference: str, compute: Any) -> Adapter:
    return Adapter("stylegan2", names, reference, compute)


ADAPTERS = (
    _adapter(r"^op_setup_filter", r":setup_filter", setup_filters),
    _adapter(r"^op_upfirdn2d", r"ops/upfirdn2d\.py", upfirdn),
    _adapter(r"^op_conv2d_resample", r"ops/conv2d_resample\.py", convolutions),
    _adapter(r"^op_modulated_conv2d", r":modulated_conv2d", modulated),
    _adapter(r"^op_bias_act", r"ops/bias_act\.py", activations),
    _adapter(r"^op_minibatch_std", r":MinibatchStdLayer", minibatch_std),
)
