"""What formulations of a GAN's blocks cost on a TPU chip, by its compiler; no TPU is needed.

    python benchmarks/blocks.py --list
    python benchmarks/blocks.py --block=up_conv,down_conv --topology=v5e:2x2
    python benchmarks/blocks.py --block=lanes --batch=16 --out=results.jsonl

Each formulation is compiled for one chip of ``--topology``, forward and backward together (the
loss is the mean square of what it makes, with gradients for images, kernels and styles), in
bfloat16 with float32 kernels. Columns:

    est. ms    the sum of the compiler's estimated cycles at the chip's clock; see docs/tpu.md for
               what they leave out
    GFLOP      as the compiler counts them in the program that it made
    MB         bytes that its instructions read and write, likewise
    floor ms   the larger of GFLOP at 197 TFLOP/s and MB at 819 GB/s (v5e); what stays on the chip
               counts as moved, too, so that small blocks may be estimated below it
    MiB        temporaries beside arguments and results
"""

import dataclasses
import datetime
import importlib.metadata
import json
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import app, flags

from ganjax import environment

environment.prepare()  # before anything looks for devices

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax import lax  # noqa: E402
from jax.sharding import SingleDeviceSharding  # noqa: E402

from ganjax import plan  # noqa: E402
from ganjax.layers import deformable, filtering, modulated  # noqa: E402
from ganjax.layers.convolution import LAYOUT, conv2d  # noqa: E402
from ganjax.layers.folding import fold, folded_conv2d, unfold  # noqa: E402

FLOPS_PER_SECOND = 197e12  # of a v5e chip, bfloat16
BYTES_PER_SECOND = 819e9
TAPS = filtering.setup_filter((1, 3, 3, 1))


@dataclasses.dataclass(frozen=True)
class Case:
    """A formulation of a block at a size: ``function(*arrays)`` of these shapes.

    Attributes:
      images: how many of the first shapes are bfloat16; the others are parameters, float32.
    """

    block: str
    size: str
    formulation: str
    function: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    images: int = 1


@dataclasses.dataclass(frozen=True)
class Row:
    """What the compiler says of a case; ``problem`` if it does not compile."""

    block: str
    size: str
    formulation: str
    ms: float = float("nan")
    gflop: float = float("nan")
    megabytes: float = float("nan")
    floor_ms: float = float("nan")
    mebibytes: float = float("nan")
    problem: str = ""

    def __str__(self) -> str:
        numbers = (self.ms, self.gflop, self.megabytes, self.floor_ms, self.mebibytes)
        cells = [f"{n:.3f}" if n < 10 else f"{n:.1f}" for n in numbers]
        text = " | ".join((self.size, self.formulation, *cells))
        return f"| {text} |" if not self.problem else f"| {text} | {self.problem}"


HEAD = "| size | formulation | est. ms | GFLOP | MB | floor ms | MiB |\n|-|-|-:|-:|-:|-:|-:|"


def measure(case: Case, topology: str) -> Row:
    """Compile a case for one chip."""
    device = plan._devices(topology)[0]
    _, clock = plan.CHIPS.get(device.device_kind, (None, None))
    place = SingleDeviceSharding(device)
    arrays = [
        jax.ShapeDtypeStruct(
            shape, jnp.bfloat16 if i < case.images else jnp.float32, sharding=place
        )
        for i, shape in enumerate(case.shapes)
    ]

    def loss(*arrays):
        return jnp.mean(jnp.square(case.function(*arrays).astype(jnp.float32)))

    step = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(len(arrays)))))
    try:
        compiled = step.lower(*arrays).compile()
    except jax.errors.JaxRuntimeError as error:
        why = str(error)
        if "RESOURCE_EXHAUSTED" not in why:
            raise
        return Row(case.block, case.size, case.formulation, problem=plan.shortage(why))
    costs, memory = compiled.cost_analysis(), compiled.memory_analysis()
    flops, moved = costs["flops"], costs["bytes accessed"]
    return Row(
        case.block,
        case.size,
        case.formulation,
        ms=plan.read_hlo(compiled.as_text()).cycles / (clock * 1e6) if clock else float("nan"),
        gflop=flops / 1e9,
        megabytes=moved / 1e6,
        floor_ms=max(flops / FLOPS_PER_SECOND, moved / BYTES_PER_SECOND) * 1e3,
        mebibytes=memory.temp_size_in_bytes / 2**20,
    )


