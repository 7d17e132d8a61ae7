"""Videos as files, read back by what others read them with."""

import itertools
import os

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace
from PIL import Image

from ganjax.sampling import video

FRAMES = 10


def picture(i):
    """A bright square that moves over a slope of colours; 31x45, both odd."""
    y, x = np.mgrid[:31, :45]
    image = np.stack([4 * x, 6 * y, np.full_like(x, 100)], axis=-1).astype(np.uint8)
    image[8:20, 3 * i : 3 * i + 12] = (255, 40, 0)
    return image


def test_an_mp4_is_even_named_and_the_pictures(tmp_path):
    video.write(tmp_path / "a.mp4", picture, FRAMES, fps=24)
    with av.open(str(tmp_path / "a.mp4")) as file:
        (stream,) = file.streams
        assert stream.average_rate == 24 and stream.frames == FRAMES
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert stream.codec_context.colorspace == Colorspace.ITU709.value
        frames = [
            frame.reformat(format="rgb24", src_colorspace=Colorspace.ITU709).to_ndarray()
            for frame in file.decode(stream)
        ]
    assert len(frames) == FRAMES and frames[0].shape == (32, 46, 3)
    for i, frame in enumerate(frames):
        error = np.abs(frame[:31, :45].astype(int) - picture(i))
        assert error.mean() < 6, i
        assert error[10:18, 3 * i + 2 : 3 * i + 10].mean() < 8, i  # the square is where it was


def test_a_gif_keeps_time_loops_and_has_one_palette(tmp_path):
    video.write(tmp_path / "a.gif", picture, FRAMES, fps=30)
    with Image.open(tmp_path / "a.gif") as file:
        assert file.n_frames == FRAMES and file.size == (45, 31) and file.info["loop"] == 0
        durations = []
        for i in range(FRAMES):
            file.seek(i)
            durations.append(file.info["duration"])
            error = np.abs(np.asarray(file.convert("RGB")).astype(int) - picture(i))
            assert error.mean() < 6, i
            assert error[8:20, 3 * i : 3 * i + 12].mean() < 12, i
    # 1/30 of a second is no number of hundredths: on average it is.
    assert set(durations[:-1]) == {30, 40}
    assert abs(sum(durations) - 1000 * FRAMES / 30) <= 10


def test_gray_pictures_keep_their_levels_in_a_gif(tmp_path):
    def gray(i):
        return np.repeat((np.arange(200, dtype=np.uint8).reshape(10, 20, 1) + i), 3, axis=2)

    video.write(tmp_path / "a.gif", gray, 3, fps=10)
    with Image.open(tmp_path / "a.gif") as file:
        for i in range(3):
            file.seek(i)
            shown = np.asarray(file.convert("RGB")).astype(int)
            # Pillow looks the nearest colour up with six bits.
            assert np.abs(shown - gray(i)).max() < 4 and (shown[..., :1] == shown).all()


def test_a_png_is_a_strip(tmp_path):
    video.write(tmp_path / "a.png", picture, 100)
    drawn = np.asarray(Image.open(tmp_path / "a.png"))
    assert drawn.shape == (31 + 4, 8 * (45 + 2) + 2, 3)
    np.testing.assert_array_equal(drawn[2:33, 2:47], picture(0))
    np.testing.assert_array_equal(drawn[2:33, -47:-2], picture(99))
    assert video.strip(picture, 3).shape == (35, 3 * 47 + 2, 3)


@pytest.mark.parametrize("ending", ["mp4", "gif"])
def test_pictures_are_made_one_at_a_time_and_nothing_is_half_written(ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(b"before")
    asked = itertools.count()

    def fails(i):
        if next(asked) >= 14:  # a GIF looks at 10 of these before it begins
            raise KeyboardInterrupt
        return picture(i % 10)

    with pytest.raises(KeyboardInterrupt):
        video.write(path, fails, 1000 if ending == "mp4" else 10)
    assert os.listdir(tmp_path) == [path.name] and path.read_bytes() == b"before"


@pytest.mark.parametrize(
    ("name", "frames", "fps", "words"),
    [
        ("a.avi", 1, 30, r"a.avi is no video .*'.mp4', '.gif', '.png'"),
        ("a.mp4", 0, 30, "0 frames"),
        ("a.mp4", 5, 0, "at 0 a second"),
        ("a.mp4", 5, float("nan"), "at nan a second"),
        ("a.gif", 5, 60, "a rate up to 50"),
    ],
)
def test_what_cannot_be_written(name, frames, fps, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        video.write(tmp_path / name, picture, frames, fps)
    assert not os.listdir(tmp_path)
