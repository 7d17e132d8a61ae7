import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from ganjax.data import prepare as tool
from ganjax.data.demo import Shapes
from ganjax.data.prepare import prepare
from ganjax.data.recipes import Recipe
from ganjax.data.records import Records, unpack
from ganjax.data.sources import open_source
from ganjax.data.transforms import fit
from tests.data.pictures import encoded, values, write_folder, write_zip

FILES = {"a/1.png": 1, "a/2.png": b"no picture", "b/3.png": encoded((3, 3, 3), (8, 9), "JPEG")}


class Config:
    """What `open_source` reads."""

    def __init__(self, **fields):
        vars(self).update(fields)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "pictures", FILES)


def source_of(path, kind="folder"):
    return open_source(Config(source=kind, path=str(path)))


def run(*args):
    """The command line, here."""
    return tool.main([f"--{arg}" for arg in args])


def test_pictures_are_fitted_and_lose_nothing(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(noise).save(folder / "1.png")
    prepare(source_of(folder), tmp_path / "out", Recipe((16, 8)), show=False)
    kept = Records(tmp_path / "out")[0]["image"]
    np.testing.assert_array_equal(kept, fit(noise, (16, 8), 3))


def test_jpeg_keeps_the_colours_of_each_pixel(tmp_path):
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = (255, 0, 0)
    stripes[:, 1::2] = (0, 0, 255)
    Image.fromarray(stripes).save(tmp_path / "1.png")
    record = Recipe((32, 32), "jpeg").make(source_of(tmp_path), 0).records[0]
    assert unpack(record).picture[:3] == b"\xff\xd8\xff"
    prepare(source_of(tmp_path), tmp_path / "out", Recipe((32, 32), "jpeg"), show=False)
    error = np.abs(Records(tmp_path / "out")[0]["image"].astype(int) - stripes)
    assert error.max() < 30, "chroma that is halved would mix the stripes"


def test_without_a_resolution_files_are_kept(folder, tmp_path):
    prepare(source_of(folder), tmp_path / "out", Recipe(), show=False)
    records = Records(tmp_path / "out")
    assert [records.encoded(i).picture for i in (0, 1)] == [encoded(1), FILES["b/3.png"]]
    assert records.classes == ("a", "b") and values(records) == [(1, 0), (3, 1)]
    assert records.describe(1) == "record 1, b/3.png"


def test_a_source_without_files_is_encoded(tmp_path):
    shapes = Shapes((8, 12), 50)
    index = prepare(shapes, tmp_path, Recipe(), show=False, shard_items=30)
    records = Records(tmp_path)
    assert len(records) == 50 and len(index["shards"]) == 2
    assert records.classes == shapes.classes and records.describe(40) == "record 40, shape 40"
    for i in range(50):
        np.testing.assert_array_equal(records[i]["image"], shapes[i]["image"])
        assert records[i]["label"] == shapes[i]["label"]


def test_records_can_be_prepared_anew(folder, tmp_path):
    prepare(source_of(folder), tmp_path / "large", Recipe(), show=False)
    large = source_of(tmp_path / "large", "records")
    prepare(large, tmp_path / "small", Recipe((4, 4)), show=False)
    small = Records(tmp_path / "small")
    assert [small[i]["image"].shape for i in (0, 1)] == [(4, 4, 1), (4, 4, 3)]
    assert small.classes == ("a", "b")
    assert small.encoded(1).name == "b/3.png"


def test_broken_pictures_are_left_out_and_named(folder, tmp_path, capsys):
    index = prepare(source_of(folder), tmp_path / "out", Recipe((4, 4)))
    ((name, fault),) = index["shards"][0]["broken"]
    assert name == "a/2.png" and "no picture of a kind" in fault
    assert "Broken, left out: a/2.png: no picture" in capsys.readouterr().err
    assert values(Records(tmp_path / "out")) == [(1, 0), (3, 1)]


def test_too_many_broken_pictures_are_an_error(tmp_path):
    folder = write_folder(tmp_path / "p", {f"{i}.png": i if i < 2 else b"-" for i in range(6)})
    options = {"shard_items": 2, "show": False}
    with pytest.raises(ValueError, match=r"3 broken items, .*4.png.*At most 2 .*--max_broken"):
        prepare(source_of(folder), tmp_path / "out", Recipe(), max_broken=2, **options)
    # What was finished stays, and its broken ones count.
    with pytest.raises(ValueError, match="4 broken items"):
        prepare(source_of(folder), tmp_path / "out", Recipe(), max_broken=3, **options)
    prepare(source_of(folder), tmp_path / "out", Recipe(), max_broken=4, **options)
    assert len(Records(tmp_path / "out")) == 2


def test_a_fault_of_the_storage_says_that_the_rest_stays(tmp_path):
    class Unplugged(Shapes):
        def __getitem__(self, index):
            if index == 9:
                raise OSError(5, "Input/output error")
            return super().__getitem__(index)

    source = Unplugged((4, 4), 12)
    with pytest.raises(
        OSError, match=r"Input/output error\. 2 shards are finished and stay; .* goes on"
    ):
        prepare(source, tmp_path / "out", Recipe(), shard_items=4, show=False)


def test_workers_make_the_same_records(tmp_path):
    source = Shapes((4, 4), 300)
    for workers in (0, 2):
        out = tmp_path / str(workers)
        prepare(source, out, Recipe(), workers=workers, shard_items=200, show=False)
    one, two = ({f.name: f.read_bytes() for f in (tmp_path / n).iterdir()} for n in "02")
    assert one == two


def test_a_killed_one_goes_on(tmp_path):
    """SIGKILL, with workers: no process stays, and the shards that were finished do."""
    pictures = {f"{i}.png": encoded((i, 2, 3), (600, 600)) for i in range(60)}
    folder, out = write_folder(tmp_path / "pictures", pictures), tmp_path / "out"
    command = f"--source=folder --path={folder} --out={out} --resolution=512 --shard_items=2"
    words = [sys.executable, "-m", "ganjax.data.prepare", *command.split(), "--workers=1"]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    while not (out / "part-00001.array_record").exists():
        assert process.poll() is None
        time.sleep(0.002)
    workers = children(process.pid)
    process.kill()
    process.wait()
    names = {file.name for file in out.glob("*.array_record")}
    assert 2 <= len(names) < 30 and "index.json" not in names
    assert workers and wait_for_end(workers)
    kept = (out / "part-00000.array_record").stat()
    assert run(*(word.removeprefix("--") for word in command.split()), "workers=0") == 0
    assert (out / "part-00000.array_record").stat() == kept
    assert sorted(value for value, _ in values(Records(out))) == list(range(60))


def children(pid):
    tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def wait_for_end(pids):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.02)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return False