# Modulated convolution 3x3: a kernel for each sample, or scales on both sides.


def modulated_cases(batch: int) -> Iterator[Case]:
    def plain(x, kernel, styles):
        return conv2d(x, kernel) * jnp.mean(styles).astype(x.dtype)

    def own_kernels(x, kernel, styles):
        kernels = kernel * styles[:, None, None, :, None]
        length = jnp.sum(jnp.square(kernels), axis=(1, 2, 3), keepdims=True)
        return kernels * lax.rsqrt(length + modulated.DEMODULATION_EPS)  # [n, k, k, i, o]

    def grouped(x, kernel, styles):
        n, h, w, c = x.shape
        kernels = own_kernels(x, kernel, styles).astype(x.dtype)
        kernels = kernels.transpose(1, 2, 3, 0, 4).reshape(3, 3, c, -1)
        x = x.transpose(1, 2, 0, 3).reshape(1, h, w, n * c)
        y = lax.conv_general_dilated(
            x, kernels, (1, 1), "SAME", dimension_numbers=LAYOUT, feature_group_count=n
        )
        return y.reshape(h, w, n, -1).transpose(2, 0, 1, 3)

    def columns(x, kernel, styles):
        n, h, w, _ = x.shape
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        parts = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
        kernels = own_kernels(x, kernel, styles).reshape(n, 9, x.shape[-1], -1).astype(x.dtype)
        return jnp.einsum("nhwkc,nkco->nhwo", jnp.stack(parts, axis=3), kernels)

    forms = {
        "no modulation": plain,
        "scale input, convolve, scale output (ganjax)": modulated.modulated_conv2d,
        "a kernel a sample, grouped": grouped,
        "a kernel a sample, columns": columns,
    }
    for size, channels in ((16, 512), (64, 256), (128, 128)):
        shapes = ((batch, size, size, channels), (3, 3, channels, channels), (batch, channels))
        for name, function in forms.items():
            yield Case("modulated", f"{size}, {channels} ch", name, function, shapes)


# Resampling by the filter alone.


def _depthwise(x: Any, up: int = 1, down: int = 1) -> Any:
    pads = ((2, 1),) * 2 if up > 1 else ((1, 1),) * 2
    gain = jnp.asarray(up**2, x.dtype)
    return filtering._depthwise(x, TAPS, (up, up), (down, down), pads, False) * gain


def _shifted(x: Any, pads: tuple[int, int]) -> Any:
    """The filter as a sum of shifted images, along one axis after the other."""
    for axis in (1, 2):
        widths = [(0, 0)] * 4
        widths[axis] = pads
        padded = jnp.pad(x, widths)
        length = padded.shape[axis] - 3
        x = sum(
            jnp.asarray(tap, x.dtype) * lax.slice_in_dim(padded, i, i + length, axis=axis)
            for i, tap in enumerate((0.125, 0.375, 0.375, 0.125))
        )
    return x


def resample_cases(batch: int) -> Iterator[Case]:
    def banded_up(x):
        rows = filtering._band(filtering.separate(TAPS)[0], x.shape[1], 2, 1, (2, 1), False) * 4
        columns = filtering._band(filtering.separate(TAPS)[1], x.shape[2], 2, 1, (2, 1), False)
        return filtering._along(x, rows, columns)

    for size, channels in ((64, 256), (128, 128)):
        shape = ((batch, size, size, channels),)
        name = f"{size} to {2 * size}, {channels} ch"
        yield Case("up", name, "banded matrices (ganjax)", banded_up, shape)
        yield Case("up", name, "depthwise", lambda x: _depthwise(x, up=2), shape)
    for size, channels in ((128, 128), (256, 64)):
        shape = ((batch, size, size, channels),)
        name = f"{size} to {size // 2}, {channels} ch"
        banded = lambda x: filtering.downsample2d(x, TAPS)  # noqa: E731
        yield Case("down", name, "banded matrices (ganjax)", banded, shape)
        yield Case("down", name, "depthwise", lambda x: _depthwise(x, down=2), shape)
        yield Case("down", name, "shifts", lambda x: _shifted(x, (1, 1))[:, ::2, ::2], shape)


