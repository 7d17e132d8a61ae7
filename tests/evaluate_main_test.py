"""`--mode=evaluate --real --fake` as a person meets it: the record, the bar, every mistake."""

import json
import os
import pty
import socket
import subprocess
import sys
import termios

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from ganjax.pretrained import catalog
from tests.data.clips_on_disk import write_video

FVD = "--metrics=fvd_all_16f"

# The command line with a network that needs no weights: means of three channels, and of NaN.
STUB = """
import sys
import jax.numpy as jnp
from ganjax import bench, config, main

class Network:
    sha256, variables = "of means", ()

    def apply(self, variables, images, features):
        means = images.astype("float32").mean(tuple(range(1, images.ndim - 1)))
        if "nan" in sys.argv[-1]:
            means = jnp.where(means > 200, jnp.nan, means)
        return dict.fromkeys(features, means)

bench.catalog.find = lambda name: None
bench.catalog.load = lambda name: Network()
config.run(main.main)
"""


def command(*flags, stub=True):
    start = ["-c", STUB] if stub else ["-m", "ganjax.main"]
    return [sys.executable, *start, "--mode=evaluate", *flags]


def environment(path):
    return os.environ | {"XDG_CACHE_HOME": str(path / "cache"), "JAX_NUM_CPU_DEVICES": "1"}


def refused(path, *flags, **changes):
    """What it said; one paragraph, status 2."""
    result = subprocess.run(
        command(*flags, **changes), env=environment(path), capture_output=True, text=True
    )
    said = result.stderr
    assert result.returncode == 2, said
    assert said.startswith("error: ") and "Traceback" not in said, said
    return said.removeprefix("error: ")


def write(folder, images, suffix="png"):
    folder.mkdir(parents=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:02}.{suffix}")
    return folder


@pytest.fixture
def folders(tmp_path):
    images = np.random.default_rng(0).integers(0, 200, (9, 4, 4, 3), np.uint8)
    both = [write(tmp_path / name, images + high) for name, high in (("real", 0), ("fake", 9))]
    return [f"--{folder.name}={folder}" for folder in both]


@pytest.mark.slow
def test_the_record_is_kept_and_a_terminal_sees_a_bar(folders, tmp_path):
    out = tmp_path / "records.jsonl"
    master, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    for _ in range(2):
        result = subprocess.run(
            command(*folders, "--metrics=fid_all", f"--out={out}"),
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=terminal,
            text=True,
        )
        assert result.returncode == 0
    os.set_blocking(master, False)
    bars = os.read(master, 100_000).decode()
    assert "real pictures:" in bars and "samples:" in bars and "/9 [" in bars
    os.close(terminal)
    os.close(master)
    assert result.stdout.splitlines()[1].startswith("fid_all")
    first, second = map(json.loads, out.read_text().splitlines())
    assert first["metrics"] == second["metrics"] and first["metrics"]["fid_all"] > 100
    assert first["folders"] == {name: str(tmp_path / name) for name in ("real", "fake")}


@pytest.mark.slow
def test_two_processes_share_the_pictures_and_one_speaks(folders, tmp_path):
    out = tmp_path / "records.jsonl"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    started = [
        subprocess.Popen(
            command(*folders, f"--out={out}"),
            env=environment(tmp_path)
            | {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
            | {"JAX_PROCESS_ID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    said = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert ["fid_all" in output for output, _ in said] == [True, False]
    (record,) = map(json.loads, out.read_text().splitlines())
    assert record["device"] == "2 x cpu" and record["real"] == {"fid_all": 9}


def test_an_empty_folder(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    said = refused(tmp_path, folders[0], f"--fake={tmp_path / 'empty'}")
    assert "empty holds no pictures (0 other files)" in said


def test_pictures_of_two_sizes(folders, tmp_path):
    Image.new("RGB", (5, 4)).save(tmp_path / "fake" / "99.png")
    said = refused(tmp_path, *folders)
    assert "(4, 4, 3) and of (4, 5, 3)" in said or "(4, 5, 3) and of (4, 4, 3)" in said


def test_a_broken_picture(folders, tmp_path):
    file = tmp_path / "real" / "03.png"
    file.write_bytes(file.read_bytes()[:40])
    said = refused(tmp_path, *folders)
    assert "03.png of folder" in said and "is broken" in said and "mend it or remove it" in said


def test_fewer_frames_than_a_clip(tmp_path):
    frames = np.zeros((7, 4, 4, 3), np.uint8)
    both = [write(tmp_path / name / "video", frames).parent for name in ("real", "fake")]
    flags = [f"--{folder.name}={folder}" for folder in both]
    said = refused(tmp_path, *flags, FVD)
    assert "need videos of 16 frames, but the longest of 1 has 7" in said


@pytest.mark.slow
def test_folders_of_video_files(tmp_path):
    for name, high in (("real", 0), ("fake", 60)):
        for video in range(3):
            levels = np.linspace(high + 20 * video, high + 100, 16).astype(int)
            write_video(tmp_path / name / f"{video}.mp4", levels)
    out = tmp_path / "records.jsonl"
    folders = [f"--{name}={tmp_path / name}" for name in ("real", "fake")]
    words = command(*folders, FVD, f"--out={out}")
    subprocess.run(words, env=environment(tmp_path), check=True, capture_output=True)
    record = json.loads(out.read_text())
    assert record["metrics"]["fvd_all_16f"] > 100 and record["real"] == {"fvd_all_16f": 3}


def test_a_video_file_that_is_none(tmp_path):
    write_video(tmp_path / "real" / "a.mp4", [30, 60])
    (tmp_path / "real" / "b.mp4").write_text("not a video")
    said = refused(tmp_path, f"--real={tmp_path}/real", f"--fake={tmp_path}/real", FVD)
    assert "b.mp4: Invalid data" in said and "mend it or remove it" in said


def test_weights_of_another_network(folders, tmp_path, monkeypatch):
    file = tmp_path / "weights" / "inception-2015-12-05.safetensors"
    file.parent.mkdir()
    metadata = {"format": catalog.FORMAT, "network": "vgg16", "sha256": "0"}
    safetensors.numpy.save_file({"x": np.zeros(1)}, file, metadata)
    monkeypatch.setenv("GANJAX_WEIGHTS", str(file.parent))
    said = refused(tmp_path, *folders, stub=False)
    assert "holds the weights of vgg16, not of inception-2015-12-05" in said


def test_features_that_are_no_numbers(folders, tmp_path):
    bright = tmp_path / "nan" / "bright.png"
    bright.parent.mkdir()
    Image.new("RGB", (4, 4), (255, 255, 255)).save(bright)
    said = refused(tmp_path, folders[0], f"--fake={bright.parent}")
    assert "features that are not finite, first of bright.png of folder" in said


def test_a_place_that_cannot_be_written(folders, tmp_path):
    said = refused(tmp_path, *folders, f"--out={tmp_path / 'nowhere' / 'record.json'}")
    assert "a file in a folder that is there" in said
