"""Folders of frames are videos, in the order of their names."""

import numpy as np
import pytest
from PIL import Image

from ganjax.data.files import Folder
from ganjax.data.videos import Videos


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
    videos = Videos(Folder(folder))
    assert len(videos) == 2
    np.testing.assert_array_equal(videos.lengths, [2, 3])
    frames = videos.read(1, np.array([2, 0]))
    assert frames.shape == (2, 2, 3, 3)
    np.testing.assert_array_equal(frames[:, 0, 0, 0], [32, 30])


def test_a_changed_frame_changes_the_content(folder):
    before = Videos(Folder(folder)).content()
    assert Videos(Folder(folder)).content() == before
    Image.new("RGB", (3, 2), "red").save(folder / "b" / "1.png")
    assert Videos(Folder(folder)).content() != before


def test_mistakes_are_named(folder, tmp_path_factory):
    Image.new("RGB", (4, 2)).save(folder / "b" / "1.png")
    with pytest.raises(ValueError, match=r"b/1.png is of \(2, 4, 3\).*b/0.png of \(2, 3, 3\)"):
        Videos(Folder(folder)).read(1, np.arange(3))
    flat = tmp_path_factory.mktemp("flat")
    Image.new("RGB", (2, 2)).save(flat / "0.png")
    with pytest.raises(FileNotFoundError, match="holds no videos; expected a sub-folder"):
        Videos(Folder(flat))
