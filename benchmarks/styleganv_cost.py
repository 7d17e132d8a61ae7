"""What StyleGAN-V costs beside StyleGAN2, by real frame that D sees: one TPU chip, and this CPU.

    python benchmarks/styleganv_cost.py --on=flops --resolution=256
    python benchmarks/styleganv_cost.py --on=tpu
    python benchmarks/styleganv_cost.py --on=cpu --resolution=32 --channels=512 --steps=12

Both at one resolution and with the same channels; a step of StyleGAN-V sees so many clips of three
frames, one of StyleGAN2 as many single images as these are frames. Main phases in every step, the
gradient penalty in every 16th; without augmentation and, but in the row that says so, without path
lengths, which StyleGAN-V has not. A TPU's times are its compiler's (no TPU is needed), as of
``--mode=plan``, of phases that are compiled one by one, each with its optimizer; ``--phases`` takes
some of them alone. On this CPU steps of all programs take turns, and the fastest of each counts, by
the clock and by the processor time of all threads. FLOPs are XLA's count before optimisation.
"""

import dataclasses
import time
from typing import Any

import numpy as np
from absl import flags

from ganjax import environment

environment.prepare()  # before anything looks for devices

import jax  # noqa: E402
from jax.experimental import topologies  # noqa: E402

from ganjax import config as configs  # noqa: E402
from ganjax.adversarial.phases import programs  # noqa: E402
from ganjax.family import build  # noqa: E402
from ganjax.plan import CHIPS, read_hlo  # noqa: E402
from ganjax.program import assemble  # noqa: E402

CHIP = {"topology_name": "v5e:1x1", "chips_per_host_bounds": (1, 1, 1), "num_slices": 1}
RIVALS = ("StyleGAN2", "StyleGAN2 with path lengths", "StyleGAN-V", "StyleGAN-V, the paper's D")


@dataclasses.dataclass(frozen=True)
class Row:
    """What one of `RIVALS` costs.

    Attributes:
      cost: of a step, weighted by each program's share of steps, in seconds or FLOPs.
      processor: seconds of all threads, likewise; None but on a CPU.
      frames: real ones of a step.
    """

    name: str
    cost: float
    processor: float | None
    frames: int


