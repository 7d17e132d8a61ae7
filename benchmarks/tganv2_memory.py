"""What TGANv2's subsampling saves in training, by the TPU compiler: a step's memory and FLOPs.

    JAX_OPTIMIZATION_LEVEL=O0 python benchmarks/tganv2_memory.py --what=growth
    JAX_OPTIMIZATION_LEVEL=O0 python benchmarks/tganv2_memory.py --what=variants

``growth``: one more level doubles the resolution, with and without subsampling. ``variants``: the
paper's Table 1, frames and videos left out or not, each with two batch sizes, of which a line gives
the largest that a chip holds. Both are the very step that trains, of the preset ``ucf101_192``, for
one v5e chip; no TPU is needed. ``--on=cpu`` asks the CPU's compiler, whose convolutions over
frames take more memory. ``--scale=4`` divides all channels by 4, for a quick look.

    python benchmarks/tganv2_memory.py --what=growth --on=kept

Nothing is compiled: the state, and beside it what the forward pass of the dearer phase keeps for
its gradient, the bytes of all arrays that JAX hands from one to the other. A compiler keeps some of
them narrower or computes them again, and needs room to work in.
"""

import dataclasses
import json
import time
from collections.abc import Iterable
from typing import Any

from absl import app, flags

from ganjax import environment

environment.prepare()  # before anything looks for devices

import jax  # noqa: E402
from jax.experimental import topologies  # noqa: E402

from configs import tganv2  # noqa: E402
from ganjax.adversarial.phases import Game  # noqa: E402
from ganjax.family import build  # noqa: E402
from ganjax.parallel.mesh import make_mesh  # noqa: E402
from ganjax.plan import CHIPS, GIB, shortage  # noqa: E402
from ganjax.program import assemble  # noqa: E402

WHAT = flags.DEFINE_enum("what", "variants", ["variants", "growth"], "Which table.")
BATCHES = flags.DEFINE_list("batches", ["8", "16"], "Videos of the first level.")
LEVELS = flags.DEFINE_list("levels", ["2", "3", "4", "5"], "growth: numbers of levels.")
SCALE = flags.DEFINE_integer("scale", 1, "Divides all channels.")
PRECISION = flags.DEFINE_string("precision", "float32", "Of the computation.")
ON = flags.DEFINE_enum(
    "on",
    "tpu",
    ["tpu", "cpu", "kept", "paper"],
    "Whose compiler is asked; kept, paper: none's, memory and FLOPs are counted.",
)
OUT = flags.DEFINE_string("out", None, "File that gets a line of JSON for each program.")

TPU = "TPU v5 lite"
CHIP = {"topology_name": "v5e:1x1", "chips_per_host_bounds": (1, 1, 1), "num_slices": 1}
# Strides of frames and of videos.
VARIANTS = {"both": (2, 2), "frames only": (2, 1), "videos only": (1, 2), "none": (1, 1)}
PAPER_GIB = 12e9 / GIB  # of a Tesla P100, as the paper has it


def measure(levels: int, variant: str, batch: int, device: Any) -> dict[str, Any]:
    """Memory in bytes and FLOPs of a step."""
    frames, videos = VARIANTS[variant]
    config = tganv2.get_config("ucf101_192")
    config.precision = PRECISION.value
    config.data.resolution = 24 * 2 ** (levels - 1)
    config.model.update(
        levels=levels,
        frame_strides=(frames,) * (levels - 1),
        batch_strides=(videos,) * (levels - 1),
        g_channels=config.model.g_channels // SCALE.value,
        recurrent_channels=config.model.recurrent_channels // SCALE.value,
        d_channels=config.model.d_channels // SCALE.value,
    )
    config.train.batch = batch
    row: dict[str, Any] = dict(
        levels=levels, pixels=config.data.resolution, variant=variant, batch=batch
    )
    due = ("g/main", "d/main")
    began = time.monotonic()
    # Counted where the recurrent layer's steps are written out.
    alone = assemble(build(config, "cpu"), make_mesh(None, jax.devices("cpu")[:1]))
    counted = alone.lower(due).cost_analysis()
    row["flops"] = counted["flops"]
    if ON.value == "paper":
        return row | {"problem": f"{row['flops'] / 1e12:.3f} TFLOP", "seconds": 0.0}
    if ON.value == "kept":
        family = build(config, "tpu")
        row["temporaries"] = max(kept(family, phase) for phase in family.phases)
        row["memory"] = row["temporaries"] + size_of(jax.tree.leaves(family.abstract_state()))
        return row | {"seconds": time.monotonic() - began}
    program = assemble(build(config, device.platform), make_mesh(None, [device]))
    try:
        compiled = program.lower(due).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return row | {"problem": shortage(str(error)), "seconds": time.monotonic() - began}
    found = compiled.memory_analysis()
    row["seconds"] = time.monotonic() - began
    row["temporaries"] = found.temp_size_in_bytes
    row["memory"] = (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
        + found.temp_size_in_bytes
    )
    return row


