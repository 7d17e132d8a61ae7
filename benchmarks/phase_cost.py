"""What phases of a train step cost on one TPU chip, by its compiler, and where; no TPU is needed.

    python benchmarks/phase_cost.py --due=d/main
    python benchmarks/phase_cost.py --due=g/main,d/main --config.model.mtm='("low",)' --batch=8
    python benchmarks/phase_cost.py --due=g/path --top=30 --text=g_path.hlo

Compiles the train step with these phases due, their optimizers and the average included, as
``--mode=plan`` does with the programs of a whole schedule: a phase alone compiles in a part of the
time. Without augmentation unless ``--config.augment.mode`` says otherwise. Estimated ms as of
``--mode=plan``, see docs/tpu.md.
"""

import pathlib
import re
import sys
import time
from typing import Any

import numpy as np
from absl import flags

from ganjax import environment

environment.prepare()  # before anything looks for devices

import jax  # noqa: E402
from jax.experimental import topologies  # noqa: E402

from ganjax import config as configs  # noqa: E402
from ganjax.family import build, settle  # noqa: E402
from ganjax.plan import CHIPS, read_hlo, shortage  # noqa: E402
from ganjax.program import assemble  # noqa: E402

CHIP = {"topology_name": "v5e:1x1", "chips_per_host_bounds": (1, 1, 1), "num_slices": 1}


def compiled(config: Any, due: tuple[str, ...]) -> tuple[Any, str]:
    """The program of these phases on one chip, and the chip's kind.

    Raises:
      ValueError: a phase that the family does not have.
    """
    devices = topologies.get_topology_desc(platform="tpu", **CHIP).devices
    config, _ = settle(config, 1)
    family = build(config, "tpu")
    names = [phase.name for phase in family.phases]
    if not set(due) <= set(names):
        raise ValueError(f"--due={','.join(due)}; set some of {','.join(names)}")
    mesh = jax.sharding.Mesh(np.array(devices), ("data",))
    program = assemble(family, mesh)
    lowered = program.lower(due)
    return lowered.compile(), devices[0].device_kind


def costliest(text: str, count: int) -> list[tuple[int, str, str]]:
    """Instructions by estimated cycles, outside of loops: (cycles, result, where it is from)."""
    rows = []
    for line in text[text.index("ENTRY") :].splitlines():
        found = re.search(r'"estimated_cycles":"?(\d+)', line)
        if found and int(found[1]) < 2**62:
            made = re.match(r"\s*(?:ROOT )?%?([\w.\-]+ = [^{ ]*)", line)
            name = re.search(r'op_name="([^"]*)"', line)
            rows.append((int(found[1]), made[1] if made else "", name[1] if name else ""))
    return sorted(rows, reverse=True)[:count]


def main(overrides: dict[str, str]) -> None:
    """Compile and print."""
    config = configs.load(CONFIG.value).copy_and_resolve_references().unlock()
    if "augment" in config:
        config.augment.mode = "none"
    config.train.batch = BATCH.value
    config = configs.override(config, overrides)
    start = time.monotonic()
    try:
        program, kind = compiled(config, tuple(DUE.value))
    except jax.errors.JaxRuntimeError as error:
        sys.exit(shortage(str(error)))
    text, memory = program.as_text(), program.memory_analysis()
    clock = CHIPS[kind][1]
    assert clock is not None
    ms = 1 / (clock * 1e6)
    print(
        f"{CONFIG.value} {' '.join(f'{k}={v}' for k, v in overrides.items())} "
        f"{'+'.join(DUE.value)}, {BATCH.value} images on one {kind}: "
        f"{read_hlo(text).cycles * ms:.2f} ms, {memory.temp_size_in_bytes / 2**20:.0f} MiB of "
        f"temporaries; compiled in {time.monotonic() - start:.0f} s",
        flush=True,
    )
    for cycles, made, name in costliest(text, TOP.value):
        print(f"{cycles * ms:8.3f}  {made}  {name}")
    if TEXT.value:
        pathlib.Path(TEXT.value).write_text(text)


if __name__ == "__main__":
    CONFIG = flags.DEFINE_string("config", "configs/stylegan2.py:ffhq256", "Config file, :preset.")
    BATCH = flags.DEFINE_integer("batch", 8, "Images of a step on the chip.", lower_bound=1)
    DUE = flags.DEFINE_list("due", ["d/main"], "Phases of the program.")
    TOP = flags.DEFINE_integer("top", 0, "So many of the costliest instructions are listed.")
    TEXT = flags.DEFINE_string("text", None, "File for the optimised program.")
    configs.run(main)
