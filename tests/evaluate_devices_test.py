"""Evaluating on one device, on eight, and in two processes gives the same record."""

import json
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from configs import biggan
from ganjax import bench, checkpoint, family
from ganjax import evaluate as evaluation
from ganjax.metrics.classifier import train_classifier
from ganjax.metrics.collect import Halves
from tests import processes

HERE = "tests.evaluate_devices_test"
LAYOUTS = {"one": (1, 1), "eight": (1, 8), "processes": (2, 4)}  # processes, devices of each
COUNTS = {"real": 203, "fake": 149}  # neither divides by the batch or is even
SAMPLES = 41
SIDE, WIDTH = 6, 8


class Mixing:
    """In place of a pretrained network: eight numbers of a picture, and 9 for black ones."""

    sha256 = "of mixing"
    variables = np.random.default_rng(7).normal(size=(SIDE * SIDE * 3, WIDTH)) / 256

    def apply(self, variables, images, features):
        flat = images.reshape(len(images), -1).astype("float32") @ variables.astype("float32")
        return dict.fromkeys(features, flat + 9 * (images.max((1, 2, 3)) == 0)[:, None])


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Folder of what each layout found: records and the cached moments of both folders."""
    folder = tmp_path_factory.mktemp("layouts")
    rng = np.random.default_rng(0)
    for name, count in COUNTS.items():
        (folder / name).mkdir()
        low = 60 if name == "fake" else 0
        for index, pixels in enumerate(rng.integers(low, 256, (count, SIDE, SIDE, 3), np.uint8)):
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    config = biggan.tiny()
    config.data.channels = 1
    config.sample.standing = 1
    (folder / "run").mkdir()
    workdir = checkpoint.prepare(folder / "run", config)
    state = family.build(config, "cpu").init(jax.random.key(0))
    with checkpoint.Checkpoints(workdir, config=config) as checkpoints:
        checkpoints.save(3, jax.device_put(state))
        checkpoints.wait()
    for layout, (count, devices) in LAYOUTS.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(folder / layout / "cache"))
            (folder / layout).mkdir()
            said = processes.run(
                f"{HERE}:measure", str(folder), layout, processes=count, devices=devices
            )
        assert "fid_all" in said[0] and "fd_digits" in said[0]
        assert not any("fid_all" in words for words in said[1:])  # the table is printed once
    return folder


def measure(folder, layout):
    """In each process of a layout; records of both folders in both roles, and of the run."""
    processes_here, devices = LAYOUTS[layout]
    assert (jax.process_count(), jax.local_device_count()) == (processes_here, devices)
    bench.catalog.find = lambda name: None
    bench.catalog.load = lambda name: Mixing()
    bench.train_classifier = lambda *args: train_classifier(*args, steps=60)
    folder = pathlib.Path(folder)
    records = {
        f"{real}-{fake}": evaluation.compare(folder / real, folder / fake, ["fid_all", "pr_all"])
        for real, fake in (("real", "fake"), ("fake", "real"))
    }
    records["run"] = evaluation.evaluate(
        folder / "run", ["fd_digits", "class_accuracy"], samples=SAMPLES
    )
    (folder / layout / f"{jax.process_index()}.json").write_text(json.dumps(records))


def read(folder, layout, process=0):
    return json.loads((folder / layout / f"{process}.json").read_text())


def moments(folder, layout):
    """Of both folders, by how many pictures they count, as the layout kept them."""
    found = {}
    for file in (folder / layout / "cache" / "ganjax" / "statistics").glob("inception*.npz"):
        with np.load(file) as arrays:
            names = [name for name in arrays.files if name.startswith(("even_", "odd_"))]
            whole = Halves.from_arrays({name: arrays[name] for name in names}).whole
        found[whole.count] = whole
    return found


@pytest.mark.slow
def test_moments_and_distances_are_of_the_pictures_alone(measured):
    expected = moments(measured, "one")
    assert set(expected) == set(COUNTS.values())  # padding never counts
    for layout in ("eight", "processes"):
        found = moments(measured, layout)
        assert set(found) == set(expected)
        for count, one in expected.items():
            for name in ("mean", "scatter"):
                golden, ours = getattr(one, name), getattr(found[count], name)
                assert np.abs(ours - golden).max() <= 1e-6 * np.abs(golden).max()
        for pair in ("real-fake", "fake-real"):
            golden, ours = (read(measured, name)[pair] for name in ("one", layout))
            same(ours["metrics"]["fid_all"], golden["metrics"]["fid_all"])
            assert ours["metrics"] == pytest.approx(golden["metrics"], rel=1e-4)
            for name in ("real", "source", "fake", "weights", "protocols"):
                assert ours[name] == golden[name]


@pytest.mark.slow
def test_samples_of_a_model_are_measured_alike(measured):
    golden = read(measured, "one")["run"]
    for layout in ("eight", "processes"):
        ours = read(measured, layout)["run"]
        same(ours["metrics"]["fd_digits"], golden["metrics"]["fd_digits"])
        same(
            ours["references"]["fd_digits"]["real_real"],
            golden["references"]["fd_digits"]["real_real"],
        )
        assert ours["metrics"]["class_accuracy"] == golden["metrics"]["class_accuracy"]
    lines = (measured / "run" / evaluation.EVALUATIONS).read_text().splitlines()
    assert [json.loads(line)["device"] for line in lines] == ["1 x cpu", "8 x cpu", "8 x cpu"]


@pytest.mark.slow
def test_processes_agree_to_the_bit(measured):
    first, second = (read(measured, "processes", process) for process in range(2))
    for name, record in first.items():
        for part in ("metrics", "references", "weights"):
            assert record[part] == second[name][part]


def same(ours, golden):
    assert abs(ours - golden) <= 1e-4 * max(1, golden), (ours, golden)
