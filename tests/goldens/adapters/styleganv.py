"""StyleGAN-V's networks and its sampling of times (universome/stylegan-v)."""

import functools
import random
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from ganjax.data.clips import Even, Sparse, Times
from ganjax.families.styleganv import official
from ganjax.families.styleganv.motion import Convolutions, Mapped, MotionEncoder, Recurrence, Waves
from ganjax.families.styleganv.networks import (
    Discriminator,
    Generator,
    LearnedDifferences,
    added,
    between_neighbours,
    between_the_first,
    blank,
    to_constant,
    to_styles,
    told,
)
from tests.goldens.adapters import stylegan2
from tests.goldens.adapters.stylegan2 import MappingMaker, array_of, block_features, load
from tests.goldens.adapters.stylegan2_ops import Found, only, to_nchw
from tests.goldens.case import Adapter, Case

Options = Mapping[str, Any]

JOINS = {"concat_const": to_constant, "concat_w": to_styles, "sum_w": added}
INPUTS = {"concat_const": "temporal", "concat_w": "const", "sum_w": "const"}
# Of the reference's configuration, what its networks do not look at.
UNREAD = "source name fps type total_dists max_dist dists_between_frames max_dist_between_frames"


def build_motion(cfg: Options, classes: int) -> Any:
    """What makes our motion encoder for the reference's configuration, called with `classes`."""
    motion, waves = cfg["motion"], cfg["time_enc"]
    only(
        motion,
        "z_dim v_dim motion_z_distance gen_strategy kernel_size fourier use_fractional_t",
    )
    only(waves, "cond_type dim min_period_len max_period_len phase_dropout_std")
    trajectory: Any = Recurrence
    if motion["gen_strategy"] == "conv":
        trajectory = functools.partial(Convolutions, taps=motion["kernel_size"])
    encoding: Any = functools.partial(Mapped, size=motion["v_dim"], classes=classes)
    if motion["fourier"]:
        encoding = functools.partial(
            Waves, waves["dim"], float(waves["min_period_len"]), float(waves["max_period_len"])
        )
    return functools.partial(
        MotionEncoder,
        noise_dim=motion["z_dim"],
        features=motion["v_dim"],
        distance=motion["motion_z_distance"],
        trajectory=trajectory,
        encoding=encoding,
    )


def build_generator(options: Options) -> Generator:
    """Our generator for the reference's constructor arguments."""
    options = {key: value for key, value in options.items() if key != "class_name"}
    cfg = options.pop("cfg")
    only(cfg, f"sampling use_noise input z_dim w_dim c_dim motion time_enc {UNREAD}")
    condition = cfg["time_enc"]["cond_type"]
    if cfg["input"]["type"] != INPUTS[condition]:
        raise ValueError(f"input {cfg['input']} with cond_type {condition} is not in ganjax")
    mapping = {k: v for k, v in options.pop("mapping_kwargs", {}).items() if k != "cfg"}
    own = stylegan2.build_generator(
        {**options, "z_dim": cfg["z_dim"], "use_noise": cfg["use_noise"]}, old=True
    )
    given = {field: getattr(own, field) for field in own.__dataclass_fields__}
    inner = {"name": None, "parent": None}
    fields = {**given, "mapping_network": MappingMaker({"w_avg_beta": 0.995, **mapping})} | inner
    return Generator(
        **fields, motion=build_motion(cfg, options.get("c_dim", 0)), join=JOINS[condition]
    )


def build_discriminator(options: Options) -> Discriminator:
    """Our discriminator for the reference's constructor arguments."""
    options = {key: value for key, value in options.items() if key != "class_name"}
    cfg = options.pop("cfg")
    only(
        cfg,
        f"sampling concat_res num_frames_div_factor dummy_c mbstd_group_size skip_small_t_freqs"
        f" {UNREAD}",
    )
    own = stylegan2.build_discriminator(options, old=True)
    given = {field: getattr(own, field) for field in own.__dataclass_fields__}
    sampling = cfg["sampling"]
    even = sampling.get("type", "random") == "uniform"
    return Discriminator(
        **(given | {"name": None, "parent": None}),
        frames=sampling["num_frames_per_video"],
        join_resolution=cfg["concat_res"],
        share=cfg["num_frames_div_factor"],
        differences=between_the_first if even else between_neighbours,
        encoder=functools.partial(
            LearnedDifferences,
            longest=sampling["max_num_frames"],
            skip=cfg.get("skip_small_t_freqs", 0),
        ),
        projected=blank if cfg.get("dummy_c", False) else told,
    )


