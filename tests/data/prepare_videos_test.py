"""Videos become records a frame, from which only the wanted frames are read."""

import io
import json
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from ganjax.data import prepare as tool
from ganjax.data import records
from ganjax.data.demo import ShapeVideos
from ganjax.data.files import Folder
from ganjax.data.prepare import prepare
from ganjax.data.recipes import VideoRecipe
from ganjax.data.records import Records, RecordVideos
from ganjax.data.transforms import fit
from ganjax.data.videos import Videos
from tests.data.clips_on_disk import write_video
from tests.data.pictures import write_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of files and frame folders; one is torn, one of several sizes, one short."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "run" / "a.mp4", range(20, 220, 10), rate=30)
    write_video(folder / "walk" / "b.webm", range(0, 250, 25), "libvpx-vp9")
    write_video(folder / "run" / "short.mp4", [9])
    (folder / "walk" / "torn.mp4").write_bytes(b"nothing")
    write_folder(folder, {f"walk/c/{i:03d}.png": 5 * i for i in range(9)})
    write_folder(folder, {"walk/d/0.png": 1})
    Image.new("L", (9, 9)).save(folder / "walk" / "d" / "1.png")
    return folder


def run(*flags):
    return tool.main([f"--{flag}" for flag in flags])


def test_videos_are_kept_with_their_classes_and_rates(folder, tmp_path, capsys):
    out = tmp_path / "out"
    flags = ("videos", "source=folder", f"path={folder}", f"out={out}", "form=png", "workers=0")
    assert run(*flags, "resolution=12x16", "min_frames=2", "shard_items=2") == 0
    said = capsys.readouterr()
    assert "3 videos (39 frames) of 2 classes in 3 shards (" in said.out
    assert "3 broken ones are left out, and listed in index.json: run/short.mp4, " in said.out
    assert "--config.data.source=records" in said.out and "(12, 16)" in said.out
    assert "run/short.mp4: 1 frames, fewer than --min_frames=2" in said.err
    assert "walk/torn.mp4: Invalid data" in said.err
    assert "walk/d (its frames are of several sizes: [(5, 6, 1), (9, 9, 1)]" in said.err
    source = RecordVideos(out)
    assert (len(source), source.classes) == (3, ("run", "walk"))
    found = [source[i] for i in range(3)]
    kept = [(v["video"].name, len(v["video"]), v["video"].rate, int(v["label"])) for v in found]
    assert kept == [("run/a.mp4", 20, 30, 0), ("walk/b.webm", 10, 25, 1), ("walk/c", 9, 0, 1)]
    originals = Videos(Folder(folder))
    for video in (item["video"] for item in found):
        names = [originals.describe(i) for i in range(len(originals))]
        original = originals.video(names.index(video.name)).read(np.array([7, 2]))
        wanted = [fit(frame, (12, 16), frame.shape[-1]) for frame in original]
        np.testing.assert_array_equal(video.read(np.array([7, 2])), wanted)
    assert pickle.loads(pickle.dumps(source)).fingerprint() == source.fingerprint()


def test_only_the_wanted_records_are_read(tmp_path, monkeypatch):
    prepare(ShapeVideos((8, 8), 3, lengths=(5, 9)), tmp_path, VideoRecipe(), show=False)
    source, read = RecordVideos(tmp_path), []
    plain = records.read_record
    monkeypatch.setattr(records, "read_record", lambda r, i, n: read.append(i) or plain(r, i, n))
    first = len(source.video(0))
    source.video(1).read(np.array([4, 0]))
    assert read == [first + 4, first]


