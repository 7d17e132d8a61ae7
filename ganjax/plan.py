"""What a train step costs on a TPU that is not here: compiled ahead of time by the real compiler.

python -m ganjax.main --config=configs/biggan.py:imagenet128 --mode=plan --topology=v5e:16x16
"""

import dataclasses
import importlib.util
import json
import re
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies

from ganjax.adversarial.phases import programs
from ganjax.family import build, settle
from ganjax.parallel.mesh import make_mesh
from ganjax.program import Program, assemble

# Memory a chip in GiB that programs may use, and the clock in GHz, where they are known. v5p has
# 459 TFLOP/s (Google's page of it) by 2 cores x 4 matrix units x 128 x 128 x 2; no time by that
# clock has been compared with anything.
CHIPS: dict[str, tuple[float, float | None]] = {
    "TPU v5 lite": (15.75, 1.5),
    "TPU v5": (95.0, 1.75),
    "TPU v5p": (95.0, 1.75),
    "TPU v4": (32.0, None),
    "TPU v6 lite": (32.0, None),
}
GIB = 2**30
HASTY = ("O0", "O1")  # levels of optimisation whose estimated times mean nothing
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
)
BY_HAND = "1"  # the channel of collectives that JAX does not leave to XLA
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\(")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)")
_SHAPE = re.compile(r"\b(pred|bf16|[a-z]\d+\w*)\[([\d,]*)\]")


class Collectives(NamedTuple):
    """All collectives of one kind.

    Attributes:
      instructions: in the program's text, where a loop's body stands once.
      executed: in one execution, loops times their trips.
      bytes: of the results of those executed.
    """

    instructions: int = 0
    executed: int = 0
    bytes: int = 0

    def __add__(self, other):  # type: ignore[override]
        return Collectives(*map(sum, zip(self, other)))


@dataclasses.dataclass(frozen=True)
class Hlo:
    """What an optimised program's text says of one execution on one device.

    Attributes:
      cycles: the backend's estimate; collectives, gathers and kernels of one's own have none.
      collectives: by kind.
    """

    cycles: int
    collectives: dict[str, Collectives]


@dataclasses.dataclass(frozen=True)
class ProgramPlan:
    """One set of due phases. Everything is per device; bytes, seconds, operations.

    Attributes:
      problem: why there are no numbers; empty if there are.
      flops: of every repeat, before optimisation, parameters taken as replicated.
      bytes_accessed: the compiler's own count, in which a loop's body stands once.
      seconds: the compiler's estimate; ``None`` where the clock is not known, or at a level of
        optimisation where the estimate means nothing.
    """

    due: tuple[str, ...]
    share: float
    compile_seconds: float
    problem: str = ""
    arguments: int = 0
    outputs: int = 0
    temporaries: int = 0
    aliased: int = 0
    flops: float = 0.0
    bytes_accessed: float = 0.0
    cycles: int = 0
    seconds: float | None = None
    collectives: dict[str, Collectives] = dataclasses.field(default_factory=dict)

    @property
    def memory(self) -> int:
        """Bytes that a step holds: donated buffers count once."""
        return self.arguments + self.outputs - self.aliased + self.temporaries