def test_the_command_says_how_to_train(folder, tmp_path, capsys):
    out = tmp_path / "my pets"
    assert run("source=folder", f"path={folder}", f"out={out}", "resolution=4x8", "workers=0") == 0
    said = capsys.readouterr().out
    assert "2 pictures of 2 classes in 1 shard (" in said and "1 broken ones" in said
    assert "the smallest 5 pixels" not in said  # not smaller than 4x8 is fine
    words = shlex.split(said.strip().splitlines()[-1])
    assert words[:3] == ["python", "-m", "ganjax.main"]
    assert "another --config, as configs/stylegan2.py:auto, takes the same" in said
    assert "--config.data.source=records" in words and f"--config.data.path={out}" in words
    assert "--config.data.resolution=(4, 8)" in words and "--config.data.channels=3" in words
    assert "--workdir=runs/my pets" in words


def test_enlarged_pictures_are_told(folder, tmp_path, capsys):
    run("source=folder", f"path={folder}", f"out={tmp_path / 'out'}", "resolution=16", "workers=0")
    assert "the smallest 5 pixels, and enlarged" in capsys.readouterr().out


def test_the_resolution_of_kept_files_is_one_that_all_have(tmp_path, capsys):
    write_zip(tmp_path / "a.zip", {"1.png": encoded(1, (300, 70)), "2.png": encoded(2, (500, 500))})
    run("source=zip", f"path={tmp_path}/a.zip", f"out={tmp_path}/out", "workers=0")
    said = capsys.readouterr().out
    assert (
        "of no classes" in said and "--config.data.resolution=64 --config.data.channels=1" in said
    )


@pytest.mark.parametrize(
    "args, message",
    [
        (["source=folder"], "error: --source='folder' needs a place: set --path to a folder"),
        (["source=tfds"], "error: --source='tfds' needs --name"),
        (["source=zip", "path=nothing.zip"], "The zip file nothing.zip is not there"),
    ],
)
def test_a_mistake_is_told_in_terms_of_the_flags(args, message, tmp_path, capsys):
    assert run(*args, f"out={tmp_path}/out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_flags_are_checked(tmp_path, capsys):
    for wrong, message in (("resolution=12y", "expected pixels"), ("workers=-1", "whole number")):
        with pytest.raises(SystemExit):
            run("source=digits", f"out={tmp_path}", wrong)
        assert message in capsys.readouterr().err


def test_help_shows_examples():
    words = [sys.executable, "-m", "ganjax.data.prepare", "--help"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "--source=folder --path=PICTURES --out=data/pets" in said and "--max_broken" in said


def test_an_index_is_json(folder, tmp_path):
    index = prepare(source_of(folder), tmp_path / "out", Recipe((4, 4)), show=False)
    again = prepare(source_of(folder), tmp_path / "out", Recipe((4, 4)), show=False)
    assert again == json.loads(json.dumps(index))
