"""Frames of video files, in any order, of any kind of file."""

import av
import numpy as np
import pytest

from ganjax.data.files import Folder, Zip
from ganjax.data.transforms import BrokenItem
from ganjax.data.video_files import VideoFile, regular
from tests.data.clips_on_disk import levels_of, write_video
from tests.data.pictures import write_zip

LEVELS = list(range(20, 240, 10))
KINDS = {
    "a.mp4": {"codec": "libx264"},
    "bidirectional.mp4": {"codec": "libx264", "gop": 10, "options": {"bf": "3"}},
    "all-key.mov": {"codec": "libx264", "gop": 1},
    "a.webm": {"codec": "libvpx-vp9", "gop": 6},
    "hidden.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "10"}},
    "a.avi": {"codec": "mpeg4"},
    "bidirectional.avi": {"codec": "mpeg4", "gop": 8, "options": {"bf": "2"}},
    "motion-jpeg.avi": {"codec": "mjpeg"},
    "b.mkv": {"codec": "libx264", "gop": 7},
}


@pytest.mark.parametrize("name", KINDS)
def test_any_frames_are_those_of_a_whole_pass(name, tmp_path):
    write_video(tmp_path / name, LEVELS, **KINDS[name])
    video = VideoFile(Folder(tmp_path), name)
    assert len(video) == 22 and video.rate == 25
    whole = video.read(np.arange(22))
    assert whole.shape == (22, 32, 32, 3) and whole.dtype == np.uint8
    np.testing.assert_allclose(levels_of(whole), LEVELS, atol=9)
    for chosen in ([21], [0], [13, 2, 13, 7], [5, 6, 20], list(range(21, -1, -1))):
        np.testing.assert_array_equal(video.read(np.array(chosen)), whole[chosen], str(chosen))


def test_only_what_follows_the_key_frame_is_decoded(tmp_path, monkeypatch):
    # Without scene cuts, so that every tenth frame alone is a key frame.
    options = {"bf": "0", "sc_threshold": "0"}
    write_video(tmp_path / "a.mp4", LEVELS, gop=10, options=options)
    video = VideoFile(Folder(tmp_path), "a.mp4")
    decoded = []
    numbered = VideoFile._numbered

    def watched(*args):
        for number, frame in numbered(*args):
            decoded.append(number)
            yield number, frame

    monkeypatch.setattr(VideoFile, "_numbered", watched)
    video.read(np.array([12, 21]))
    assert decoded == [10, 11, 12, 20, 21]


def test_frames_that_are_not_shown_do_not_count(tmp_path):
    """VP8 keeps frames that others refer to alone in packets of their own."""
    file = write_video(tmp_path / "a.webm", LEVELS, "libvpx", gop=50)
    with av.open(str(file)) as container:
        packet = bytes(list(container.demux(video=0))[5])
    data = bytearray(file.read_bytes())
    data[data.index(packet)] &= ~0x10  # show_frame (RFC 6386, 9.1)
    file.write_bytes(data)
    video = VideoFile(Folder(tmp_path), "a.webm")
    assert len(video) == 21
    shown = LEVELS[:5] + LEVELS[6:]
    np.testing.assert_allclose(
        levels_of(video.read(np.array([4, 5, 20]))), np.array(shown)[[4, 5, 20]], atol=9
    )