# Resampling around a 3x3 convolution, with an activation and another 3x3 at the high resolution,
# as networks have them: a compiler may lay out data as the neighbours like it.


def _filtered_kernel(kernel: Any) -> Any:
    """The kernel and the filter as one, [6, 6, i, o]."""
    padded = jnp.pad(kernel, ((3, 3), (3, 3), (0, 0), (0, 0)))
    return sum(float(TAPS[i, j]) * padded[i : i + 6, j : j + 6] for i in range(4) for j in range(4))


def _conv(x: Any, kernel: Any, pads: Any, stride: int = 1, spread: int = 1) -> Any:
    return filtering._correlate(x, kernel, (pads, pads), 1, stride=stride, spread=spread)


def up_forms() -> dict[str, Callable[..., Any]]:
    """3x3 convolutions to twice the resolution, by name."""
    pads = ((3, 2), (3, 2))

    def phases(x, kernel):
        """One convolution makes the four pixels that follow one as channels."""
        n, h, w, _ = x.shape
        k = 4 * _filtered_kernel(kernel)
        parts = [k[1 - p :: 2, 1 - q :: 2] for p in (0, 1) for q in (0, 1)]
        y = _conv(x, jnp.concatenate(parts, axis=-1), (1, 1)).reshape(n, h, w, 2, 2, -1)
        return y.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, -1)

    return {
        "transposed, banded filter (ganjax)": lambda x, k: filtering._up(
            x, k, TAPS, 2, pads, 1, False
        ),
        "transposed, depthwise filter": lambda x, k: (
            4
            * filtering._depthwise(
                _conv(x, k, (2, 2), spread=2), TAPS, (1, 1), (1, 1), ((1, 1),) * 2, False
            )
        ),
        "transposed, shifts": lambda x, k: 4 * _shifted(_conv(x, k, (2, 2), spread=2), (1, 1)),
        "filter, convolution": lambda x, k: filtering._filter_first(x, k, TAPS, 2, pads, 1, False),
        "filter in the kernel, dilated": lambda x, k: _conv(
            x, 4 * _filtered_kernel(k), (3, 3), spread=2
        ),
        "filter in the kernel, phases": phases,
    }


