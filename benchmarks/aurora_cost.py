"""What a step of Aurora's last stage takes on a TPU, part by part, by its compiler.

    python benchmarks/aurora_cost.py                  # laion64, 4 pictures a v5e chip

The whole step is too large to be compiled with all optimisations in reasonable time. Here each
block is a program of its own on one chip, with whole parameters: forward (d/main), and forward with
gradients (g/main), which with `train.recompute` is forward once more. Of blocks that are alike one
is compiled; of CLIP's towers one and two layers, all others costing what the second one does.
Estimated are the compiler's cycles. Priced, as in `benchmarks/moe.py`, are kernels of our own and
gathers, at a floor. Not counted: collectives, the optimizer, images' sums, losses.
"""

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any

from ganjax import environment

environment.prepare()  # before anything looks for devices

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.experimental import topologies  # noqa: E402
from jax.sharding import AxisType, Mesh, NamedSharding  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402
from moe import priced  # noqa: E402

from configs.aurora import get_config  # noqa: E402
from ganjax.families.aurora.blocks import ResidualConvBlock, Start, StyledConv  # noqa: E402
from ganjax.family import build  # noqa: E402
from ganjax.plan import CHIPS, read_hlo  # noqa: E402
from ganjax.pretrained import catalog  # noqa: E402
from ganjax.pretrained.clip import computing_in  # noqa: E402

CHIP = {"topology_name": "v5e:1x1", "chips_per_host_bounds": (1, 1, 1), "num_slices": 1}
DEVICE = topologies.get_topology_desc(platform="tpu", **CHIP).devices[0]
MESH = Mesh(np.array([DEVICE]), ("data",), axis_types=(AxisType.Auto,))
CLOCK = CHIPS[DEVICE.device_kind][1]  # GHz
assert CLOCK is not None


def shapes(tree: Any) -> Any:
    """Of arrays, on the chip."""
    place = NamedSharding(MESH, P())
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree
    )


def cost(function: Callable[..., Any], *given: Any) -> tuple[float, float]:
    """Estimated and priced milliseconds of a function of (trees of) shapes."""

    def seen(*given: Any) -> Any:
        with jax.sharding.use_abstract_mesh(MESH.abstract_mesh):  # Pallas asks which chip it is
            return function(*given)

    text = jax.jit(seen).lower(*shapes(given)).compile().as_text()
    return read_hlo(text).cycles / CLOCK / 1e6, priced(text) * 1e3


def with_gradients(function: Callable[..., Any], count: int) -> Callable[..., Any]:
    """The value of a function and its gradients by the first arguments."""

    def both(cotangent: Any, *given: Any) -> Any:
        y, back = jax.vjp(lambda *first: function(*first, *given[count:]), *given[:count])
        return y, back(cotangent)

    return both


class Table:
    """Prints parts, and adds them up."""

    def __init__(self, recompute: bool) -> None:
        self.total = [0.0, 0.0]
        self.recompute = recompute
        print(f"{'part':34s} times  forward ms (priced)  with gradients ms (priced)   s")

    def row(
        self,
        name: str,
        function: Callable[..., Any],
        given: tuple[Any, ...],
        *,
        moved: int,
        passes: tuple[int, int],
        times: int = 1,
        again: bool = False,
    ) -> None:
        """Adds a part.

        Args:
          moved: arguments, from the first on, by which gradients are taken.
          passes: of a step, forward alone and with gradients.
          times: so many parts are alike.
          again: it is computed again for gradients, if the config says so.
        """
        began = time.monotonic()
        y = jax.eval_shape(function, *given)
        one = cost(function, *given) if passes[0] or again else (0.0, 0.0)
        both = cost(with_gradients(function, moved), y, *given) if passes[1] else (0.0, 0.0)
        alone = passes[0] + passes[1] * (again and self.recompute)
        for kind in (0, 1):
            self.total[kind] += times * (alone * one[kind] + passes[1] * both[kind])
        print(
            f"{name:34s} {times:5d} {one[0]:11.2f} ({one[1]:.2f}) {both[0]:18.2f} ({both[1]:.2f})"
            f" {time.monotonic() - began:9.0f}   sum so far {sum(self.total):.1f}",
            flush=True,
        )


