"""How equivariant untrained generators are: StyleGAN3's T and R, and StyleGAN2.

    python benchmarks/equivariance.py [--resolution=32] [--pairs=64]

Each metric is that of its name in `ganjax.metrics.protocols`, but for the number of pairs. Beside
the PSNR, which knows one range of images for all, is that of errors over the images' own variance:
untrained generators differ in contrast.
"""

import argparse
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ganjax.families.stylegan2.networks import Generator as StyleGAN2Generator
from ganjax.families.stylegan2.networks import MappingNetwork
from ganjax.families.stylegan2.probes import Probes as StyleGAN2Probes
from ganjax.families.stylegan3.networks import Generator, configuration_r
from ganjax.families.stylegan3.probes import Probes
from ganjax.layers.initializers import init_on_host
from ganjax.metrics.pairs import psnr, squares
from ganjax.metrics.protocols import BY_NAME

METRICS = ("eqt50k_int", "eqt50k_frac", "eqr50k")
BATCH = 8


def models(resolution: int) -> dict[str, tuple[Any, Any]]:
    """Modules of one size, and their probes."""
    size: dict[str, Any] = dict(
        resolution=resolution, latent_dim=64, w_dim=64, channel_base=16 * resolution, channel_max=32
    )
    t, r = Generator(layers=6, **size), configuration_r(layers=6, **size)
    mapping = functools.partial(MappingNetwork, layers=2)
    two = StyleGAN2Generator(mapping_network=mapping, **size)
    return {
        "StyleGAN3-T": (t, Probes(t)),
        "StyleGAN3-R": (r, Probes(r)),
        "StyleGAN2": (two, StyleGAN2Probes(two)),
    }


def measure(module: Any, probes: Any, name: str, pairs: int) -> tuple[float, float]:
    """PSNR, and the ratio of variance and squared error; both in dB."""
    latent = jax.ShapeDtypeStruct((1, module.latent_dim), jnp.float32)
    variables = jax.tree.map(jnp.asarray, init_on_host(module, jax.random.key(0), latent))
    probe = BY_NAME[name].probe
    assert probe is not None
    function = functools.partial(probes.by_name()[probe.name], **probe.options)

    @jax.jit
    def some(indices: Any) -> Any:
        made = function(variables, jax.random.key(1), indices, jnp.zeros(len(indices), jnp.int32))
        return squares(made), jnp.var(made["one"])

    parts = [some(jnp.arange(first, first + BATCH)) for first in range(0, pairs, BATCH)]
    rows = np.concatenate([np.asarray(found) for found, _ in parts])
    wrong, count = rows.sum(axis=0, dtype=np.float64)
    variance = float(np.mean([spread for _, spread in parts]))
    return psnr(rows), 10 * np.log10(variance * count / wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolution", type=int, default=32, help="a power of two, 32 or more")
    parser.add_argument("--pairs", type=int, default=64, help=f"a multiple of {BATCH}")
    options = parser.parse_args()
    print("dB, and over the images' variance".ljust(34), *(f"{name:>16}" for name in METRICS))
    for name, (module, probes) in models(options.resolution).items():
        found = (measure(module, probes, metric, options.pairs) for metric in METRICS)
        print(name.ljust(34), *(f"{level:8.1f} {ratio:7.1f}" for level, ratio in found))


if __name__ == "__main__":
    main()
