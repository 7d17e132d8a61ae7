"""Is our FID that of torch-fidelity, and how fast is it? Same pictures, same weights, one run.

    python benchmarks/fid.py --torch-python=PATH/TO/python
    python benchmarks/fid.py --real=FOLDER --fake=FOLDER --torch-python=PATH/TO/python
    python benchmarks/fid.py --tpu

torch-fidelity (with PyTorch and torchvision) may be installed in another environment, whose Python
is named by --torch-python. The weights of InceptionV3 are drawn by the recipe of the golden vectors
(tests/goldens), so nothing is downloaded and the distance means nothing but "the same". Without
--real and --fake the pictures are the built-in `shapes`, and others of them, darker and with noise.

First each code's own command for a distance of two folders, from the files to the number, weights
read and programs compiled on the way (no compiled program is kept from before); then passes over
the real pictures alone, from the files to features, in turn, so that a machine that others use,
too, is as slow for each. Both may use the same cores (--threads).

Prints a table, adds a line of JSON to ``--out``, and fails if the distances differ by more than
1e-3 of theirs. ``--tpu`` compiles the feature pass for one v5e chip instead, and prints what the
compiler says of it; nothing runs there.
"""

import argparse
import contextlib
import datetime
import hashlib
import importlib
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
RECIPE = ROOT / "tests" / "goldens" / "inception" / "inception_v3_fid.json"
NETWORK, FEATURE = "inception-2015-12-05", "2048"
BATCH = 64
TOLERANCE = 1e-3  # of torch-fidelity's distance
CHIP = {"topology_name": "v5e:1x1", "chips_per_host_bounds": (1, 1, 1), "num_slices": 1}


def weights() -> dict[str, np.ndarray]:
    """A drawn state dict of torch-fidelity's InceptionV3."""
    sys.path.insert(0, str(ROOT))
    recipe = importlib.import_module("tests.goldens.adapters.recipe")
    return recipe.weights(json.loads(RECIPE.read_text()))


def make_pictures(folder: pathlib.Path, count: int, side: int) -> None:
    """``real`` and ``fake``, so many PNGs of side x side pixels each."""
    from PIL import Image

    from ganjax.data.demo import Shapes

    for seed, name in enumerate(("real", "fake")):
        (folder / name).mkdir()
        source = Shapes((side, side), count, seed)
        rng = np.random.default_rng(seed)
        for index in range(count):
            image = source[index]["image"]
            if name == "fake":
                noisy = 0.8 * image + rng.normal(0, 12, image.shape)
                image = noisy.clip(0, 255).astype(np.uint8)
            Image.fromarray(image).save(folder / name / f"{index:05d}.png")


