"""The least time that a StyleGAN2 training step can take on a TPU chip: a count from shapes.

    python benchmarks/stylegan2_roofline.py
    python benchmarks/stylegan2_roofline.py --config=configs/stylegan2.py:ffhq1024 --batch=4

What is counted, for one chip (v5e: 197 TFLOP/s in bfloat16, 819 GB/s):

- **A pass of a convolution or dense layer** is its multiplications and additions, and moves its
  input, its output and its kernel once: activations in the dtype of the layer, kernels in float32.
  A transposed or strided convolution multiplies each pixel of the lower resolution by each tap
  once. Filters, noise, biases, activations, modulation and demodulation cost nothing: the best
  program makes them while data pass.
- **A gradient** is three passes: forward, for the input, for the kernel. Where a network's
  parameters have none (D in g/main), two; where it is only evaluated (G in d/main), one.
- **A second-order gradient** (path lengths, R1) is six: the forward pass and that for the input,
  and for each of them one for its input and one for its kernel.
- **The optimizer** reads parameter, gradient and two moments and writes three of them; the average
  of G reads and writes once more. All float32.

A pass takes the longer of its arithmetic and its traffic; "by layers" adds up the passes, "by
program" takes the longer of all arithmetic and all traffic, as if both could always overlap. The
augmentation of what D sees (ADA) is not counted.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from absl import flags

from ganjax import environment

environment.prepare()  # before anything looks for devices

from ganjax import config as configs  # noqa: E402
from ganjax.adversarial.phases import programs  # noqa: E402
from ganjax.families.stylegan2.networks import (  # noqa: E402
    Discriminator,
    Generator,
    channels_at,
    dtype_at,
    resolutions,
)
from ganjax.family import build  # noqa: E402

FLOPS_PER_SECOND = 197e12
BYTES_PER_SECOND = 819e9


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution or dense layer.

    Attributes:
      multiplications: of one sample.
      moved: entries of one sample's input and output.
      parameters: of the kernel.
      width: bytes of an activation.
    """

    name: str
    multiplications: int
    moved: int
    parameters: int
    width: int

    def seconds(self, samples: int) -> tuple[float, float]:
        """Arithmetic and traffic of one pass."""
        flops = 2 * self.multiplications * samples
        moved = self.moved * self.width * samples + 4 * self.parameters
        return flops / FLOPS_PER_SECOND, moved / BYTES_PER_SECOND


def dense(name: str, i: int, o: int) -> Layer:
    return Layer(name, i * o, i + o, i * o, 4)