@dataclasses.dataclass(frozen=True)
class Report:
    """All programs of a family on a topology; ``str(report)`` is the table."""

    topology: str
    device: str
    devices: int
    memory_limit: int | None
    programs: tuple[ProgramPlan, ...]

    @property
    def fits(self) -> bool:
        limit = self.memory_limit or float("inf")
        return all(not row.problem and row.memory <= limit for row in self.programs)

    @property
    def mean_seconds(self) -> float | None:
        """Time of a step, weighted by each program's share of steps."""
        total = 0.0
        for row in self.programs:
            if row.seconds is None:
                return None
            total += row.share * row.seconds
        return total

    @property
    def max_memory(self) -> int | None:
        if any(row.problem for row in self.programs):
            return None
        return max(row.memory for row in self.programs)

    def verdict(self) -> tuple[str, ...]:
        """Whether all programs fit, and what to change if not; nothing where that is not known."""
        if self.fits:
            return ("fits",) if self.memory_limit else ()
        lines = ["DOES NOT FIT. Programs hold less with"]
        limit = self.memory_limit or 0
        kept = max((row.arguments for row in self.programs), default=0)
        if not kept or kept > limit / 2:
            lines.append("  arguments (state, batch, frozen networks): a larger config.mesh.fsdp")
        lines.append(
            "  temporaries: fewer samples of a device at a time (a smaller config.train.batch, "
            "more microbatches, a larger slice), config.train.recompute where a family has it"
        )
        return tuple(lines)

    def to_json(self) -> str:
        """Everything, with the derived numbers."""
        values: dict[str, Any] = dataclasses.asdict(self)
        for value, row in zip(values["programs"], self.programs):
            value["memory"] = row.memory
        values |= {
            "fits": self.fits,
            "mean_seconds": self.mean_seconds,
            "max_memory": self.max_memory,
        }
        return json.dumps(values, indent=2)

    def __str__(self) -> str:
        head = ("program", "share", "memory GiB", "arguments", "outputs", "temporaries", "aliased")
        rows: list[tuple[str, ...]] = [(*head, "TFLOP", "GB accessed", "est. ms", "compile s")]
        notes = []
        for row in self.programs:
            name = "+".join(row.due)
            numbers: tuple[str, ...] = ("-",) * 8
            if row.problem:
                notes.append(f"{name}: {row.problem}")
            else:
                memory = (row.memory, row.arguments, row.outputs, row.temporaries, row.aliased)
                numbers = tuple(f"{value / GIB:.3f}" for value in memory)
                numbers += (f"{row.flops / 1e12:.4g}", f"{row.bytes_accessed / 1e9:.4g}")
                numbers += (_milliseconds(row.seconds),)
                kinds = (
                    f"{found.instructions} {kind} in the text, {found.executed} executed "
                    f"({found.bytes / 1e6:.1f} MB)"
                    for kind, found in sorted(row.collectives.items())
                )
                notes.append(f"{name}: collectives: {', '.join(kinds) or 'none'}")
            rows.append((name, f"{row.share:.4g}", *numbers, f"{row.compile_seconds:.1f}"))
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths)) for row in rows]
        limit = f"{self.memory_limit / GIB:.2f} GiB" if self.memory_limit else "n/a"
        largest = f"{self.max_memory / GIB:.3f} GiB" if self.max_memory is not None else "n/a"
        return "\n".join(
            (
                f"{self.devices} x {self.device} ({self.topology})",
                *lines,
                *notes,
                f"mean step: {_milliseconds(self.mean_seconds)} ms; "
                f"most memory: {largest} of {limit} a device",
                *self.verdict(),
                "Per device. Time: the compiler's own estimate, loops times their trips, without "
                "collectives, gathers and custom kernels.\nTFLOP: every repeat, before "
                "optimisation. GB accessed: a loop's body counts once.",
            )
        )