def down_forms() -> dict[str, Callable[..., Any]]:
    """3x3 convolutions to half of the resolution, by name."""

    def phases(x, kernel):
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
        k = _filtered_kernel(kernel).reshape(3, 2, 3, 2, c, -1).transpose(0, 2, 1, 3, 4, 5)
        return _conv(x.reshape(n, h // 2, w // 2, 4 * c), k.reshape(3, 3, 4 * c, -1), (1, 1))

    return {
        "banded filter, strided (ganjax)": lambda x, k: filtering._down(
            x, k, TAPS, 2, ((2, 2), (2, 2)), 1, False
        ),
        "depthwise filter, strided": lambda x, k: _conv(
            filtering._depthwise(x, TAPS, (1, 1), (1, 1), ((2, 2),) * 2, False), k, (0, 0), stride=2
        ),
        "shifts, strided": lambda x, k: _conv(_shifted(x, (2, 2)), k, (0, 0), stride=2),
        "filter in the kernel, strided": lambda x, k: _conv(
            x, _filtered_kernel(k), (2, 2), stride=2
        ),
        "filter in the kernel, phases": phases,
    }


def up_conv_cases(batch: int) -> Iterator[Case]:
    for size, i, o in ((16, 512, 512), (32, 512, 256), (64, 256, 128)):
        shapes = ((batch, size, size, i), (3, 3, i, o), (3, 3, o, o))
        for name, form in up_forms().items():

            def block(x, k, same, form=form):
                return jax.nn.relu(conv2d(jax.nn.relu(form(x, k)), same))

            yield Case("up_conv", f"{size} to {2 * size}, {i} to {o} ch", name, block, shapes)


def down_conv_cases(batch: int) -> Iterator[Case]:
    for size, i, o in ((32, 512, 512), (64, 256, 512), (128, 128, 256)):
        shapes = ((batch, size, size, i), (3, 3, i, i), (3, 3, i, o))
        for name, form in down_forms().items():

            def block(x, same, k, form=form):
                return jax.nn.relu(form(jax.nn.relu(conv2d(x, same)), k))

            yield Case("down_conv", f"{size} to {size // 2}, {i} to {o} ch", name, block, shapes)


# Few channels at many pixels: StyleGAN2's highest resolution at 256x256.


def lanes_cases(batch: int) -> Iterator[Case]:
    def generator(pixels):
        def block(x, up, same, image):
            y = jax.nn.relu(_resampled(x, up, pixels, up=2))
            y = jax.nn.relu(_resampled(y, same, pixels))
            return unfold(_resampled(y, image, pixels), pixels)

        return block

    def discriminator(pixels):
        def block(image, enter, same, down, past):
            x = jax.nn.relu(_resampled(fold(image, pixels), enter, pixels))
            y = jax.nn.relu(_resampled(x, same, pixels))
            y = jax.nn.relu(_resampled(y, down, pixels, down=2))
            return y + _resampled(x, past, pixels, down=2)

        return block

    big = ((batch, 128, 128, 128), (3, 3, 128, 64), (3, 3, 64, 64), (1, 1, 64, 3))
    image = (batch, 256, 256, 3)
    other = (image, (1, 1, 3, 64), (3, 3, 64, 64), (3, 3, 64, 128), (1, 1, 64, 128))
    for name, pixels in (("one pixel after another", 1), ("two side by side (ganjax)", 2)):
        yield Case("lanes", "G, 128 to 256, 64 ch", name, generator(pixels), big)
        yield Case("lanes", "D, 256 to 128, 64 ch", name, discriminator(pixels), other)


def _resampled(x: Any, kernel: Any, pixels: int, up: int = 1, down: int = 1) -> Any:
    taps = TAPS if up * down > 1 else None
    if pixels > 1:
        return folded_conv2d(x, kernel, taps, pixels=pixels, up=up, down=down)
    return filtering.conv2d_resample(x, kernel, taps, up=up, down=down)


# StyleGAN3's activation: up by 4, leaky ReLU, down by 2.


def filtered_lrelu_cases(batch: int) -> Iterator[Case]:
    rng = np.random.default_rng(0)
    up, down = (filtering.setup_filter(rng.random(n)) for n in (24, 12))

    def made(resample):
        def block(x):
            y = resample(x, up, 4, 1, ((13, 11), (13, 11)), 16.0)
            y = jnp.where(y > 0, y, 0.2 * y) * jnp.asarray(2**0.5, x.dtype)
            return resample(y, down, 1, 2, ((0, 0), (0, 0)), 1.0)

        return block

    def banded(x, taps, up, down, pads, gain):
        rows = filtering._band(taps, x.shape[1], up, down, pads[0], False) * gain
        return filtering._along(
            x, rows, filtering._band(taps, x.shape[2], up, down, pads[1], False)
        )

    def depthwise(x, taps, up, down, pads, gain):
        for axis in (0, 1):
            kernel = taps[:, None] if axis == 0 else taps[None, :]
            ups, downs = ((f, 1) if axis == 0 else (1, f) for f in (up, down))
            own = (pads[0], (0, 0)) if axis == 0 else ((0, 0), pads[1])
            x = filtering._depthwise(x, kernel, ups, downs, own, False)
        return x * jnp.asarray(gain, x.dtype)

    for size, channels in ((52, 256), (148, 128)):
        shapes = ((batch, size, size, channels),)
        for name, resample in (
            ("banded matrices", banded),
            ("depthwise, an axis at a time", depthwise),
        ):
            yield Case("filtered_lrelu", f"{size}, {channels} ch", name, made(resample), shapes)


# Convolution at variable places (MTM).


def deformable_cases(batch: int) -> Iterator[Case]:
    def at_places(form):
        def block(x, kernel, offsets, mask):
            n, h, w, _ = x.shape
            grid = np.indices((h, w)).reshape(2, -1).T[:, None]
            taps = np.indices((3, 3)).reshape(2, -1).T - 1
            places = offsets.reshape(n, h * w, 9, 2) + (grid + taps)
            y = form(x, kernel.astype(x.dtype), places, mask.reshape(n, h * w, 9))
            return y.reshape(n, h, w, -1)

        return block

    for size, channels in ((8, 512), (16, 512)):
        shapes = (
            (batch, size, size, channels),
            (3, 3, channels, channels),
            (batch, size, size, 9, 2),
            (batch, size, size, 9),
        )
        name = f"{size}, {channels} ch"
        plain = lambda x, kernel: conv2d(x, kernel)  # noqa: E731
        yield Case("deformable", name, "plain 3x3", plain, shapes[:2])
        multiplied = at_places(deformable.multiplied)
        yield Case("deformable", name, "a matrix of hats (ganjax)", multiplied, shapes)
        gathered = at_places(deformable.gathered)
        yield Case("deformable", name, "gather (a lower bound)", gathered, shapes)


BLOCKS: dict[str, Callable[[int], Iterator[Case]]] = {
    "modulated": modulated_cases,
    "resample": resample_cases,
    "up_conv": up_conv_cases,
    "down_conv": down_conv_cases,
    "lanes": lanes_cases,
    "filtered_lrelu": filtered_lrelu_cases,
    "deformable": deformable_cases,
}


def _main(argv: list[str]) -> None:
    if argv[1:]:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    unknown = set(BLOCK.value) - set(BLOCKS)
    if unknown:
        sys.exit(f"--block has {sorted(unknown)}; set some of {', '.join(BLOCKS)}")
    if LIST.value:
        for name in BLOCK.value or BLOCKS:
            print(f"{name}:")
            for case in BLOCKS[name](BATCH.value):
                print(f"  {case.size}: {case.formulation}")
        return
    jax.config.update("jax_enable_compilation_cache", False)
    versions = ", ".join(
        f"{n} {importlib.metadata.version(n)}" for n in ("jax", "jaxlib", "libtpu")
    )
    today = datetime.datetime.now(datetime.UTC).date()
    print(f"One chip of {TOPOLOGY.value}, {BATCH.value} images; {versions}; {today}")
    for name in BLOCK.value or BLOCKS:
        print(f"\n{name}\n\n{HEAD}", flush=True)
        for case in BLOCKS[name](BATCH.value):
            row = measure(case, TOPOLOGY.value)
            print(row, flush=True)
            if OUT.value:
                line = dataclasses.asdict(row) | {"topology": TOPOLOGY.value, "batch": BATCH.value}
                with pathlib.Path(OUT.value).open("a") as file:
                    file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    BLOCK = flags.DEFINE_list("block", [], f"Some of {', '.join(BLOCKS)}; empty: all.")
    TOPOLOGY = flags.DEFINE_string("topology", "v5e:2x2", "TPU topology; one chip of it is used.")
    BATCH = flags.DEFINE_integer("batch", 8, "Images on the chip.", lower_bound=1)
    LIST = flags.DEFINE_bool("list", False, "Tell what there is, and compile nothing.")
    OUT = flags.DEFINE_string("out", None, "File that a line of JSON a row is appended to.")
    app.run(_main)