def gradients_of(gradient: Any, module: nn.Module) -> Found:
    """By the names of the reference's parameters."""
    found = official.to_official({"params": gradient}, module)
    return {f"grad/{name}": array for name, array in found.items()}


def motion(case: Case) -> Found:
    """`MotionMappingNetwork`: codes, what they lie between, gradients."""
    classes = case.kwargs["cfg"].get("c_dim", 0)
    module = build_motion(case.kwargs["cfg"], classes)(classes=classes)
    variables = load(case.group("param/"), module, official)
    times, labels = jnp.asarray(case["in/t"]), array_of(case, "in/c") if classes else None
    cotangent = case["in/cotangent_out"]

    def objective(params, noise):
        codes = module.apply({"params": params}, times, noise, None, labels)
        return jnp.vdot(codes.reshape(cotangent.shape), cotangent), codes

    noise = jnp.asarray(case["in/motion_z"])
    params = variables["params"]
    (gradient, d_noise), codes = jax.grad(objective, (0, 1), has_aux=True)(params, noise)
    left, right, number = module.apply(variables, times, noise, None, labels, method="neighbours")
    start = number * module.distance
    share = ((times - start) / module.distance)[..., None]
    between = left * (1 - share) + right * share
    return {
        "out/out": codes.reshape(-1, codes.shape[-1]),
        "out/motion_u_left": left,
        "out/motion_u_right": right,
        "out/motion_u": between.reshape(-1, between.shape[-1]),
        "out/interp_weights": share,
        "out/t_left": start,
        "out/t_right": start + module.distance,
        "grad/motion_z": d_noise,
        **gradients_of(gradient, module),
    }


def renamed(features: Found) -> Found:
    """`out/b8.0` and `out/b8.1` for StyleGAN2's `out/feat/b8_x` and `out/feat/b8_img`."""
    names = {"_x": ".0", "_img": ".1", "_out": ""}
    found = {}
    for key, array in features.items():
        key = key.replace("out/feat/", "out/")
        end = next((end for end in names if key.endswith(end)), "")
        found[key.removesuffix(end) + names.get(end, "")] = array
    return found


