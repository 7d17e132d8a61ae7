"""ADA (training/augment.py of stylegan2-ada-pytorch and stylegan-v): pipes and the p rule."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import erfinv

from ganjax.adversarial.ada import Adaptive
from ganjax.adversarial.augment import (
    DRAWN,
    Augment,
    filter_bands,
    filter_bank,
    pipe,
    recolor,
)
from ganjax.layers.warp import EDGE, warp
from tests.goldens.adapters.stylegan2_ops import Found, to_nchw
from tests.goldens.case import Adapter, Case

# The reference's names of draws where they are not ours, the trajectories' too.
NAMES = {
    "x_flip": "xflip",
    "integer_translation": "xint",
    "isotropic_scaling": "scale",
    "pre_rotation": "prerotate",
    "anisotropic_scaling": "aniso",
    "post_rotation": "postrotate",
    "fractional_translation": "xfrac",
    "luma_flip": "lumaflip",
    "hue_rotation": "hue",
}
MOVES = ("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac")


def build(kwargs: Mapping[str, Any]) -> Augment:
    """The pipe of the reference's constructor arguments."""
    given = {key: value for key, value in kwargs.items() if key != "class_name"}
    bands = {"imgfilter_bands": tuple(map(float, given.pop("imgfilter_bands", (1,) * 4)))}
    return Augment(**{key: float(value) for key, value in given.items()}, **bands)


def draws_of(recorded: Mapping[str, np.ndarray], frames: int = 1) -> dict[str, Any]:
    """Ours from recorded ones, `<transform>_<uniform|normal|val|gate>`."""
    draws: dict[str, Any] = {}
    bands: dict[str, dict[int, np.ndarray]] = {"value": {}, "gate": {}}
    for key, array in recorded.items():
        name, kind = re.sub(r"^\d+_", "", key).rsplit("_", 1)
        kind = "gate" if kind == "gate" else "value"
        if array.ndim == 4 and array.shape[2:] != (1, 1):  # the noise itself
            n, c, h, w = array.shape
            clips = array.reshape(n, frames, c // frames, h, w).transpose(0, 1, 3, 4, 2)
            draws.setdefault("noise", {})["pixels"] = clips if frames > 1 else clips[:, 0]
            continue
        band = re.search(r"(?:band|filter)_?(\d)", name)
        if band:
            bands[kind][int(band[1])] = array.reshape(-1)
            continue
        name = NAMES.get(name, name)
        name = next((known for known in ("noise", "cutout") if known in name), name)
        count = DRAWN[name][2] if kind == "value" else ()
        draws.setdefault(name, {})[kind] = array.reshape(len(array), *count)
    if bands["value"]:
        draws["imgfilter"] = {
            kind: np.stack([found[i] for i in sorted(found)], axis=1)
            for kind, found in bands.items()
        }
    return jax.tree.map(jnp.asarray, draws)


def at_percentile(draws: Mapping[str, Any], q: float) -> dict[str, Any]:
    """Draws that stand at a percentile of their distributions, every gate open."""

    def value(name: str, array: Any) -> Any:
        if name == "postrotate":  # of the two rotations the first alone
            return jnp.full_like(array, 0.5)
        if name == "noise":  # the magnitude
            return jnp.full_like(array, erfinv(q))
        normal = DRAWN[name][1] == "normal"
        # NOTE: the reference takes erfinv without the square root of two.
        return jnp.full_like(array, erfinv(2 * q - 1) if normal else q)

    return {
        name: {
            **own,
            "value": value(name, own["value"]),
            "gate": jnp.full_like(own["gate"], -1),
        }
        for name, own in draws.items()
    }


def official_grid(to_input: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Our map as the reference has it: mirrored pixels, and the map of a mirrored image's grid."""
    to_input = np.asarray(to_input, np.float64)
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * centre
    corners = np.concatenate([corners, np.ones((4, 1))], axis=1)
    places = np.einsum("nij,kj->nki", to_input, corners)[..., :2].reshape(-1, 2)
    reach = np.concatenate([(-places).max(0), places.max(0)]) + np.tile(2 * EDGE - centre, 2)
    margin = np.ceil(np.clip(reach, 0, np.tile([width - 1, height - 1], 2)))

    def scaled(x: float, y: float) -> np.ndarray:
        return np.diag([x, y, 1.0])

    def moved(x: float, y: float) -> np.ndarray:
        return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])

    grid = moved(*(margin[:2] - margin[2:]) / 2) @ to_input
    grid = moved(-0.5, -0.5) @ scaled(2, 2) @ grid @ scaled(0.5, 0.5) @ moved(0.5, 0.5)
    padded = 2 * (np.array([width, height]) + margin[:2] + margin[2:])
    result = 2 * (np.array([width, height]) + 2 * EDGE)
    grid = scaled(*(2 / padded)) @ grid @ scaled(*(result / 2))
    return margin.astype(np.int32), grid[:, :2]


def in_grids(found: Found, images: Any) -> Found:
    """The map that was found, in the reference's own coordinates."""
    if "G_inv" not in found:
        return {}
    margin, grid = official_grid(found["G_inv"], *images.shape[1:3])
    return {"margin_mx0_my0_mx1_my1": margin, "theta_affine_grid": grid}


