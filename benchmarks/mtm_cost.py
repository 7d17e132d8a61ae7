"""What the modulated transformation module adds to a StyleGAN2 step on a TPU, by its compiler.

    python benchmarks/mtm_cost.py --batch=8

Compiles the convolutions that ``mtm=("low",)`` replaces, at 8x8 and 16x16 with 512 channels and in
float32 as in `ffhq256`, for one v5e chip, with and without it: forward (d/main), with gradients
(g/main), and with second ones for half of the batch (g/path, every fourth step). No TPU is needed.
Estimated ms as of ``--mode=plan``.
"""

from typing import Any

from absl import app, flags

from ganjax import environment

environment.prepare()  # before anything looks for devices

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax.experimental import topologies  # noqa: E402
from jax.sharding import SingleDeviceSharding  # noqa: E402

from ganjax.layers.modulated import ModulatedConv  # noqa: E402
from ganjax.layers.mtm import ModulatedTransformConv  # noqa: E402
from ganjax.plan import CHIPS, read_hlo  # noqa: E402

BATCH = flags.DEFINE_integer("batch", 8, "Images of a step.")
CHANNELS = flags.DEFINE_integer("channels", 512, "Of features and w.")

CHIP = {"topology_name": "v5e:1x1", "chips_per_host_bounds": (1, 1, 1), "num_slices": 1}
SHARES = (1.0, 1.0, 0.25)  # of a step's forward, gradient and second-order passes


def costs(module: Any, size: int, device: Any) -> list[float]:
    """Milliseconds forward, with gradients, and with second ones for half of the batch."""
    n, c = BATCH.value, CHANNELS.value
    place = SingleDeviceSharding(device)

    def shape(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.float32, sharding=place)

    def gradients(variables, x, w, dy):
        return jax.vjp(module.apply, variables, x, w)[1](dy)

    def second(variables, x, w, dy):
        def squares(variables, x, w, dy):
            _, dx, dw = gradients(variables, x, w, dy)
            return jnp.sum(jnp.square(dx)) + jnp.sum(jnp.square(dw))

        return jax.grad(squares, argnums=(0, 1, 2, 3))(variables, x, w, dy)

    def inputs(n: int) -> tuple[Any, ...]:
        x, w = shape(n, size, size, c), shape(n, c)
        variables = jax.eval_shape(module.init, jax.random.key(0), x, w)
        return jax.tree.map(lambda leaf: shape(*leaf.shape), variables), x, w

    clock = CHIPS[device.device_kind][1]
    assert clock is not None
    found = []
    for function, arguments in (
        (module.apply, inputs(n)),
        (gradients, (*inputs(n), shape(n, size, size, c))),
        (second, (*inputs(n // 2), shape(n // 2, size, size, c))),
    ):
        compiled = jax.jit(function).lower(*arguments).compile()
        found.append(read_hlo(compiled.as_text()).cycles / (clock * 1e6))
    return found


def main(argv: list[str]) -> None:
    del argv
    device = topologies.get_topology_desc(platform="tpu", **CHIP).devices[0]
    added = 0.0
    print("size  variant  forward ms  with gradients  with second ones")
    for size in (8, 16):
        plain, mtm = (
            costs(layer(CHANNELS.value), size, device)
            for layer in (ModulatedConv, ModulatedTransformConv)
        )
        for name, found in (("plain", plain), ("mtm", mtm)):
            print(size, name, *(f"{ms:.3f}" for ms in found), sep="  ", flush=True)
        added += sum(share * (b - a) for share, a, b in zip(SHARES, plain, mtm))
    print(f"a step takes {added:.2f} ms more")


if __name__ == "__main__":
    app.run(main)