def generator(case: Case) -> Found:
    """`Generator`: w, motion codes, frames, features of all blocks, gradients."""
    call = {"mode": "eval()", "motion_z": "recorded", **case.call}
    only(call, "truncation_psi truncation_cutoff noise_mode mode motion_z")
    if call["noise_mode"] == "random" or call["mode"] != "eval()":
        raise ValueError(f"{call}: recorded noise, or a mean of w that moves, is not compared")
    module = build_generator(case.kwargs)
    variables = load(case.group("param/"), module, official)
    labels = array_of(case, "in/c") if module.classes else None
    cotangent = case.images("in/cotangent_out")
    times = jnp.asarray(case["in/t"])
    psi, cutoff = call.get("truncation_psi", 1), call.get("truncation_cutoff")

    def objective(params, z, noise):
        given = {**variables, "params": params}
        ws = module.apply(given, z, labels, psi, cutoff, method="styles")
        codes = module.apply(given, times, noise, None, labels, method="moves")
        frames, kept = module.apply(
            given,
            ws,
            codes,
            call["noise_mode"],
            method="synthesize",
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        total = jnp.vdot(frames.reshape(cotangent.shape), cotangent)
        return total, (ws, codes, frames, kept["intermediates"])

    inputs = (variables["params"], jnp.asarray(case["in/z"]), jnp.asarray(case["in/motion_z"]))
    gradient, (ws, codes, frames, kept) = jax.jit(jax.grad(objective, (0, 1, 2), has_aux=True))(
        *inputs
    )
    codes = codes.reshape(-1, codes.shape[-1])
    const = variables["params"]["synthesis"]["b4"]["const"]
    start = jnp.broadcast_to(const, (len(codes), *const.shape))
    if module.join is to_constant:
        shown = jnp.broadcast_to(codes[:, None, None], (*start.shape[:3], codes.shape[-1]))
        start = jnp.concatenate([start, shown], axis=-1)
    found = {
        "out/out": to_nchw(frames.reshape(cotangent.shape)),
        "out/ws": ws,
        "out/motion_v": codes,
        "out/motion_in": to_nchw(start),
        "grad/z": gradient[1],
        "grad/motion_z": gradient[2],
    }
    return found | renamed(block_features(kept)) | gradients_of(gradient[0], module)


def discriminator(case: Case) -> Found:
    """`Discriminator`: logits, encoded times, features of all blocks, gradients."""
    module = build_discriminator(case.kwargs)
    variables = load(case.group("param/"), module, official)
    times = jnp.asarray(case["in/t"])
    images = case.images("in/img")
    clips = jnp.asarray(images.reshape(*times.shape, *images.shape[1:]))
    labels = array_of(case, "in/c") if module.classes else None

    def objective(params, clips):
        logits, kept = module.apply(
            {"params": params},
            clips,
            times,
            labels,
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        return jnp.vdot(logits, case["in/cotangent_out"]), (logits, kept["intermediates"])

    (gradient, d_clips), (logits, kept) = jax.jit(jax.grad(objective, (0, 1), has_aux=True))(
        variables["params"], clips
    )
    found = {"out/out": logits, "grad/img": to_nchw(d_clips.reshape(images.shape))}
    for path, (value, *_) in flatten_dict(kept).items():
        if path == ("time_encoder", "__call__"):
            found["out/t_embs"] = value.reshape(len(value), -1)
    features = renamed(block_features(kept))
    if "out/b4" in features:  # the epilogue's, before the projection: ours ends after it
        features["out/b4"] = logits[:, None]
    return found | features | gradients_of(gradient, module)


def sampler(experiment: dict[str, Any]) -> Times:
    """The rule that an experiment of ``sampling`` was made with."""
    given = experiment["cfg"]
    fields = {
        "frames": given["num_frames_per_video"],
        "max_dist": given.get("max_dist"),
        "fractional": experiment["use_fractional_t"],
    }
    if given["type"] == "uniform":
        return Even(**fields)
    dists = given.get("total_dists")
    fields["max_dist"] = fields["max_dist"] or experiment["total_video_len"]  # no limit
    return Sparse(dists=None if dists is None else tuple(dists), **fields)


def of_sampling(case: Case) -> dict[str, Any]:
    found = {}
    for number, experiment in enumerate(case.meta["experiments"]):
        times, length = sampler(experiment), experiment["total_video_len"]
        draws = random.Random(experiment["python_random_seed"])
        uniform = [drawn(draws, times, length) for _ in experiment["first20"]]
        found[f"{number}/first20"] = times(np.array(uniform), length)
    return found


def drawn(draws: random.Random, times: Times, length: int) -> list[float]:
    """The uniform numbers that make a rule choose as the reference did, draw by draw."""
    if isinstance(times, Even):
        most = min(times.max_dist or length, length // times.frames)
        dist = draws.randint(1, most)
        chosen, span = (dist - 1 + 0.5) / most, dist * (times.frames - 1)
    else:
        most = min(length - 1, times.max_dist)
        known = times.dists or range(most)
        fitting = [dist for dist in known if times.frames - 1 <= dist <= most]
        span = draws.choice(fitting)
        chosen = (fitting.index(span) + 0.5) / len(fitting)
    rest = length - span
    place = draws.random() if times.fractional else (draws.randint(0, rest - 1) + 0.5) / rest
    if isinstance(times, Even):
        return [chosen, place]
    inner = draws.sample(range(1, span), times.frames - 2)
    numbers = [frame - 1 - sum(f < frame for f in inner[:i]) for i, frame in enumerate(inner)]
    return [chosen, place, *((n + 0.5) / (span - 1 - i) for i, n in enumerate(numbers))]


ADAPTERS = (
    Adapter("styleganv", r"^sampling$", r"sample_frames", of_sampling),
    Adapter("styleganv", r"^motion", r":MotionMappingNetwork$", motion),
    Adapter("styleganv", r"^generator", r":Generator$", generator),
    Adapter("styleganv", r"^discriminator", r":Discriminator$", discriminator),
)