def test_frames_are_kept_as_they_are_or_encoded_as_asked(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    (tmp_path / "in" / "video").mkdir(parents=True)
    Image.fromarray(noise).save(tmp_path / "in" / "video" / "0.png")
    write_video(tmp_path / "in" / "file.mp4", [10, 200])
    sizes = {}
    for name, recipe in (
        ("plain", VideoRecipe()),
        ("low", VideoRecipe((16, 16), quality=20)),
        ("high", VideoRecipe((16, 16))),
    ):
        source = Videos(Folder(tmp_path / "in"))
        prepare(source, tmp_path / name, recipe, show=False)
        frame, picture = (RecordVideos(tmp_path / name).video(i).encoded(0) for i in (0, 1))
        assert Image.open(io.BytesIO(frame)).format == "JPEG"
        sizes[name] = len(picture)
        if name == "plain":
            assert picture == (tmp_path / "in" / "video" / "0.png").read_bytes()
    assert sizes["low"] < 0.8 * sizes["high"]
    with pytest.raises(ValueError, match="quality: None then, 50 now"):
        prepare(source, tmp_path / "high", VideoRecipe((16, 16), quality=50), show=False)


def test_records_of_the_other_kind_are_named(tmp_path):
    prepare(ShapeVideos((8, 8), 1, lengths=(2, 2)), tmp_path / "videos", VideoRecipe(), show=False)
    with pytest.raises(ValueError, match="holds videos, and pictures are .* config.data.clip"):
        Records(tmp_path / "videos")
    write_folder(tmp_path / "in", {"1.png": 1})
    assert run("source=folder", f"path={tmp_path}/in", f"out={tmp_path}/out", "workers=0") == 0
    with pytest.raises(ValueError, match="holds pictures, and clips are .*clip=None.*--videos"):
        RecordVideos(tmp_path / "out")


def test_records_prepared_again_are_the_same_records(tmp_path):
    prepare(ShapeVideos((8, 8), 4, lengths=(2, 5)), tmp_path / "a", VideoRecipe(), show=False)
    recipe = VideoRecipe((4, 4))
    once = prepare(RecordVideos(tmp_path / "a"), tmp_path / "b", recipe, show=False)
    again = prepare(RecordVideos(tmp_path / "a"), tmp_path / "c", recipe, show=False, workers=1)
    assert once["fingerprint"] == again["fingerprint"]
    other = prepare(ShapeVideos((8, 8), 4, 1, (2, 5)), tmp_path / "d", recipe, show=False)
    assert other["fingerprint"] != once["fingerprint"]


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path):
    out = tmp_path / "out"
    flags = f"--videos --source=shapes --out={out} --form=png --workers=0 --shard_items=2"
    for number in range(12):
        write_video(tmp_path / "in" / f"{number:02d}.mp4", [number * 20] * (3 + number))
    flags = flags.replace("shapes", f"folder --path={tmp_path / 'in'}")
    words = [sys.executable, "-c", SLOW, *flags.split()]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(out.glob("*.array_record"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path.name: path.stat().st_mtime_ns for path in out.glob("*.array_record")}
    assert 2 <= len(done) < 6 and not (out / "index.json").exists()
    with pytest.raises(FileNotFoundError, match="is not finished"):
        RecordVideos(out)
    assert run(*(word.removeprefix("--") for word in flags.split())) == 0
    kept = json.loads((out / "index.json").read_text())["shards"]
    noted = {shard["file"] for shard in kept}
    assert {path.name for path in out.glob("*.array_record")} == noted and len(noted) == 6
    assert sum((out / n).stat().st_mtime_ns == t for n, t in done.items()) >= len(done) - 1
    source = RecordVideos(out)
    assert [len(source.video(i)) for i in range(12)] == list(range(3, 15))


# Slow enough to be met at work.
SLOW = """
import sys, time
from ganjax.data import prepare, recipes
make = recipes.VideoRecipe.make
recipes.VideoRecipe.make = lambda *args: time.sleep(0.05) or make(*args)
sys.exit(prepare.main(sys.argv[1:]))
"""


def test_flags_are_checked(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("videos", "source=shapes", f"out={tmp_path}", "quality=0")
    assert "'0' is no whole number from 1 to 100" in capsys.readouterr().err
    assert run("videos", "source=digits", f"out={tmp_path / 'out'}") == 2
    assert "--source='digits' has no videos" in capsys.readouterr().err
    assert run("videos", "source=folder", f"out={tmp_path / 'out'}") == 2
    assert "--source='folder' needs a place: set --path" in capsys.readouterr().err