def main() -> None:
    """Compile, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="laion64", help="of configs/aurora.py")
    parser.add_argument("--pictures", type=int, default=4, help="of a chip")
    given = parser.parse_args()
    config = get_config(given.preset)
    config.precision = "bfloat16"
    family = build(config, "tpu")
    table = Table(bool(config.train.recompute))
    generator(table, family, given.pictures)
    discriminator(table, family, given.pictures)
    encoder = computing_in(catalog.kind_of(config.data.text).module, jnp.bfloat16)
    clip(table, encoder, family, given.pictures)
    print(f"estimated {table.total[0]:.1f} ms, priced {table.total[1]:.1f} ms")


def generator(table: Table, family: Any, n: int) -> None:
    """The head, the mapping, and each kind of block."""
    module = family.networks["g"]
    variables = family.abstract_variables()["g"]
    z = jax.ShapeDtypeStruct((n, module.latent_dim), jnp.float32)
    text, end = texts(family, n)
    styles = functools.partial(module.apply, method="styles")
    table.row("text head, mapping", styles, (variables, z, text, end), moved=1, passes=(1, 1))
    ws, tokens = jax.eval_shape(styles, variables, z, text, end)
    w = jax.ShapeDtypeStruct((n, module.w_dim), ws.dtype)
    parts: dict[Any, list[Any]] = {}
    x: Any = None
    for stage in module.stages:
        for number in range(stage.blocks):
            if x is None:
                block: Any = Start(
                    stage.channels, stage.resolution, module.source_features, conv=stage.second
                )
                x = add(parts, f"{stage.resolution}x{stage.resolution}: start", block, w)
            else:
                up = 2 if number == 0 else 1
                block = ResidualConvBlock(
                    stage.channels, stage.conv, stage.second, up=up, gain=module.gain
                )
                kind = "doubles" if up == 2 else "convolutions"
                x = add(parts, f"{stage.resolution}x{stage.resolution}: {kind}", block, x, w)
            if stage.attention is not None:
                name = f"{stage.resolution}x{stage.resolution}: attention, experts"
                x = add(parts, name, stage.attention(), x, w, tokens)
        to_image = StyledConv(
            module.image_channels,
            stage.conv,
            kernel_size=1,
            demodulate=False,
            activation="linear",
        )
        add(parts, f"{stage.resolution}x{stage.resolution}: to image", to_image, x, w)
    for (name, *_), (block, inputs, times) in parts.items():
        arguments = (jax.eval_shape(block.init, jax.random.key(0), *inputs), *inputs)
        again = "to image" not in name
        table.row(
            name,
            block.apply,
            arguments,
            moved=len(arguments),
            passes=(1, 1),
            times=times,
            again=again,
        )


def add(parts: dict[Any, list[Any]], name: str, block: Any, *inputs: Any) -> Any:
    """Counts a block under its name and inputs; gives what comes out."""
    key = (name, *(str(leaf) for leaf in inputs))
    parts.setdefault(key, [block, inputs, 0])[2] += 1
    return jax.eval_shape(block.init_with_output, jax.random.key(0), *inputs)[0]


def texts(family: Any, n: int) -> tuple[Any, Any]:
    """What the encoder says of texts: shapes."""
    length = family.item["tokens"].shape[0]
    width = family.networks["g"].text_dim
    states = jax.ShapeDtypeStruct((n, length, width), jnp.bfloat16)
    return states, jax.ShapeDtypeStruct((n,), jnp.int32)


def discriminator(table: Table, family: Any, n: int) -> None:
    """As both players meet it."""
    module = family.networks["d"]
    variables = family.abstract_variables()["d"]
    text, end = texts(family, n)

    def images(count: int) -> dict[int, Any]:
        return {
            size: jax.ShapeDtypeStruct((count, size, size, module.image_channels), jnp.float32)
            for size in module.resolutions
        }

    def by_images(images: Any, variables: Any, text: Any, end: Any) -> Any:
        return module.apply(variables, images, text, end)

    def by_parameters(variables: Any, images: Any, text: Any, end: Any) -> Any:
        looks = module.apply(variables, images, method="look")
        described = module.apply(variables, text, end, method="describe")
        pairs = [jnp.repeat(one, 2, axis=0) for one in (described, described[::-1])]
        return [module.apply(variables, looks, pair, method="judge") for pair in pairs]

    table.row("D, in g/main", by_images, (images(n), variables, text, end), moved=1, passes=(0, 1))
    given = (variables, images(2 * n), text, end)
    table.row("D, in d/main", by_parameters, given, moved=1, passes=(0, 1))


def clip(table: Table, encoder: Any, family: Any, n: int) -> None:
    """Its towers: pictures of all resolutions with gradients, texts once a phase."""
    generator = family.networks["g"]
    count, size = n * len(generator.stages), encoder.image.size
    shown = jax.ShapeDtypeStruct((count, size, size, 3), jnp.float32)
    tokens = jax.ShapeDtypeStruct((n, *family.item["tokens"].shape), jnp.int32)
    for name, tower, shape, result, gradients, times in (
        ("CLIP, pictures", encoder.image, shown, "embedding", True, 1),
        ("CLIP, texts", encoder.text, tokens, "text_hidden", False, 2),
    ):
        found = []
        for layers in (1, 2):
            module = tower.clone(parent=None, layers=layers)
            variables = jax.eval_shape(module.init, jax.random.key(0), shape)

            def embed(x: Any, variables: Any, module: Any = module, result: str = result) -> Any:
                return module.apply(variables, x)[result]

            y = jax.eval_shape(embed, shape, variables)
            made = with_gradients(embed, 1) if gradients else embed
            found.append(cost(made, *((y,) if gradients else ()), shape, variables))
        rest = tower.layers - 1
        both = [times * (one + rest * (two - one)) for one, two in zip(*found)]
        table.total = [before + now for before, now in zip(table.total, both)]
        print(f"{name:34s} {tower.layers:5d} layers, {both[0]:.2f} ms ({both[1]:.2f})", flush=True)


if __name__ == "__main__":
    main()
