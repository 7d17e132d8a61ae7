"""TGANv2 (pfnet-research/tgan2, Chainer)."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ganjax.adversarial.losses import logistic_d, logistic_g
from ganjax.families.tganv2 import official
from ganjax.families.tganv2.blocks import (
    ConvLSTM,
    DiscriminatorBlock,
    FirstDiscriminatorBlock,
    GeneratorBlock,
)
from ganjax.families.tganv2.losses import r1_sum
from ganjax.families.tganv2.networks import LEVELS, Discriminator, Generator
from ganjax.families.tganv2.subsampling import levels_of
from ganjax.interop import entries as interop
from tests.goldens.case import Adapter, Case

Found = dict[str, Any]


def only(options: Mapping[str, Any], **fixed: Any) -> None:
    """ValueError for options of the reference that ganjax has not, rather than a wrong network."""
    for name, value in fixed.items():
        if options.get(name, value) != value:
            raise ValueError(f"{name}={options[name]!r} is not in ganjax, only {value!r}")


def strides(option: Any) -> tuple[int, ...]:
    """The reference's `subsample_frame` and `subsample_batch`: numbers, or whether by 2."""
    return tuple(option) if isinstance(option, list | tuple) else (2 if option else 1,) * 3


def activation(options: Mapping[str, Any]) -> Any:
    name = options.get("activation", "relu")
    if name == "leaky_relu":
        return functools.partial(jax.nn.leaky_relu, negative_slope=0.2)  # Chainer's default
    return getattr(jax.nn, name)


def channels_last(array: Any) -> Any:
    """[n, c, ...] to [n, ..., c]."""
    return jnp.moveaxis(jnp.asarray(array), 1, -1)


def channels_first(array: Any) -> Any:
    return np.moveaxis(np.asarray(array), -1, 1)


def layer(module: nn.Module, state: Mapping[str, np.ndarray], *args: Any, **kwargs: Any) -> Any:
    """Our variables of a single layer from the reference's, and their official entries."""
    inputs = (args, kwargs)
    entries = official.entries_of(interop.shapes_of(module, inputs))
    ignored = official.COUNTER.search
    variables, report = interop.read(state, module, entries, inputs, None, ignored=ignored)
    if not report.complete:
        raise ValueError(f"the state does not fit: {report}")
    return jax.tree.map(jnp.asarray, variables), entries


def conv_lstm(case: Case) -> Found:
    """`ConvLSTM`: every step's state, gradients of the last one's output."""
    options = case.kwargs
    size = options["ksize"]
    only(options, stride=1, pad=size // 2, dilate=1)
    module = ConvLSTM(options["out_channels"], size, options.get("peephole", False))
    x = jnp.moveaxis(case["in/x"], 2, -1)
    cotangent = channels_last(case["in/cotangent"])
    variables, entries = layer(module, case.group("param/"), x, steps=len(x))

    def objective(variables, x):
        h, cells = module.apply(variables, x, len(x))
        return jnp.vdot(h[-1], cotangent), (h, cells)

    (gradient, dx), (h, cells) = jax.grad(objective, (0, 1), has_aux=True)(variables, x)
    found: Found = {}
    for step in range(len(x)):
        found[f"out/h{step}"] = channels_first(h[step])
        found[f"out/c{step}"] = channels_first(cells[step])
        found[f"grad/x{step}"] = channels_first(dx[step])
    gradients = interop.collect(gradient, entries)
    return found | {f"grad/{name}": array for name, array in gradients.items()}


def resblocks(case: Case) -> Found:
    """`GenBlock` in training, `DisBlock` and `OptimizedDisBlock` at several sizes."""
    options = case.kwargs
    features = options["out_channels"]
    x, cotangent = channels_last(case["in/x"]), channels_last(case["in/cotangent"])
    block = GeneratorBlock(
        features, up=options.get("upsample", False), activation=activation(options)
    )
    variables, entries = layer(block, case.group("param/gen/"), x, train=True)

    def objective(params, x):
        y, moved = block.apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
        )
        return jnp.vdot(y, cotangent), (y, moved)

    (gradient, dx), (y, moved) = jax.grad(objective, (0, 1), has_aux=True)(variables["params"], x)
    found = {"out/gen_train": channels_first(y), "grad/x": channels_first(dx)}
    gradients = interop.collect({"params": gradient}, entries)
    found |= {f"grad/gen/{name}": array for name, array in gradients.items()}
    found |= after(interop.collect(moved, entries), "gen_")
    blocks = {
        "dis": DiscriminatorBlock(features, options.get("downsample", False), activation(options)),
        "opt": FirstDiscriminatorBlock(features),
    }
    for key, array in case.group("in/v_").items():
        which = "opt" if key == "rgb" else "dis"
        clip = channels_last(array)
        variables, _ = layer(blocks[which], case.group(f"param/{which}/"), clip)
        label = "out/opt" if which == "opt" else f"out/dis_{key}"
        found[label] = channels_first(blocks[which].apply(variables, clip))
    return found


def after(statistics: Mapping[str, Any], prefix: str = "") -> Found:
    """Running statistics under the reference's keys."""
    return {
        f"out/{prefix}{name.replace('/', '_')}_after": array for name, array in statistics.items()
    }


