"""What ADA's warp costs on a TPU that is not here, by its compiler, in either formulation.

    python benchmarks/warp.py --images=32x32,8x64,8x128,8x256

``8x64`` is 8 images of 64 pixels. Each formulation is compiled for one v5e chip, forward and
backward, without being run. The compiler has no estimate of looking pixels up and of adding to
them, so beside its time of everything else there is their number.
"""

import argparse
import dataclasses
import os
from collections.abc import Sequence

# Before the compiler is loaded: it looks for a TPU and its metadata otherwise.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from ganjax.layers.warp import EDGE, warp_by_lookup, warp_by_matrices
from ganjax.plan import read_hlo

CHIP = {"topology_name": "v5e:1x1", "chips_per_host_bounds": (1, 1, 1), "num_slices": 1}
HERTZ = 1.5e9  # of the compiler's cycles
FORMULATIONS = {"matrices": warp_by_matrices, "lookup": warp_by_lookup}


@dataclasses.dataclass(frozen=True)
class Row:
    """A formulation at a size.

    Attributes:
        ms: of what the compiler estimates.
        looked_up: pixels that are read or added to at computed places.
        mib: of temporaries.
    """

    formulation: str
    images: int
    size: int
    ms: float
    looked_up: int
    mib: float

    def __str__(self) -> str:
        return (
            f"{self.formulation:9} {self.images:3} of {self.size:4}  {self.ms:8.2f} ms"
            f"  {self.looked_up:12,} pixels looked up  {self.mib:8.0f} MiB"
        )


def measure(formulation: str, images: int, size: int) -> Row:
    """Compiles a warp and its gradient by the images."""
    (device,) = topologies.get_topology_desc(platform="tpu", **CHIP).devices
    place = jax.sharding.SingleDeviceSharding(device)
    shapes = ((images, size, size, 3), (images, 3, 3), (images, size, size, 3))
    given = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place) for shape in shapes]

    def both(x, to_input, cotangent):
        result, pull = jax.vjp(lambda x: FORMULATIONS[formulation](x, to_input), x)
        return result, pull(cotangent)

    compiled = jax.jit(both).lower(*given).compile()
    cycles = read_hlo(compiled.as_text()).cycles
    memory = compiled.memory_analysis().temp_size_in_bytes
    doubled = 2 * (size + 2 * EDGE)
    # Four forward, and four to which the gradient is added.
    looked_up = images * doubled**2 * 8 if formulation == "lookup" else 0
    return Row(formulation, images, size, 1e3 * cycles / HERTZ, looked_up, memory / 2**20)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", default="32x32,8x64,8x128,8x256", metavar="COUNTxSIZE,...")
    for part in parser.parse_args(arguments).images.split(","):
        count, size = map(int, part.split("x"))
        for formulation in FORMULATIONS:
            print(measure(formulation, count, size), flush=True)


if __name__ == "__main__":
    main()