def conv(name: str, size: int, i: int, o: int, k: int, width: int, up: int = 1, down: int = 1):
    """`size`: pixels along an axis at the higher of its resolutions."""
    low = size // (up * down)
    moved = (size // up) ** 2 * i + (size // down) ** 2 * o
    return Layer(name, low**2 * k * k * i * o, moved, k * k * i * o, width)


def generator_layers(g: Generator) -> Iterator[Layer]:
    mapping = g.mapping_network(latent_dim=g.latent_dim, classes=g.classes, w_dim=g.w_dim)
    for index in range(mapping.layers):  # type: ignore[attr-defined]
        yield dense(f"mapping.fc{index}", g.latent_dim if index == 0 else g.w_dim, g.w_dim)
    before = 0
    for size in resolutions(g.resolution):
        channels = channels_at(size, g.channel_base, g.channel_max)
        width = _bytes(dtype_at(size, g.resolution, g.dtype, g.narrow))
        if before:
            yield dense(f"b{size}.conv0.affine", g.w_dim, before)
            yield conv(f"b{size}.conv0", size, before, channels, 3, width, up=2)
        yield dense(f"b{size}.conv1.affine", g.w_dim, channels)
        yield conv(f"b{size}.conv1", size, channels, channels, 3, width)
        if g.architecture == "skip" or size == g.resolution:
            yield dense(f"b{size}.torgb.affine", g.w_dim, channels)
            yield conv(f"b{size}.torgb", size, channels, g.image_channels, 1, width)
        if g.architecture == "resnet" and before:
            yield conv(f"b{size}.skip", size, before, channels, 1, width, up=2)
        before = channels


def discriminator_layers(d: Discriminator) -> Iterator[Layer]:
    for size in reversed(resolutions(d.resolution)[1:]):
        width = _bytes(dtype_at(size, d.resolution, d.dtype, d.narrow))
        i, o = (channels_at(s, d.channel_base, d.channel_max) for s in (size, size // 2))
        if d.architecture == "skip" or size == d.resolution:
            yield conv(f"b{size}.fromrgb", size, d.image_channels, i, 1, width)
        yield conv(f"b{size}.conv0", size, i, i, 3, width)
        yield conv(f"b{size}.conv1", size, i, o, 3, width, down=2)
        if d.architecture == "resnet":
            yield conv(f"b{size}.skip", size, i, o, 1, width, down=2)
    last = channels_at(4, d.channel_base, d.channel_max)
    yield conv("b4.conv", 4, last + d.group_channels, last, 3, 4)
    yield dense("b4.fc", 16 * last, last)
    yield dense("b4.out", last, 1)


def _bytes(dtype: Any) -> int:
    return jnp.dtype(dtype or jnp.float32).itemsize


def phase_passes(batch: int, shrink: int) -> dict[str, list[tuple[str, int, int]]]:
    """(network, passes, samples) of each phase."""
    return {
        "g/main": [("g", 3, batch), ("d", 2, batch)],
        "g/path": [("g", 6, batch // shrink)],
        "d/main": [("g", 1, batch), ("d", 3, 2 * batch)],
        "d/r1": [("d", 6, batch)],
    }


@dataclasses.dataclass(frozen=True)
class Floor:
    """Seconds of a program: arithmetic, traffic, and the sum over passes of the longer one."""

    flops: float
    traffic: float
    by_layers: float

    @property
    def by_program(self) -> float:
        return max(self.flops, self.traffic)


def floors(config: Any, batch: int) -> dict[tuple[str, ...], tuple[float, Floor]]:
    """Each program's share of steps and floor.

    Args:
      config: of ``configs/stylegan2.py``.
      batch: images of a step on the chip.
    """
    config = config.copy_and_resolve_references().unlock()
    config.train.batch = batch
    family = build(config, "tpu")
    g, d = family.networks["g"], family.networks["d"]
    layers = {"g": list(generator_layers(g)), "d": list(discriminator_layers(d))}
    parameters = {name: sum(one.parameters for one in many) for name, many in layers.items()}
    passes = phase_passes(batch, config.loss.path_shrink)
    found = {}
    for due, share in programs(family.phases).items():
        total = [0.0, 0.0, 0.0]
        moved = 2 * parameters["g"] * 4  # the average
        for phase in due:
            moved += 7 * parameters[phase[0]] * 4
            for network, times, samples in passes[phase]:
                for layer in layers[network]:
                    flops, traffic = layer.seconds(samples)
                    for index, part in enumerate((flops, traffic, max(flops, traffic))):
                        total[index] += times * part
        seconds = moved / BYTES_PER_SECOND
        floor = Floor(total[0], total[1] + seconds, total[2] + seconds)
        found[due] = (float(share), floor)
    return found


def table(found: dict[tuple[str, ...], tuple[float, Floor]]) -> str:
    """Milliseconds of each program, and of a step."""
    lines = [
        "| program | share | TFLOP | arithmetic ms | traffic ms | by program ms | by layers ms |",
        "|-|-:|-:|-:|-:|-:|-:|",
    ]
    mean = [0.0] * 5
    for due, (share, floor) in found.items():
        numbers = (
            floor.flops * FLOPS_PER_SECOND / 1e12,
            *(1e3 * s for s in (floor.flops, floor.traffic, floor.by_program, floor.by_layers)),
        )
        mean = [m + share * n for m, n in zip(mean, numbers)]
        lines.append(_line("+".join(due), f"{share:.4g}", numbers))
    return "\n".join((*lines, _line("mean step", "", mean)))


def _line(name: str, share: str, numbers: Any) -> str:
    return f"| {name} | {share} | " + " | ".join(f"{number:.2f}" for number in numbers) + " |"


def _main(overrides: dict[str, str]) -> None:
    config = configs.override(configs.load(CONFIG.value), overrides)
    print(f"{CONFIG.value}, {BATCH.value} images on one v5e chip")
    print(table(floors(config, BATCH.value)))


if __name__ == "__main__":
    CONFIG = flags.DEFINE_string("config", "configs/stylegan2.py:ffhq256", "Config file, :preset.")
    BATCH = flags.DEFINE_integer("batch", 8, "Images of a step on the chip.", lower_bound=1)
    configs.run(_main)