def generator(case: Case) -> Found:
    """`MultiTGANCLSTMGenerator` in training and in test mode."""
    options, call = case.kwargs, case.call
    only(options, n_classes=0, use_avg_pooling=False, use_single_video=False)
    module = Generator(
        frames=options.get("n_frames", 16),
        latent_dim=options.get("z_slow_dim", 256),
        bottom_width=options.get("t_size", 4),
        channels=options.get("ch", 32),
        recurrent_channels=options.get("clstm_ch", 512),
        recurrent_layers=options.get("n_layers", 1),
        frame_strides=strides(options.get("subsample_frame", True)),
        batch_strides=strides(options.get("subsample_batch", True)),
        stride=options.get("stride", 1),
        max_offset=options.get("max_offset", 0),
        image_channels=options.get("out_channels", 3),
        activation=activation(options),
    )
    variables, report = official.from_official(case.group("param/"), module)
    if not report.complete:
        raise ValueError(f"the state does not fit: {report}")
    z, frames = jnp.asarray(case["in/z"]), call.get("n_frames")
    offsets = [int(offset) for offset in case["in/offsets"]]
    cotangents = [channels_last(case[key]) for key in sorted(case.stored) if "cotangent" in key]
    level = call.get("render_level", options.get("render_level", LEVELS))

    def objective(params, z):
        given = {**variables, "params": params}
        if call["train"]:
            videos, moved = module.apply(given, z, offsets, frames, mutable=["batch_stats"])
        else:
            videos, moved = [module.apply(given, z, level, frames, method="sample")], {}
        total = sum(jnp.vdot(video, w) for video, w in zip(videos, cotangents, strict=True))
        return total, (videos, moved)

    (gradient, dz), (videos, moved) = jax.grad(objective, (0, 1), has_aux=True)(
        variables["params"], z
    )
    found: Found = {"grad/z": dz}
    found |= {f"out/x{n}": channels_first(video) for n, video in enumerate(videos, 1)}
    gradients = official.to_official({"params": gradient}, module)
    found |= {f"grad/{name}": array for name, array in gradients.items()}
    return found | after(official.to_official(moved, module))


def discriminator_loss(case: Case) -> Found:
    """`MultiResNetVideoDiscriminator` with the updater's losses."""
    options, weight = case.kwargs, case.call["lam"]
    only(options, n_classes=0)
    count = options.get("n_levels", 4)
    module = Discriminator(
        options.get("mid_ch", 64), batch_strides=(2,) * (count - 1), activation=activation(options)
    )
    real, fake = (
        [channels_last(case[f"in/{kind}{level}"]) for level in range(1, count + 1)]
        for kind in ("real", "fake")
    )
    state = case.group("param/")
    entries = official.entries_of(interop.shapes_of(module, ((real,), {})))
    variables, _ = layer(module, state, real)

    def total(variables):
        y_real, sown = module.apply(variables, real, mutable=["intermediates"])
        y_fake = module.apply(variables, fake)
        loss = sum(logistic_d(y_real, y_fake))
        penalty = r1_sum(lambda videos: module.apply(variables, videos), real, weight)
        return loss + penalty, (y_real, y_fake, loss, penalty, sown["intermediates"])

    gradient, (y_real, y_fake, loss, penalty, sown) = jax.grad(total, has_aux=True)(variables)
    found: Found = {
        "out/y_real": y_real[:, None],
        "out/y_fake": y_fake[:, None],
        "out/loss_dis": loss,
        "out/loss_gp": penalty,
        "out/r1_sum": penalty / weight,
    }
    loss_g, grads = jax.value_and_grad(lambda fake: logistic_g(module.apply(variables, fake)))(fake)
    found["out/loss_gen"] = loss_g
    for level in range(count):
        found[f"out/feature_real{level + 1}"] = sown[f"level{level}"]["feature"][0]
        found[f"grad/loss_gen_fake{level + 1}"] = channels_first(grads[level])
    gradients = interop.collect(gradient, entries)
    return found | {f"grad/total_dis/{name}": array for name, array in gradients.items()}


def dataset(case: Case) -> Found:
    """`MultiLevelDataset`: one clip at every level."""
    clip = jnp.moveaxis(case["in/x"], 0, -1)[None]
    offsets = [int(offset) for offset in case["in/offsets"]]
    frames = strides(case.kwargs.get("subsample_frame", True))
    levels = levels_of(clip, offsets, frames, batches=(1, 1, 1))
    return {f"out/x{n}": channels_first(level)[0] for n, level in enumerate(levels, 1)}


ADAPTERS = (
    Adapter("tganv2", r"^conv_lstm", r":ConvLSTM$", conv_lstm),
    Adapter("tganv2", r"^resblocks", r"resblocks\.py$", resblocks),
    Adapter("tganv2", r"^generator", r":MultiTGANCLSTMGenerator$", generator),
    Adapter("tganv2", r"^discriminator_loss", r"dirac_updater\.py$", discriminator_loss),
    Adapter("tganv2", r"^dataset", r":MultiLevelDataset$", dataset),
)