def kept(family: Any, phase: Any) -> int:
    """Bytes that a phase's forward pass keeps for its gradient, parameters aside."""

    def back(state: Any, batch: Any, key: Any) -> Any:
        game = Game(
            players={name: player.variables for name, player in state.players.items()},
            extras=state.extras,
            batch=batch,
            draws=None,
            frozen=None,
            passed={},
            step=state.step,
            items=state.items,
            size=phase.size,
        )
        game = dataclasses.replace(game, draws=phase.draw(key, game))
        params = state.players[phase.player].params
        return jax.vjp(lambda params: phase.loss(params, game)[0], params)[1]

    batch = {
        name: jax.ShapeDtypeStruct((phase.size, *leaf.shape), leaf.dtype)
        for name, leaf in family.item.items()
    }
    given = family.abstract_state(), batch, jax.random.key(0)
    jaxpr = jax.make_jaxpr(back)(*given).jaxpr
    # Each once, whoever needs it; constants are no variables.
    taken = set(map(id, jaxpr.invars))
    arrays = {id(one): one.aval for one in jaxpr.outvars if id(one) not in taken}
    return size_of(arrays.values())


def size_of(arrays: Iterable[Any]) -> int:
    """Bytes."""
    return sum(leaf.size * jax.numpy.dtype(leaf.dtype).itemsize for leaf in arrays)


def largest(first: dict[str, Any], second: dict[str, Any], gib: float) -> int | None:
    """The largest batch in so much memory, which grows in a straight line."""
    if "memory" not in first or "memory" not in second:
        return None
    slope = (second["memory"] - first["memory"]) / (second["batch"] - first["batch"])
    return int((gib * GIB - first["memory"]) // slope + first["batch"])


def _line(row: dict[str, Any]) -> str:
    head = f"{row['levels']} | {row['pixels']} | {row['variant']} | {row['batch']}"
    if "problem" in row:
        return f"| {head} | {row['problem']} | | | {row['seconds']:.0f} |"
    return (
        f"| {head} | {row['memory'] / GIB:.2f} | {row['temporaries'] / GIB:.2f} | "
        f"{row['flops'] / 1e12:.3f} | {row['seconds']:.0f} |"
    )


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"{argv[1:]} is no flag.")
    if ON.value == "tpu":
        device = topologies.get_topology_desc(platform="tpu", **CHIP).devices[0]
    else:
        device = jax.devices("cpu")[0]
    batches = [int(text) for text in BATCHES.value]
    print(
        "| levels | pixels | left out | batch | GiB | of them temporary | TFLOP | compiled in s |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)

    def shown(levels: int, variant: str, batch: int) -> dict[str, Any]:
        row = measure(levels, variant, batch, device)
        print(_line(row), flush=True)
        if OUT.value:
            with open(OUT.value, "a") as file:
                file.write(json.dumps(row) + "\n")
        return row

    if WHAT.value == "growth":
        for levels in map(int, LEVELS.value):
            for variant in ("both", "none"):
                shown(levels, variant, batches[0])
        return
    limit = CHIPS[TPU][0]
    for variant in VARIANTS:
        rows = [shown(4, variant, batch) for batch in batches]
        fits = [largest(rows[0], rows[-1], gib) for gib in (limit, PAPER_GIB)]
        print(f"{variant}: {fits[0]} videos in {limit} GiB, {fits[1]} in the paper's 12 GB.")


if __name__ == "__main__":
    app.run(main)
