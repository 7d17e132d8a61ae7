"""What a sparse mixture of experts costs on a TPU that is not here, by its compiler.

    python benchmarks/moe.py                          # the executions, at two widths
    python benchmarks/moe.py --experts=4,16,64 --executions=Dropless    # how one of them grows

Forward and backward of one layer (GEGLU, top-1, hidden layer of four times the width, bfloat16 on
float32 parameters) on v5e chips, beside a dense layer of the same width. Estimated are cycles of
the compiler; what it has no estimate for is priced at a floor: gathers, sorts and all-to-alls at
their bytes over the memory's bandwidth, the kernels of `parallel.grouped` at the larger of that,
tiles that are read again among them, and their operations over the chip's peak. Pointwise work
inside of these kernels is not priced; the last column but one has what the compiler estimates for
it in programs of its own, with its traffic to and from memory. Nothing runs on a TPU.
"""

import argparse
import json
import math
import os
import re
import time

os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from ganjax.layers.moe import GEGLU, exact_gelu
from ganjax.parallel.experts import Capacity, Dropless, ExpertParallel, plain_network
from ganjax.plan import read_hlo

CHIP = {"topology_name": "v5e:1x1", "chips_per_host_bounds": (1, 1, 1), "num_slices": 1}
PEAK, BANDWIDTH, CLOCK = 197e12, 819e9, 1.5e9  # of a v5e chip: FLOP/s, bytes/s, Hz
EXECUTIONS = ("Capacity", "Dropless", "ExpertParallel")
WIDTHS = {256: 131072, 1024: 8192}  # tokens a chip at each width
SAMPLES = 8
SHAPE = re.compile(r"\b(pred|bf16|[a-z]\d+)\[([\d,]*)\]")
UNPRICED = re.compile(r"= (.*?) (gather|sort|all-to-all|custom-call)\(")
COST = re.compile(r'"cost_estimate":(\{[^}]*\})')


def main() -> None:
    """Compile, price, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experts", default="16", help="numbers of experts, by commas")
    parser.add_argument("--widths", default="256,1024", help="of the tokens, by commas")
    parser.add_argument("--executions", default=",".join(EXECUTIONS), help="some, by commas")
    parser.add_argument("--factor", type=float, default=1.25, help="of capacity")
    parser.add_argument("--devices", type=int, default=8, help="that share experts: 2, 4 or 8")
    given = parser.parse_args()
    print(
        "width experts execution  M params  TFLOP  estimated ms  priced ms  sum ms  of dense "
        "  inside  s"
    )
    for width in map(int, given.widths.split(",")):
        dense = row(width, 1, None, 1, None)
        for experts in map(int, given.experts.split(",")):
            block = 512 if WIDTHS[width] / experts >= 4096 else 128
            made = {
                "Capacity": (Capacity(given.factor), 1),
                "Dropless": (Dropless(block), 1),
                "ExpertParallel": (ExpertParallel(given.factor), given.devices),
            }
            for name in given.executions.split(","):
                if name != "ExpertParallel" or experts % given.devices == 0:
                    row(width, experts, *made[name], dense)


def row(width: int, experts: int, execution, devices: int, dense: float | None) -> float:
    """Compiles one layer, prints its line, and returns its milliseconds."""
    began = time.monotonic()
    compiled, flops, parameters = build(width, experts, execution, devices)
    text = compiled.as_text()
    estimated = read_hlo(text).cycles / CLOCK * 1e3
    floor = priced(text) * 1e3
    total = estimated + floor
    name = type(execution).__name__ if execution else "dense"
    ratio = f"{total / dense:.2f}" if dense else "1"
    inside = pointwise(rows_of(WIDTHS[width], experts, execution), 4 * width) if execution else 0.0
    print(
        f"{width:5d} {experts:7d} {name:14s} {parameters / 1e6:7.1f} {flops / 1e12:6.2f} "
        f"{estimated:13.2f} {floor:10.2f} {total:7.2f} {ratio:>9s} "
        f"{inside:7.2f} {time.monotonic() - began:4.0f}",
        flush=True,
    )
    return total


def rows_of(tokens: int, experts: int, execution) -> int:
    """Rows that the experts of a chip multiply."""
    if isinstance(execution, Dropless):
        return tokens + experts * execution.block
    return round(tokens * execution.factor)


def pointwise(rows: int, hidden: int) -> float:
    """Milliseconds of the hidden layer's pointwise work as programs of their own."""

    def forward(value, gate):
        return value * exact_gelu(gate)

    def backward(value, gate, cotangent):
        return jax.vjp(forward, value, gate)[1](cotangent)

    chip = SingleDeviceSharding(topologies.get_topology_desc(platform="tpu", **CHIP).devices[0])
    leaf = jax.ShapeDtypeStruct((rows, hidden), jnp.bfloat16, sharding=chip)
    programs = (jax.jit(forward).lower(leaf, leaf), jax.jit(backward).lower(leaf, leaf, leaf))
    return sum(read_hlo(one.compile().as_text()).cycles for one in programs) / CLOCK * 1e3


