"""How fast is the train step on the devices that are here? The very program that training runs.

    python benchmarks/train_step.py --config=configs/biggan.py
    python benchmarks/train_step.py --config=configs/biggan.py:imagenet128 --config.train.batch=64
    python benchmarks/train_step.py --config=configs/biggan.py --steps=100 --out=results.jsonl

Needs no data: random images and labels lie on the devices already, so that reading and moving data
is not in the numbers, nor are pictures, checkpoints and the watch. Each program (a set of phases
that are due together) is compiled without any cache, played twice to warm up and then ``--steps``
times, in five blocks: steps follow each other as in training, and a block ends when all that it
computed is there.

Prints a table and a line of JSON, which goes to the end of the file ``--out`` if there is one.
"""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import resource
import sys
import time
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from ganjax import environment

environment.prepare()  # before anything looks for devices

import jax  # noqa: E402

from ganjax import config as configs  # noqa: E402
from ganjax.adversarial.phases import programs  # noqa: E402
from ganjax.family import build, settle  # noqa: E402
from ganjax.parallel import mesh as meshes  # noqa: E402
from ganjax.program import Program, assemble  # noqa: E402

WARM_UP = 2  # steps
BLOCKS = 5
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Row:
    """One program.

    Attributes:
      due: the phases that it plays.
      share: of the steps of a run.
      trace_seconds: until XLA had the program.
      compile_seconds: until the devices had it.
      ms: of a step, the median of the blocks.
      ms_fastest: block.
      ms_slowest: block.
      planned_bytes: on each device, by the compiler: arguments, results and temporaries.
      peak_bytes: the most so far on any device; on CPU, of the whole process, compiler included.
    """

    due: tuple[str, ...]
    share: float
    trace_seconds: float
    compile_seconds: float
    ms: float
    ms_fastest: float
    ms_slowest: float
    planned_bytes: int
    peak_bytes: int


@dataclasses.dataclass(frozen=True)
class Report:
    """All programs of a config; ``str(report)`` is the table.

    Attributes:
      images: of the real stream that a step consumes.
      ms: of a step, the programs weighted by their share.
      images_per_second: by that.
    """

    config: dict[str, Any]
    device: str
    mesh: dict[str, int]
    host: str
    versions: dict[str, str]
    date: str
    images: int
    steps: int
    ms: float
    images_per_second: float
    rows: tuple[Row, ...]

    def __str__(self) -> str:
        head = ("program", "share", "trace s", "compile s", "ms/step", "fastest", "slowest")
        table: list[tuple[str, ...]] = [(*head, "images/s", "planned GiB", "peak GiB")]
        for row in self.rows:
            seconds = f"{row.trace_seconds:.1f}", f"{row.compile_seconds:.1f}"
            ms = f"{row.ms:.1f}", f"{row.ms_fastest:.1f}", f"{row.ms_slowest:.1f}"
            rate = f"{self.images / row.ms * 1e3:.1f}"
            memory = f"{row.planned_bytes / GIB:.3f}", f"{row.peak_bytes / GIB:.3f}"
            table.append(("+".join(row.due), f"{row.share:.4g}", *seconds, *ms, rate, *memory))
        widths = [max(map(len, column)) for column in zip(*table)]
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return "\n".join(
            (
                f"{self.config['family']} on {self.device} x {self.mesh}, {self.host}; {versions}; "
                f"{self.date}",
                f"{self.images} images a step, {self.steps} steps of each program",
                *("  ".join(c.rjust(w) for c, w in zip(row, widths)) for row in table),
                f"mean: {self.ms:.1f} ms/step, {self.images_per_second:.1f} images/s",
            )
        )


def measure(config: ConfigDict, steps: int) -> Report:
    """Compile and time every program of a config's train step.

    Args:
      config: a config file's.
      steps: timed ones of each program, at least; a multiple of the blocks is taken.

    Raises:
      ValueError: a batch that the devices do not divide, or another config that cannot be.
    """
    mesh = meshes.make_mesh(config.mesh)
    device = mesh.devices.flat[0]
    config, _ = settle(config, mesh.size)
    family = build(config, device.platform)
    program = assemble(family, mesh)
    key = jax.device_put(jax.random.key(config.seed), meshes.replicated(mesh))
    state = program.place(family.init(key))
    frozen = program.place_frozen(family.load_frozen())
    batches = _random(program, config.data.get("classes") or 1)
    each = -(-steps // BLOCKS)
    rows = []
    for due, share in programs(family.phases).items():
        began = time.perf_counter()
        lowered = program.lower(due)
        traced = time.perf_counter()
        compiled = lowered.compile()
        ready = time.perf_counter()
        ms = []
        for block in (WARM_UP, *(each,) * BLOCKS):
            started = time.perf_counter()
            for _ in range(block):
                state, _ = compiled(state, batches, key, frozen)
            jax.block_until_ready(state)
            ms.append((time.perf_counter() - started) / block * 1e3)
        del ms[0]
        rows.append(
            Row(
                due=due,
                share=float(share),
                trace_seconds=traced - began,
                compile_seconds=ready - traced,
                ms=float(np.median(ms)),
                ms_fastest=min(ms),
                ms_slowest=max(ms),
                planned_bytes=_planned(compiled),
                peak_bytes=_peak(mesh.local_devices),
            )
        )
    mean = sum(row.share * row.ms for row in rows)
    return Report(
        config=json.loads(configs.to_json(config)),
        device=device.device_kind,
        mesh=dict(mesh.shape),
        host=f"{platform.machine()}, {os.cpu_count()} cores",
        versions={name: importlib.metadata.version(name) for name in ("jax", "jaxlib")},
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        images=program.items,
        steps=each * BLOCKS,
        ms=mean,
        images_per_second=program.items / mean * 1e3,
        rows=tuple(rows),
    )


def _random(program: Program, classes: int) -> Any:
    """Batches of noise and random classes, placed as the stream places real ones."""
    rng = np.random.default_rng(0)

    def place(leaf):
        if not np.issubdtype(leaf.dtype, np.integer):
            values = rng.standard_normal(leaf.shape)
        else:
            values = rng.integers(256 if leaf.dtype == np.uint8 else classes, size=leaf.shape)
        values = values.astype(leaf.dtype)
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda i: values[i])

    return jax.tree.map(place, program.batches)


def _planned(compiled: Any) -> int:
    memory = compiled.memory_analysis()
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + results + memory.temp_size_in_bytes


def _peak(devices: Any) -> int:
    stats = [device.memory_stats() for device in devices]
    if all(stats):
        return max(each["peak_bytes_in_use"] for each in stats)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _main(overrides: dict[str, str]) -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    config = configs.override(configs.load(CONFIG.value), overrides)
    meshes.start()
    report = measure(config, STEPS.value)
    if jax.process_index() != 0:
        return
    print(report)
    line = json.dumps(dataclasses.asdict(report))
    if OUT.value:
        with pathlib.Path(OUT.value).open("a") as file:
            file.write(line + "\n")
    else:
        print(line)


if __name__ == "__main__":
    CONFIG = flags.DEFINE_string(
        "config", "configs/biggan.py", "Config file, with or without :preset."
    )
    STEPS = flags.DEFINE_integer("steps", 20, "Timed steps of each program.", lower_bound=1)
    OUT = flags.DEFINE_string("out", None, "File that the line of JSON is appended to.")
    configs.run(_main)