class Ganjax:
    """Our own part, in this process."""

    def __init__(self, state: dict[str, np.ndarray], folder: pathlib.Path):
        import jax

        from ganjax.metrics.features import Extractor
        from ganjax.pretrained import catalog

        jax.config.update("jax_enable_compilation_cache", False)
        variables, report = catalog.KINDS[NETWORK].from_official(state)
        assert report.complete, report
        digest = hashlib.sha256(b"".join(state[name].tobytes() for name in sorted(state)))
        catalog.write(folder / f"{NETWORK}.safetensors", NETWORK, variables, digest.hexdigest())
        # Nothing of what this machine has, and nothing that stays.
        os.environ |= {"GANJAX_WEIGHTS": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
        network = catalog.load(NETWORK)

        def function(variables: Any, images: Any) -> Any:
            return network.apply(variables, images, [FEATURE])

        self._features = Extractor(function, network.variables, BATCH)
        self.versions = {"jax": jax.__version__}

    def distance(self, real: pathlib.Path, fake: pathlib.Path) -> dict[str, Any]:
        from ganjax.evaluate import compare

        began = time.perf_counter()
        record = compare(real, fake, ["fid_all"])
        return {"value": record["metrics"]["fid_all"], "seconds": time.perf_counter() - began}

    def features(self, folder: pathlib.Path) -> dict[str, Any]:
        from ganjax.subjects import pictures

        began = time.perf_counter()
        pictures = pictures.of_path(folder)
        parts = self._features(pictures.batches(range(len(pictures))))
        count = sum(len(part[FEATURE]) for part in parts)
        return {"count": count, "seconds": time.perf_counter() - began}


class TorchFidelity:
    """The other's part, in a process of its own that answers in lines of JSON."""

    def __init__(self, python: str, state: dict[str, np.ndarray], folder: pathlib.Path, cores: int):
        np.savez(folder / "state.npz", **state)
        command = [python, __file__, "--serve", str(folder / "state.npz"), "--threads", str(cores)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.versions = self._read()

    def distance(self, real: pathlib.Path, fake: pathlib.Path) -> dict[str, Any]:
        return self._ask("distance", real, fake)

    def features(self, folder: pathlib.Path) -> dict[str, Any]:
        return self._ask("features", folder)

    def close(self) -> None:
        self._process.communicate()

    def _ask(self, *words: Any) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"torch-fidelity ended with status {self._process.wait()}")
        return json.loads(line)


def serve(state: pathlib.Path, threads: int) -> None:
    """The process of torch-fidelity."""
    answers, sys.stdout = sys.stdout, sys.stderr
    torch = importlib.import_module("torch")
    fidelity = importlib.import_module("torch_fidelity")
    utils = importlib.import_module("torch_fidelity.utils")
    torch.set_num_threads(threads)
    file = state.with_suffix(".pth")
    with np.load(state) as arrays:
        torch.save({name: torch.from_numpy(arrays[name]) for name in arrays.files}, file)
    options = {
        "cuda": False,
        "cache": False,
        "verbose": False,
        "samples_find_deep": True,
        "feature_extractor_weights_path": str(file),
    }
    extractor = utils.create_feature_extractor("inception-v3-compat", [FEATURE], **options)

    def answer(found: Any) -> None:
        print(json.dumps(found), file=answers, flush=True)

    versions = importlib.import_module("importlib.metadata").version
    answer({name: versions(name) for name in ("torch", "torch-fidelity")})
    for line in sys.stdin:
        what, *folders = json.loads(line)
        began = time.perf_counter()
        if what == "distance":
            real, fake = folders
            found = fidelity.calculate_metrics(
                input1=real, input2=fake, fid=True, batch_size=BATCH, **options
            )
            result = {"value": found["frechet_inception_distance"]}
        else:
            files = utils.glob_samples_paths(folders[0], True, "png,jpg,jpeg", "", False)
            pictures = utils.ImagesPathDataset(files)
            found = utils.get_featuresdict_from_dataset(
                pictures, extractor, BATCH, False, False, False
            )
            result = {"count": len(found[FEATURE])}
        answer(result | {"seconds": time.perf_counter() - began})


def measure(
    real: pathlib.Path, fake: pathlib.Path, python: str, repeats: int, threads: int
) -> dict[str, Any]:
    """Both codes' distance, seconds and features per second."""
    with tempfile.TemporaryDirectory(prefix="ganjax-fid-") as temporary:
        folder, state = pathlib.Path(temporary), weights()
        torch_fidelity = TorchFidelity(python, state, folder, threads)
        with contextlib.closing(torch_fidelity):
            codes = {"ganjax": Ganjax(state, folder), "torch-fidelity": torch_fidelity}
            whole = {name: code.distance(real, fake) for name, code in codes.items()}
            for code in codes.values():
                code.features(fake)  # to warm up
            passes: dict[str, list[dict[str, Any]]] = {name: [] for name in codes}
            for _ in range(repeats):
                for name, code in codes.items():
                    passes[name].append(code.features(real))
    rates = {n: [found["count"] / found["seconds"] for found in all_] for n, all_ in passes.items()}
    medians = {name: statistics.median(all_) for name, all_ in rates.items()}
    ours, theirs = (whole[name]["value"] for name in ("ganjax", "torch-fidelity"))
    return {
        "pictures": {"real": passes["ganjax"][0]["count"]},
        "fid": {name: found["value"] for name, found in whole.items()},
        "relative_difference": abs(ours - theirs) / abs(theirs),
        "whole_seconds": {name: found["seconds"] for name, found in whole.items()},
        "features_per_second": medians,
        "all_features_per_second": rates,
        "ratio": medians["ganjax"] / medians["torch-fidelity"],
        "repeats": repeats,
        "batch": BATCH,
        "threads": threads,
        "host": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
        "versions": codes["ganjax"].versions | torch_fidelity.versions,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def table(result: dict[str, Any]) -> str:
    rows = [("code", "FID", "whole s", "features/s", "slowest", "fastest")]
    for name, value in result["fid"].items():
        rates = result["all_features_per_second"][name]
        rows.append(
            (
                name,
                f"{value:.9g}",
                f"{result['whole_seconds'][name]:.1f}",
                *(f"{r:.2f}" for r in (result["features_per_second"][name], *_ends(rates))),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return "\n".join(
        (
            f"{result['pictures']['real']} real pictures, {result['repeats']} passes, batches of "
            f"{result['batch']}, {result['threads']} threads; {result['host']}, load "
            f"{result['load']:.1f}; {versions}; {result['date']}",
            *("  ".join(c.rjust(w) for c, w in zip(row, widths)) for row in rows),
            f"FIDs differ by {result['relative_difference']:.1e} of torch-fidelity's; ganjax takes "
            f"features {result['ratio']:.2f} x as fast",
        )
    )


def _ends(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def tpu(batch: int, side: int) -> dict[str, Any]:
    """What the compiler says of a batch's features on one chip that is not here."""
    if importlib.util.find_spec("libtpu") is None:
        sys.exit("--tpu needs the TPU compiler: pip install 'ganjax[tpu]', or libtpu alone.")
    import jax
    from jax.experimental import topologies

    from ganjax import plan
    from ganjax.pretrained import catalog
    from ganjax.pretrained.blocks import shapes_of
    from ganjax.pretrained.network import FeatureNetwork

    kind = catalog.KINDS[NETWORK]
    variables = shapes_of(kind.module, *kind.examples)
    network = FeatureNetwork(NETWORK, kind, variables, "")
    images = jax.ShapeDtypeStruct((batch, side, side, 3), np.uint8)
    (device,) = topologies.get_topology_desc(platform="tpu", **CHIP).devices
    there = jax.sharding.SingleDeviceSharding(device)

    def features(variables: Any, images: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return network.apply(variables, images, [FEATURE])

    flops = jax.jit(features).lower(variables, images).cost_analysis()["flops"]
    program = jax.jit(features, in_shardings=there, out_shardings=there)
    compiled = program.lower(variables, images).compile()
    memory = compiled.memory_analysis()
    cycles = plan.read_hlo(compiled.as_text()).cycles
    _, clock = plan.CHIPS[device.device_kind]
    seconds = cycles / (clock * 1e9)
    return {
        "device": device.device_kind,
        "batch": batch,
        "side": side,
        "flops": flops,
        "estimated_seconds": seconds,
        "estimated_images_per_second": batch / seconds,
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "versions": {"jax": jax.__version__},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def tpu_table(found: dict[str, Any]) -> str:
    return (
        f"The compiler's estimate for one {found['device']}, nothing ran there: {found['batch']} "
        f"images of {found['side']}x{found['side']}, {found['flops'] / 1e12:.3f} TFLOP, "
        f"{found['estimated_seconds'] * 1e3:.1f} ms, "
        f"{found['estimated_images_per_second']:.0f} images/s, "
        f"{(found['arguments'] + found['temporaries']) / 2**20:.0f} MiB"
    )


def check_torch_fidelity(python: str) -> None:
    """Ends the program if an interpreter does not have it."""
    found = subprocess.run([python, "-c", "import torch_fidelity"], capture_output=True, text=True)
    if found.returncode:
        why = found.stderr.strip().splitlines()[-1]
        sys.exit(
            f"{python} has no torch-fidelity that works ({why}). Give --torch-python=PATH, a Python"
            " with it (pip install torch-fidelity), or run this in such an environment."
        )


@contextlib.contextmanager
def folders(options: argparse.Namespace) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """Those of the pictures: named ones, or made for the while."""
    if options.real:
        yield options.real, options.fake
        return
    with tempfile.TemporaryDirectory(prefix="ganjax-fid-") as folder:
        make_pictures(pathlib.Path(folder), options.count, options.side)
        yield pathlib.Path(folder) / "real", pathlib.Path(folder) / "fake"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch-python", default=sys.executable, help="a Python with it")
    parser.add_argument("--real", type=pathlib.Path, help="folder of PNG or JPEG pictures")
    parser.add_argument("--fake", type=pathlib.Path, help="folder of such")
    parser.add_argument("--count", type=int, default=256, help="of pictures that are made")
    parser.add_argument("--side", type=int, default=128, help="of pictures that are made")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each code")
    parser.add_argument("--tpu", action="store_true", help="ask the TPU compiler instead")
    parser.add_argument("--batch", type=int, default=BATCH, help="of --tpu")
    parser.add_argument("--out", help="file that a line of JSON is added to")
    parser.add_argument("--serve", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if bool(options.real) != bool(options.fake):
        parser.error("give both --real and --fake, or neither")
    if hasattr(os, "sched_setaffinity"):  # XLA has as many threads as it sees cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    if options.serve:
        serve(options.serve, options.threads)
        return

    from ganjax import environment

    environment.prepare()  # before anything looks for devices
    if options.tpu:
        result = tpu(options.batch, options.side)
        print(tpu_table(result))
    else:
        check_torch_fidelity(options.torch_python)
        with folders(options) as (real, fake):
            result = measure(real, fake, options.torch_python, options.repeats, options.threads)
        print(table(result))
    if options.out:
        with open(options.out, "a") as file:
            file.write(json.dumps(result) + "\n")
    if result.get("relative_difference", 0) > TOLERANCE:
        sys.exit(f"the distances differ by more than {TOLERANCE:g}")


if __name__ == "__main__":
    main()