def build(width: int, experts: int, execution, devices: int):
    """The compiled layer, its floating point operations a device, and its parameters."""
    topology = (
        topologies.get_topology_desc(platform="tpu", **CHIP)
        if devices == 1
        else topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4")
    )
    chips = np.array(topology.devices[:devices]).reshape(1, devices)
    mesh = Mesh(chips, ("data", "expert"), axis_types=(AxisType.Auto,) * 2)
    hidden, tokens = 4 * width, WIDTHS[width]
    sizes = {
        "value": (width, hidden),
        "value_bias": (hidden,),
        "gate": (width, hidden),
        "gate_bias": (hidden,),
        "out": (hidden, width),
        "out_bias": (width,),
    }
    stack = () if execution is None else (experts,)
    place = P("expert") if isinstance(execution, ExpertParallel) else P()
    samples = NamedSharding(mesh, P(("data", "expert")))

    def struct(shape, dtype, sharding):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    weights = {
        name: struct((*stack, *size), jnp.float32, NamedSharding(mesh, place))
        for name, size in sizes.items()
    }
    shape = (SAMPLES * devices, tokens // SAMPLES)
    x = struct((*shape, width), jnp.bfloat16, samples)
    expert = struct(shape, jnp.int32, samples)
    scale = struct(shape, jnp.float32, samples)

    def layer(weights, x, scale, expert):
        if execution is None:
            return GEGLU.apply(scaled_network, weights, x.reshape(-1, width)).reshape(x.shape)
        return execution(GEGLU.equalized, weights, x, expert, scale)[0]

    def step(weights, x, scale, expert, cotangent):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            y, back = jax.vjp(lambda *given: layer(*given, expert), weights, x, scale)
            return y, back(cotangent)

    lowered = jax.jit(step).lower(weights, x, scale, expert, x)
    rows = tokens if execution is None else tokens * getattr(execution, "factor", 1)
    parameters = sum(math.prod(leaf.shape) for leaf in weights.values())
    return lowered.compile(), 3 * 6 * rows * width * hidden, parameters


def scaled_network(x, inward, join, outward):
    """One network for all rows, its kernels small enough to be scaled themselves."""
    inward, outward = jax.tree.map(
        lambda leaf: leaf / math.sqrt(leaf.shape[0]) if leaf.ndim == 2 else leaf, (inward, outward)
    )
    return plain_network(x, inward, join, outward)


def priced(text: str) -> float:
    """Seconds, at least, of what the compiler does not estimate."""
    total = 0.0
    for line in text.splitlines():
        found = UNPRICED.search(line)
        if not found or (found[2] == "custom-call" and '"tpu_custom_call"' not in line):
            continue
        if found[2] != "custom-call":
            total += 2 * size(found[1]) / BANDWIDTH  # read and written
            continue
        cost = json.loads(COST.search(line)[1])
        moved, operations = (float(cost[name]) for name in ("bytes_accessed", "flops"))
        total += max(operations / PEAK, moved / BANDWIDTH)
    return total


def size(kind: str) -> int:
    """Bytes of an HLO type."""
    total = 0
    for dtype, shape in SHAPE.findall(kind):
        each = 1 if dtype == "pred" else int(re.search(r"\d+", dtype)[0]) // 8
        total += each * math.prod(int(length) for length in shape.split(",") if length)
    return total


if __name__ == "__main__":
    main()