def plan(config: Any, topology: str) -> Report:
    """Compile every program of a config's train step for a TPU topology; reads no data.

    Args:
      config: a config file's.
      topology: as ``v5e:2x4``.

    Raises:
      ValueError: an unknown topology, or a batch that its devices do not divide.
      RuntimeError: libtpu is not installed.
    """
    devices = _devices(topology)
    config, decided = settle(config, len(devices))
    for line in decided:
        print(line, flush=True)
    family = build(config, "tpu")
    program = assemble(family, make_mesh(config.mesh, devices))
    # What one device does, counted where repeats are written out: on a CPU.
    share_of_batch = tuple(
        dataclasses.replace(phase, size=phase.size // len(devices)) for phase in family.phases
    )
    alone = dataclasses.replace(family, phases=share_of_batch)
    unrolled = assemble(alone, make_mesh(None, jax.devices("cpu")[:1]))
    kind = devices[0].device_kind
    memory, clock = CHIPS.get(kind, (None, None))
    level = jax.config.jax_optimization_level  # type: ignore[attr-defined]
    if hasty := level in HASTY:
        print(f"JAX_OPTIMIZATION_LEVEL={level}: memory and collectives, but no times.", flush=True)
    per_chip = len(devices) // len({tuple(device.coords) for device in devices}) or 1
    rows = []
    # Of networks that grow, the last stage: none needs more.
    stage = len(family.growth.resolutions) - 1 if family.growth else 0
    for due, share in programs(family.phases, stage).items():
        print(f"Compiling {'+'.join(due)} for {len(devices)} x {kind} ...", flush=True)
        rows.append(_planned(program, unrolled, due, float(share), None if hasty else clock))
    limit = int(memory * GIB / per_chip) if memory else None
    return Report(topology, kind, len(devices), limit, tuple(rows))


def _planned(
    program: Program, unrolled: Program, due: tuple[str, ...], share: float, clock: float | None
) -> ProgramPlan:
    """One program, compiled; nothing of it is kept, for its compiler's memory is large.

    Args:
      unrolled: the program of one device's share, with repeats written out.
      clock: of the chip in GHz; None: no times.
    """
    start = time.monotonic()
    lowered = program.lower(due)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return ProgramPlan(due, share, time.monotonic() - start, shortage(str(error)))
    seconds = time.monotonic() - start
    counted = unrolled.lower(due).cost_analysis()
    hlo = read_hlo(compiled.as_text())
    stats = compiled.memory_analysis()
    return ProgramPlan(
        due,
        share,
        seconds,
        arguments=stats.argument_size_in_bytes,
        outputs=stats.output_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        aliased=stats.alias_size_in_bytes,
        flops=counted.get("flops", 0.0),
        bytes_accessed=compiled.cost_analysis().get("bytes accessed", 0.0),
        cycles=hlo.cycles,
        seconds=hlo.cycles / (clock * 1e9) if clock else None,
        collectives=hlo.collectives,
    )


def shortage(message: str) -> str:
    """The compiler's complaint about memory, in one line."""
    found = re.search(r"Used ([\d.]+\w*) of ([\d.]+\w*) hbm", message)
    if found:
        return f"does not fit: needs {found[1]} of {found[2]}"
    found = re.search(r"temporaries \(([\d.]+\w*)\) exceeds available HBM \(([\d.]+\w*)\)", message)
    if found:
        return f"does not fit: temporaries alone need {found[1]} of {found[2]}"
    return f"does not fit: {message.splitlines()[0]}"


def read_hlo(text: str) -> Hlo:
    """Cycles and collectives of an optimised HLO module; loop bodies count as often as they run."""
    computations: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            lines = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        else:
            lines.append(line)
    cycles = 0
    collectives: dict[str, Collectives] = {}
    channels = set()

    def visit(name: str, times: int, fused: bool) -> None:
        nonlocal cycles
        for line in computations.get(name, ()):
            found = _INSTRUCTION.match(line)
            if not found:
                continue
            _, kind, opcode = found.groups()
            estimate = re.search(r'"estimated_cycles":"?(\d+)', line)
            # The compiler writes the largest integer where it has no estimate.
            if estimate and not fused and int(estimate[1]) < 2**62:
                cycles += times * int(estimate[1])
            base = opcode.removesuffix("-start")
            if base in COLLECTIVES:
                # Pieces of one asynchronous collective share its channel. JAX gives all that are
                # written by hand (`shard_map`) the same one.
                channel = re.search(r"channel_id=(\d+)", line)
                if channel is None or channel[1] == BY_HAND or channel[1] not in channels:
                    channels.add(channel[1] if channel else line)
                    moved = _bytes(kind, largest=base != "all-reduce" and base != opcode)
                    seen = collectives.get(base, Collectives())
                    collectives[base] = seen + Collectives(1, times, times * moved)
                continue
            trips = _trips(line, computations) if opcode == "while" else 1
            for called in _CALLED.findall(line):
                visit(called, times * trips, fused or opcode == "fusion")

    visit(entry, 1, False)
    return Hlo(cycles, collectives)


def _trips(line: str, computations: dict[str, list[str]]) -> int:
    """How often a while loop runs: as the compiler noted, or the bound that it compares with."""
    known = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
    if known:
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    body = "\n".join(computations.get(condition[1], ())) if condition else ""
    bounds = [int(number) for number in re.findall(r"= s32\[\]\S* constant\((\d+)\)", body)]
    return max(bounds, default=1)


def _bytes(kind: str, largest: bool) -> int:
    """Bytes of an HLO type, or of its largest part."""
    sizes = []
    for dtype, shape in _SHAPE.findall(kind):
        bits = 8 if dtype == "pred" else int(re.search(r"\d+", dtype)[0])  # type: ignore[index]
        count = int(np.prod([int(size) for size in shape.split(",") if size], dtype=np.int64))
        sizes.append(bits * count // 8)
    return (max if largest else sum)(sizes or [0])


def _devices(topology: str) -> list[Any]:
    if importlib.util.find_spec("libtpu") is None:
        raise RuntimeError(
            "--mode=plan needs the TPU compiler: pip install 'ganjax[tpu]', or libtpu alone "
            "(Linux on x86-64; no TPU is needed)."
        )
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except Exception as error:
        raise ValueError(
            f"--topology={topology} is not known to the TPU compiler "
            f"({str(error).splitlines()[0][:200]}). Set one as v5e:2x4, v5e:16x16, v5p:2x2x1, "
            "v4:2x2x1 or v6e:2x2."
        ) from error
    return list(described.devices)


def _milliseconds(seconds: float | None) -> str:
    return "n/a" if seconds is None else f"{seconds * 1e3:.3g}"
