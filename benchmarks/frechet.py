"""How fast is the Frechet distance from features that are already there, against other codes?

    python benchmarks/frechet.py
    python benchmarks/frechet.py --samples=50000 --dim=2048 --repeats=5 --out=results.jsonl

Three stages: the moments of one set, the distance of two moments, and both as an evaluation needs
them (one set's moments, for the real ones are cached, and the distance). Compared with
torch-fidelity's own functions where it is installed, and with NumPy's covariance and SciPy's
`sqrtm`, as FID was first computed, which is always there. All are played in turn, so that a
machine that others use, too, is as slow for each; the first is ganjax, and ratios are its speed
over the other's. Set OPENBLAS_NUM_THREADS to the cores that are really free: its threads wait for
each other.

Prints a table and appends a line of JSON to ``--out``.
"""

import argparse
import contextlib
import dataclasses
import datetime
import importlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy
import scipy.linalg

from ganjax.metrics import frechet
from ganjax.metrics.features import Accumulator

BATCH = 64  # features come in batches, as a network gives them


@dataclasses.dataclass(frozen=True)
class Code:
    """How one code does it.

    Attributes:
      moments: of features.
      distance: of two sets' moments.
    """

    name: str
    moments: Callable[[np.ndarray], Any]
    distance: Callable[[Any, Any], float]


def ganjax() -> Code:
    def moments(features: np.ndarray) -> frechet.Moments:
        accumulator = Accumulator()
        for start in range(0, len(features), BATCH):
            accumulator.update(features[start : start + BATCH])
        return accumulator.moments()

    return Code("ganjax", moments, frechet.distance)


def sqrtm() -> Code:
    def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return features.mean(axis=0, dtype=np.float64), np.cov(features, rowvar=False)

    def distance(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
        root = scipy.linalg.sqrtm(a[1] @ b[1])
        return float(
            np.square(a[0] - b[0]).sum() + np.trace(a[1]) + np.trace(b[1]) - 2 * np.trace(root).real
        )

    return Code("sqrtm", moments, distance)


def torch_fidelity() -> Code | None:
    """None where it is not installed."""
    with contextlib.suppress(ImportError):
        torch = importlib.import_module("torch")
        fid = importlib.import_module("torch_fidelity.metric_fid")

        def distance(a: Any, b: Any) -> float:
            return fid.fid_statistics_to_metric(a, b, verbose=False)[fid.KEY_METRIC_FID]

        return Code(
            "torch-fidelity",
            lambda features: fid.fid_features_to_statistics(torch.from_numpy(features)),
            distance,
        )
    return None


def features(samples: int, dim: int, seed: int) -> np.ndarray:
    """Like Inception's: not negative, correlated, with a long tail of small directions."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(0).standard_normal((dim, dim)) / dim**0.5
    x = rng.standard_normal((samples, dim), np.float32) * np.geomspace(1, 1e-2, dim)
    x = x @ directions + 0.1 * rng.standard_normal(dim)
    return np.maximum(x, 0, out=x).astype(np.float32)


def measure(samples: int, dim: int, repeats: int) -> dict[str, Any]:
    """Seconds of each stage and code (medians), and what each found."""
    real, fake = features(samples, dim, 1), features(samples, dim, 2)
    codes = [code for code in (ganjax(), torch_fidelity(), sqrtm()) if code]
    seconds: dict[str, dict[str, list[float]]] = {
        code.name: {"moments": [], "distance": [], "whole": []} for code in codes
    }
    values = {}
    known = {code.name: code.moments(real) for code in codes}
    for _ in range(repeats):
        for code in codes:
            began = time.perf_counter()
            moments = code.moments(fake)
            between = time.perf_counter()
            values[code.name] = code.distance(known[code.name], moments)
            ended = time.perf_counter()
            for stage, took in (
                ("moments", between - began),
                ("distance", ended - between),
                ("whole", ended - began),
            ):
                seconds[code.name][stage].append(took)
    medians = {
        name: {stage: statistics.median(times) for stage, times in stages.items()}
        for name, stages in seconds.items()
    }
    return {
        "samples": samples,
        "dim": dim,
        "repeats": repeats,
        "seconds": medians,
        "all_seconds": seconds,
        "values": values,
        "ratios": {
            name: {stage: stages[stage] / medians["ganjax"][stage] for stage in stages}
            for name, stages in medians.items()
            if name != "ganjax"
        },
        "threads": os.environ.get("OPENBLAS_NUM_THREADS", "all"),
        "host": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
        "versions": {"numpy": np.__version__, "scipy": scipy.__version__},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def table(result: dict[str, Any]) -> str:
    rows = [("code", "moments s", "distance s", "whole s", "ganjax is x as fast", "value")]
    for name, stages in result["seconds"].items():
        times = (f"{stages[stage]:.2f}" for stage in ("moments", "distance", "whole"))
        ratios = result["ratios"].get(name, {})
        faster = " / ".join(f"{ratio:.2f}" for ratio in ratios.values()) or "-"
        rows.append((name, *times, faster, f"{result['values'][name]:.9g}"))
    widths = [max(map(len, column)) for column in zip(*rows)]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return "\n".join(
        (
            f"{result['samples']} features of width {result['dim']}, {result['repeats']} repeats, "
            f"{result['threads']} BLAS threads; {result['host']}, load {result['load']:.1f}; "
            f"{versions}; {result['date']}",
            *("  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows),
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=10_000, help="of each set")
    parser.add_argument("--dim", type=int, default=2048, help="width of the features")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", help="file that a line of JSON is added to")
    options = parser.parse_args()
    result = measure(options.samples, options.dim, options.repeats)
    print(table(result))
    if options.out:
        with open(options.out, "a") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