def config_of(name: str, resolution: int, channels: int, clips: int) -> Any:
    """The config of one of `RIVALS`."""
    video = name.startswith("StyleGAN-V")
    preset = "styleganv.py:faceforensics256" if video else "stylegan2.py:ffhq256"
    config = configs.load(f"configs/{preset}").copy_and_resolve_references().unlock()
    config.data.resolution = resolution
    config.augment.mode = "none"
    config.model.update(g_channel_base=channels, d_channel_base=channels, mapping_layers=2)
    config.model.group_size = 4
    config.train.batch = clips
    if video:
        config.model.join_resolution = min(16, resolution // 2)
        config.model.discriminator = "paper" if "paper" in name else "released"
    else:
        config.train.batch *= 3
        config.loss.mixing = 0.0
        config.loss.path_weight = 2.0 if "path" in name else 0.0
    return config.lock()


def by_compiler(config: Any) -> tuple[float, None]:
    """Seconds of a step on one v5e chip: of each phase alone, as often as it is played."""
    devices = topologies.get_topology_desc(platform="tpu", **CHIP).devices
    mesh = jax.sharding.Mesh(np.array(devices), ("data",))
    family = build(config, "tpu")
    program = assemble(family, mesh)
    clock, total = CHIPS[devices[0].device_kind][1], 0.0
    assert clock is not None
    for phase in family.phases:
        if PHASES.value and phase.name not in PHASES.value:
            continue
        began = time.monotonic()
        cycles = read_hlo(program.lower((phase.name,)).compile().as_text()).cycles
        seconds = cycles / (clock * 1e9)
        took = time.monotonic() - began
        print(f"  {phase.name}: {1e3 * seconds:.2f} ms, compiled in {took:.0f} s", flush=True)
        total += seconds / phase.every
    return total, None


def by_flops(config: Any) -> tuple[float, None]:
    """Floating-point operations of a step; nothing is compiled."""
    family = build(config, "cpu")
    program = assemble(family, jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",)))
    total = 0.0
    for due, share in programs(family.phases).items():
        lowered = program.lower(due)
        total += float(share) * lowered.cost_analysis()["flops"]
    return total, None


class Steps:
    """The programs of a config, each to be run and timed on this CPU."""

    def __init__(self, config: Any):
        self.family = build(config, "cpu")
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
        program = assemble(self.family, mesh)
        self._state = program.place(self.family.init(jax.random.key(0)))
        numbers = np.random.default_rng(0)

        def fill(leaf: Any) -> Any:
            if leaf.dtype == np.uint8:
                return numbers.integers(0, 256, leaf.shape, np.uint8)
            first = np.arange(np.prod(leaf.shape[3:], dtype=int)).reshape(leaf.shape[3:])
            return np.broadcast_to(first + 64 * (leaf.ndim == 3), leaf.shape).astype(leaf.dtype)

        # Whole numbers: times 0, 1, 2, lengths of 64, and classes that nothing looks at.
        self._batches = jax.tree.map(fill, program.batches)
        self._compiled = {due: program.lower(due).compile() for due in programs(self.family.phases)}
        self.best = {due: (np.inf, np.inf) for due in self._compiled}

    def play(self) -> None:
        """One step of each program."""
        for due, step in self._compiled.items():
            began, used = time.perf_counter(), time.process_time()
            self._state, metrics = step(self._state, self._batches, jax.random.key(0), {})
            jax.block_until_ready(metrics)
            took = time.perf_counter() - began, time.process_time() - used
            self.best[due] = tuple(map(min, self.best[due], took))

    def seconds(self) -> tuple[float, float]:
        """By the clock and of the processor."""
        shares = programs(self.family.phases)
        clock, processor = (
            sum(float(share) * self.best[due][which] for due, share in shares.items())
            for which in (0, 1)
        )
        return clock, processor


def table(rows: list[Row], unit: str = "ms", scale: float = 1e3) -> str:
    """Costs by real frame, and how they compare with StyleGAN2's."""
    head = f"| | {unit} a frame | x StyleGAN2 | processor {unit} a frame | x StyleGAN2 |"
    lines = [head, "|---|---:|---:|---:|---:|"]
    first = next(row for row in rows if row.name == RIVALS[0])
    for row in rows:
        cells = [row.name]
        for mine, other in ((row.cost, first.cost), (row.processor, first.processor)):
            if mine is None or other is None:
                cells += ["", ""]
                continue
            by_frame = mine / row.frames
            cells += [f"{scale * by_frame:.4g}", f"{by_frame / (other / first.frames):.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def measure(on: str, names: list[str], resolution: int, channels: int, clips: int, steps: int):
    """Rows of `RIVALS`."""
    given = {name: config_of(name, resolution, channels, clips) for name in names}
    if on != "cpu":
        rows = []
        for name, config in given.items():
            rows.append(Row(name, *(by_compiler if on == "tpu" else by_flops)(config), 3 * clips))
            print(f"{name}: {rows[-1].cost:.6g} a step", flush=True)
        return rows
    played = {name: Steps(config) for name, config in given.items()}
    for _ in range(steps):
        for one in played.values():
            one.play()
    return [Row(name, *one.seconds(), 3 * clips) for name, one in played.items()]


def main(overrides: dict[str, str]) -> None:
    """Measure and print."""
    if overrides:
        raise configs.ConfigError("This benchmark has presets of its own: leave --config.* out.")
    names = [RIVALS[int(number)] for number in ROWS.value]
    sizes = RESOLUTION.value, CHANNELS.value, CLIPS.value
    rows = measure(ON.value, names, *sizes, STEPS.value)
    print(f"{ON.value}: {sizes[0]} pixels, {sizes[1]} / resolution channels, {sizes[2]} clips of 3")
    print(table(rows, *(("GFLOP", 1e-9) if ON.value == "flops" else ())))


if __name__ == "__main__":
    ON = flags.DEFINE_enum("on", "cpu", ["cpu", "tpu", "flops"], "What counts.")
    RESOLUTION = flags.DEFINE_integer("resolution", 64, "Pixels.", lower_bound=32)
    CHANNELS = flags.DEFINE_integer("channels", 16384, "Channels, times the resolution.")
    CLIPS = flags.DEFINE_integer("clips", 8, "Clips of a step.", lower_bound=4)
    STEPS = flags.DEFINE_integer("steps", 12, "Steps of each program, on a CPU.", lower_bound=1)
    PHASES = flags.DEFINE_list("phases", [], "On a TPU: of each step these alone; else all.")
    ROWS = flags.DEFINE_list("rows", ["0", "2", "3", "1"], "Of RIVALS; 0 always.")
    configs.run(main)