def test_whatever_the_decoder_raises_is_a_broken_item(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", LEVELS)

    def raises(*args):
        raise UnicodeDecodeError("utf-8", b"x", 0, 1, "invalid start byte")

    monkeypatch.setattr(av, "open", raises)
    with pytest.raises(BrokenItem, match="^a.mp4: .*invalid start byte"):
        VideoFile(Folder(tmp_path), "a.mp4")


def test_frames_of_a_zip(tmp_path):
    data = write_video(tmp_path / "a.mp4", LEVELS).read_bytes()
    archive = write_zip(tmp_path / "a.zip", {"inside/a.mp4": data})
    packed = VideoFile(Zip(archive), "inside/a.mp4")
    plain = VideoFile(Folder(tmp_path), "a.mp4")
    np.testing.assert_array_equal(packed.read(np.arange(5)), plain.read(np.arange(5)))


@pytest.mark.parametrize("name, codec", [("a.mp4", "libx264"), ("a.webm", "libvpx-vp9")])
def test_a_variable_frame_rate_is_shown_at_its_median_step(name, codec, tmp_path):
    stamps = [0, 40, 80, 120, 280, 320, 360, 480]
    write_video(tmp_path / name, LEVELS[:8], codec, stamps=stamps)
    video = VideoFile(Folder(tmp_path), name)
    assert len(video) == 13 and video.rate == pytest.approx(25)
    on_screen = [0, 1, 2, 3, 3, 3, 3, 4, 5, 6, 6, 6, 7]
    levels = levels_of(video.read(np.arange(13)))
    np.testing.assert_allclose(levels, np.array(LEVELS)[on_screen], atol=6)
    np.testing.assert_array_equal(levels_of(video.read(np.array([6, 12]))), levels[[6, 12]])


def test_rounded_stamps_are_of_an_even_rate():
    """webm counts milliseconds, of which 29.97 frames a second leave fractions."""
    rate = 30_000 / 1001
    even = np.arange(10_000) / rate
    shown, found = regular(np.round(even, 3), rate)
    assert (shown == np.arange(10_000)).all() and found == rate
    shown, found = regular(np.round(even, 3), 25.0)  # a stated rate that is wrong
    assert (shown == np.arange(10_000)).all() and found == pytest.approx(rate, rel=1e-5)
    assert regular(np.zeros(1), 24.0)[1] == 24


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turned_videos_are_upright(quarters, tmp_path):
    """As a telephone writes them: pixels as the sensor has them, and how to turn them."""
    file = write_video(tmp_path / "a.mp4", LEVELS[:3], size=(48, 32))
    plain = VideoFile(Folder(tmp_path), "a.mp4").read(np.arange(3))
    turn(file, *[(1, 0), (0, 1), (-1, 0), (0, -1)][quarters])
    turned = VideoFile(Folder(tmp_path), "a.mp4").read(np.arange(3))
    # (0, 1): what points right points down, a quarter clockwise.
    np.testing.assert_array_equal(turned, np.rot90(plain, -quarters, axes=(1, 2)))


def turn(file, cos, sin):
    """Sets the matrix of the track (ISO/IEC 14496-12, 8.3.2), in 16.16 fixed point."""
    data = bytearray(file.read_bytes())
    start = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    matrix = [cos, sin, 0, -sin, cos, 0, 0, 0]
    assert data[start : start + 4] == (1 << 16).to_bytes(4, "big")
    data[start : start + 32] = b"".join(
        int(v * 65536).to_bytes(4, "big", signed=True) for v in matrix
    )
    file.write_bytes(data)


def test_a_slanted_video_is_refused(tmp_path):
    file = write_video(tmp_path / "a.mp4", LEVELS[:3])
    turn(file, 0.8, 0.6)
    with pytest.raises(BrokenItem, match="a.mp4: it is turned by -?3. degrees; expected a mult"):
        VideoFile(Folder(tmp_path), "a.mp4").read(np.arange(1))


def test_what_is_no_video_is_named(tmp_path):
    whole = write_video(tmp_path / "a.mp4", LEVELS).read_bytes()
    for name, data in {"text.mp4": b"no video" * 50, "half.mp4": whole[: len(whole) // 2]}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BrokenItem, match=f"^{name}: Invalid data"):
            VideoFile(Folder(tmp_path), name)
    with pytest.raises(FileNotFoundError):
        VideoFile(Folder(tmp_path), "nothing.mp4")


def test_a_damaged_frame_is_named(tmp_path):
    """One byte of it is enough, and the frames before it can be read."""
    noise = np.random.default_rng(0).integers(0, 255, 22)
    file = write_video(tmp_path / "a.mp4", noise, gop=22, options={"bf": "0", "sc_threshold": "0"})
    whole = VideoFile(Folder(tmp_path), "a.mp4").read(np.arange(22))
    with av.open(str(file)) as container:
        packet = bytes(list(container.demux(video=0))[9])
    data = bytearray(file.read_bytes())
    data[data.index(packet) + 20] ^= 255
    file.write_bytes(data)
    video = VideoFile(Folder(tmp_path), "a.mp4")
    np.testing.assert_array_equal(video.read(np.arange(9)), whole[:9])
    with pytest.raises(BrokenItem, match="^a.mp4: its frame 9 cannot be decoded"):
        video.read(np.arange(10))
