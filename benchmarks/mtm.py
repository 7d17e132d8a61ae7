"""Does the modulated transformation module pay where geometry varies? StyleGAN2 with and without.

    python benchmarks/mtm.py --out=runs/mtm
    python benchmarks/mtm.py --out=runs/mtm --seeds=0,1,2 --images=128000 --jobs=2

Trains the preset `warped_digits` of StyleGAN2, plain and with the module at 8x8 and 16x16 (`low`),
from the same seeds, on the same images, for as long, as any user would (`ganjax.main`); then
measures all of them with one classifier. With more --images runs that are there already go on.

Prints a line a run and the means; the lines go as JSON to ``results.jsonl`` in ``--out``, too.
"""

import argparse
import concurrent.futures
import json
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
from absl import logging

from ganjax import environment

environment.prepare()  # before anything looks for devices

from ganjax import generate  # noqa: E402
from ganjax.data.sources import open_source  # noqa: E402
from ganjax.evaluate import Evaluation, keep, metric_names  # noqa: E402

SOURCE = "warped_digits"
VARIANTS = {"plain": (), "mtm low": ("low",)}
SELDOM = {  # than the preset reports: time is measured between
    "log.scalars_every_images": 1600,
    "log.grid_every_images": 6400,
    "evaluate.every_images": 0,
}


def train(workdir: pathlib.Path, fields: dict[str, Any]) -> None:
    """One run, by the command line."""
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    command = [sys.executable, "-m", "ganjax.main", f"--config=configs/stylegan2.py:{SOURCE}"]
    done = subprocess.run(
        [*command, f"--workdir={workdir}", *overrides], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{workdir} ended with {done.returncode}:\n{done.stderr[-2000:]}")


def milliseconds(workdir: pathlib.Path) -> float:
    """Per image, the median between two lines of the log."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    seen, times = (np.array([line[key] for line in lines]) for key in ("images", "time"))
    return float(np.median(np.diff(times) / np.diff(seen))) * 1e3


def row(name: str, values: list[float]) -> str:
    """Mean and, of several, the standard deviation."""
    spread = f" +- {np.std(values, ddof=1):.3g}" if len(values) > 1 else ""
    return f"{name} {np.mean(values):.4g}{spread}"


def compare(out: pathlib.Path, seeds: list[str], images: int, jobs: int, samples: int) -> None:
    """Train what is not there yet, measure all, print a table.

    Args:
      images: real ones that each run sees.
      jobs: runs at a time.
      samples: measured of each run.
    """
    runs = {
        (seed, variant): out / f"{variant.replace(' ', '_')}_{seed}"
        for seed in seeds
        for variant in VARIANTS
    }
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        started = [
            pool.submit(
                train,
                workdir,
                SELDOM | {"seed": seed, "train.images": images, "model.mtm": VARIANTS[variant]},
            )
            for (seed, variant), workdir in runs.items()
        ]
        for run in started:
            run.result()
    models = {key: generate.load(workdir) for key, workdir in runs.items()}
    config = next(iter(models.values())).config
    # One classifier for all.
    measure = Evaluation(config, open_source(config.data), samples=samples)
    distance, accuracy = metric_names(SOURCE)
    found: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}
    print(f"variant  seed  {distance}  {accuracy}  ms/image")
    for (seed, variant), model in models.items():
        record = measure(model)
        result = {
            "variant": variant,
            "seed": seed,
            distance: record["metrics"][distance],
            accuracy: record["metrics"][accuracy],
            "ms_per_image": milliseconds(runs[seed, variant]),
        }
        found[variant].append(result)
        keep(record | result, out / "results.jsonl")
        print("  ".join(f"{v:.4g}" if isinstance(v, float) else v for v in result.values()))
    for variant, results in found.items():
        print(variant, *(row(key, [r[key] for r in results]) for key in list(results[0])[2:]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, default="runs/mtm", help="folder of the runs")
    parser.add_argument("--seeds", default="0,1,2", help="of the runs, by commas")
    parser.add_argument("--images", type=int, default=64_000, help="that each run sees")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--samples", type=int, default=5000, help="measured of each run")
    given = parser.parse_args()
    logging.set_verbosity(logging.WARNING)
    compare(given.out, given.seeds.split(","), given.images, given.jobs, given.samples)


if __name__ == "__main__":
    main()
