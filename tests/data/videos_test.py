"""Files and folders of frames are videos, in the order of their names."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from ganjax.data.files import Folder, Zip
from ganjax.data.transforms import BrokenItem
from ganjax.data.videos import Videos
from tests.data.clips_on_disk import levels_of, write_video
from tests.data.pictures import write_folder, write_zip


@pytest.fixture
def folder(tmp_path):
    for video, length in (("b", 3), ("a/deep", 2)):
        (tmp_path / video).mkdir(parents=True)
        for time in range(length):
            frame = np.full((2, 3, 3), 10 * length + time, np.uint8)
            Image.fromarray(frame).save(tmp_path / video / f"{time}.png")
    (tmp_path / "b" / "notes.txt").write_text("not a frame")
    Image.new("RGB", (2, 2)).save(tmp_path / "cover.png")
    return tmp_path


def test_videos_and_frames_are_sorted(folder):
    write_video(folder / "a.mp4", [10, 20, 30, 40], rate=30)
    videos = Videos(Folder(folder))
    assert [videos.describe(i) for i in range(len(videos))] == ["a.mp4", "a/deep", "b"]
    found = [videos.video(i) for i in range(3)]
    assert [(len(video), video.rate) for video in found] == [(4, 30), (2, 0), (3, 0)]
    frames = found[2].read(np.array([2, 0]))
    assert frames.shape == (2, 2, 3, 3)
    np.testing.assert_array_equal(frames[:, 0, 0, 0], [32, 30])
    np.testing.assert_allclose(levels_of(found[0].read(np.array([3, 1]))), [40, 20], atol=5)


def test_timestamps_are_read_once(tmp_path):
    write_video(tmp_path / "a.mp4", [10, 20])
    videos = Videos(Folder(tmp_path))
    assert videos.video(0) is videos.video(0)


FRAMES = {
    f"{place}/{name}/{i}.png": i for place in ("run", "jump") for name in "xy" for i in (1, 2)
}


@pytest.mark.parametrize("inside", ["", "dataset/"])
def test_classes_are_the_folders_above_videos(inside, tmp_path):
    files = {inside + name: value for name, value in FRAMES.items()}
    write_folder(tmp_path / "folder", files)
    for tree in (Folder(tmp_path / "folder"), Zip(write_zip(tmp_path / "a.zip", files))):
        videos = Videos(tree)
        assert videos.classes == ("jump", "run")
        assert [int(videos[i]["label"]) for i in range(4)] == [0, 0, 1, 1]
        assert videos[3]["video"].name == f"{inside}run/y"
        again = pickle.loads(pickle.dumps(videos))
        assert again.fingerprint() == videos.fingerprint()


def test_videos_side_by_side_have_no_classes(tmp_path):
    """StyleGAN-V's layout."""
    write_folder(tmp_path, {f"data/video_{v}/{i:06d}.jpg": i for v in range(3) for i in range(2)})
    videos = Videos(Folder(tmp_path))
    assert len(videos) == 3 and videos.classes == () and videos[2]["label"] == 0


@pytest.mark.parametrize(
    "labels",
    [
        [["run/x", 0], ["run/y", 1], ["jump/x", 2], ["jump/y", 0]],
        # StyleGAN-V's
        [
            [f"{v}/{i}.png", c]
            for v, c in zip(("run/x", "run/y", "jump/x", "jump/y"), (0, 1, 2, 0))
            for i in (1, 2)
        ],
    ],
)
def test_classes_of_a_dataset_json(labels, tmp_path):
    write_folder(tmp_path, FRAMES | {"dataset.json": json.dumps({"labels": labels}).encode()})
    videos = Videos(Folder(tmp_path))
    assert videos.classes == ("0", "1", "2")
    assert [int(videos[i]["label"]) for i in range(4)] == [2, 0, 0, 1]


def test_frames_of_several_classes_are_an_error(tmp_path):
    labels = [["x/1.png", 0], ["x/2.png", 1]]
    files = {"x/1.png": 1, "x/2.png": 2, "dataset.json": json.dumps({"labels": labels}).encode()}
    write_folder(tmp_path, files)
    with pytest.raises(ValueError, match="no class for 1 of 1 items, such as 'x'"):
        Videos(Folder(tmp_path))[0]


def test_a_changed_frame_changes_the_content(folder):
    write_video(folder / "a.mp4", [10, 20])
    before = Videos(Folder(folder)).content()
    assert Videos(Folder(folder)).content() == before
    Image.new("RGB", (3, 2), "red").save(folder / "b" / "1.png")
    after = Videos(Folder(folder)).content()
    assert after != before
    write_video(folder / "a.mp4", [10, 20, 30])
    assert Videos(Folder(folder)).content() != after


def test_mistakes_are_named(folder, tmp_path_factory):
    Image.new("RGB", (4, 2)).save(folder / "b" / "1.png")
    with pytest.raises(BrokenItem, match=r"b/1.png is of \(2, 4, 3\).*b/0.png of \(2, 3, 3\)"):
        Videos(Folder(folder)).video(1).read(np.arange(3))
    flat = tmp_path_factory.mktemp("flat")
    Image.new("RGB", (2, 2)).save(flat / "0.png")
    with pytest.raises(FileNotFoundError, match="holds no videos; expected files that end in .avi"):
        Videos(Folder(flat))