def steps(own: Augment, images: Any, draws: Any, p: Any) -> Found:
    """What the reference records on the way: parameters, and images after each kind of transform.

    The images are clips [n, t, h, w, c].
    """
    n, t, h, w, c = images.shape
    found: Found = {}
    x = jnp.moveaxis(images, 1, 3).reshape(n, h, w, t * c)

    def note(name: str) -> None:
        frames = x.reshape(n, h, w, t, c)
        found[f"images_after_{name}"] = frames.transpose(0, 3, 4, 1, 2).reshape(n, t * c, h, w)

    if any(getattr(own, name) > 0 for name in MOVES):
        to_input = own.to_input(draws, p, (h, w))
        found["G_inv"] = to_input
        x = warp(x, to_input)
        note("geom")
    if set(draws) & {"brightness", "contrast", "lumaflip", "hue", "saturation"}:
        found["C"] = own.colors(draws, p)
        x = recolor(x.reshape(n, h, w, t, c), found["C"]).reshape(n, h, w, t * c)
        note("color")
    if "imgfilter" in draws:
        found["g"] = own.gains(draws, p)
        found["Hz_prime"] = found["g"] @ filter_bank()
        x = filter_bands(x, found["g"])
        note("filter")
    if "noise" in draws:
        found["sigma"] = own.deviation(draws, p).reshape(n, 1, 1, 1)
        pixels = draws["noise"]["pixels"].reshape(images.shape)
        noise = jnp.moveaxis(pixels, 1, 3).reshape(x.shape)
        x = x + noise * found["sigma"]
        note("noise")
    if "cutout" in draws:
        size, centre = own.rectangle(draws, p)
        found["cutout_size"] = jnp.stack([size, size], axis=1).reshape(n, 2, 1, 1, 1)
        found["cutout_center"] = centre.reshape(n, 2, 1, 1, 1)
    return found


def pipeline(case: Case) -> Found:
    """`AugmentPipe.forward` and its gradient; clips where the case has frames."""
    frames = case.call.get("frames", 1)
    own, p = build(case.kwargs), jnp.asarray(case.call["p"], case.dtype)
    draws = draws_of(case.group("in/draw/"), frames)
    if "debug_percentile" in case.call:
        draws = at_percentile(draws, case.call["debug_percentile"])
    images = jnp.asarray(case.images("in/images"))
    clips = images.reshape(-1, frames, *images.shape[1:])

    def augmented(images: Any, draws: Any, p: Any) -> Any:
        given = images.reshape(clips.shape) if frames > 1 else images
        return own(given, draws, p).reshape(images.shape)

    @jax.jit
    def compute(images: Any, cotangent: Any, draws: Any, p: Any) -> tuple[Any, Any, Found]:
        result, pull = jax.vjp(lambda images: augmented(images, draws, p), images)
        return result, pull(cotangent)[0], steps(own, images.reshape(clips.shape), draws, p)

    cotangent = jnp.asarray(case.images("in/cotangent_images"))
    result, gradient, between = compute(images, cotangent, draws, p)
    found = {"out/images": to_nchw(result), "grad/images": to_nchw(gradient)}
    return found | {f"out/{k}": v for k, v in (between | in_grids(between, images)).items()}


def single_transforms(case: Case) -> Found:
    """Each transform alone, at percentiles of its distribution."""
    found: Found = {}
    images = jnp.asarray(case.images("in/images"))
    names = {key.split("/")[1] for key in case.stored if key.startswith("out/")}
    for name in names:
        augment = build({name: 1, **case.kwargs.get(name, {})})

        @jax.jit
        def compute(images: Any, draws: Any, p: Any, own: Augment = augment) -> Found:
            return {**steps(own, images[:, None], draws, p), "images": own(images, draws, p)}

        for q in case.call["percentiles"]:
            recorded = case.group(f"in/draw_{name}_q{q}/")
            draws = at_percentile(draws_of(recorded), q)
            p = jnp.asarray(case[f"param/{name}/p"] if f"param/{name}/p" in case else 1.0)
            own = compute(images, draws, p)
            own |= {"images": to_nchw(own["images"]), **in_grids(own, images)}
            shared = {"G_inv", "C", "g", "theta_affine_grid", "sigma"}
            shared |= {"cutout_size", "cutout_center"}
            for key, value in own.items():  # parameters of the first sample: all have the same
                found[f"out/{name}/q{q}/{key}"] = value[:1] if key in shared else value
    return found


def p_rule(case: Case) -> Found:
    """The training loop's p, an adjustment a row."""
    call = case.call
    rule = Adaptive(
        pipe("bgc"),
        call["p0"],
        batch=call["batch_size"],
        target=call["ada_target"],
        every=call["ada_interval"],
        ramp_images=call["ada_kimg"] * 1000,
    )
    extras, after = dict(rule.extras()), []
    for index, mean in enumerate(case["in/mean_sign_per_interval"]):
        # Half of the interval's reals before a step at which nothing is adjusted.
        for step in (rule.every * (index + 1) - 1, rule.every * (index + 1)):
            seen = {"ada_signs": extras["ada_signs"] + mean, "ada_reals": extras["ada_reals"] + 1}
            extras = dict(rule.adjust({**extras, **seen}, step))
        after.append(extras["ada_p"])
    return {"out/p_after": np.array(after)}


ADAPTERS = (
    Adapter("ada", r"^rule_p", r"training_loop\.py \(ADA", p_rule),
    Adapter("ada", r"^single", r"^$", single_transforms),
    Adapter("ada", r"^(?!rule)", r"training/augment\.py:AugmentPipe", pipeline),
)
