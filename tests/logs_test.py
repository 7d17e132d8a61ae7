import io
import json
import os
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ganjax import logs
from ganjax.logs import Logger, Progress, read_metrics


class Clock:
    """A clock that stands still until it is told to go on."""

    now = 1000.0

    def monotonic(self):
        return self.now

    def time(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(logs, "time", clock)
    return clock


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def fileno(self):
        return 0


@pytest.fixture
def events(monkeypatch):
    """What is written to TensorBoard: (tag, step, value)."""
    written = []

    class Board:
        def __init__(self, workdir, purge=None):
            written.append(("open", purge))

        def add(self, shown, step):
            (value,) = shown.value
            written.append((value.tag, step, value.simple_value or value.image.width))

        def flush(self):
            pass

        def close(self):
            written.append(("close",))

    monkeypatch.setattr(logs, "Board", Board)
    return written


# Numbers.


def test_numbers_are_on_disk_as_soon_as_they_are_logged(tmp_path, clock, events):
    logger = Logger(tmp_path)
    logger.scalars(64, {"d/loss": jnp.float32(0.5), "g/loss": np.float64(1.25), "n": 3})
    line = {"images": 64, "time": 1000.0, "d/loss": 0.5, "g/loss": 1.25, "n": 3.0}
    assert (tmp_path / logs.METRICS).read_text() == json.dumps(line) + "\n"  # nothing was closed
    assert read_metrics(tmp_path) == [line]
    assert events[1:] == [("d/loss", 64, 0.5), ("g/loss", 64, 1.25), ("n", 64, 3.0)]
    logger.close()
    logger.close()


def test_numbers_that_json_cannot_hold_are_strings(tmp_path, events):
    with Logger(tmp_path) as logger:
        logger.scalars(1, {"a": float("nan"), "b": jnp.inf, "c": -np.inf})
    (line,) = read_metrics(tmp_path)
    assert (line["a"], line["b"], line["c"]) == ("nan", "inf", "-inf")
    assert events == [("open", None), ("close",)]


@pytest.mark.parametrize("name", ["images", "time"])
def test_names_that_are_taken(tmp_path, name):
    with Logger(tmp_path) as logger, pytest.raises(ValueError, match=f"'{name}' of shape"):
        logger.scalars(1, {name: 1.0})


def test_an_array_is_not_a_number(tmp_path):
    with Logger(tmp_path) as logger, pytest.raises(ValueError, match=r"'a' of shape \(2,\)"):
        logger.scalars(1, {"a": jnp.ones(2)})


def test_a_resumed_run_logs_nothing_twice(tmp_path, events):
    with Logger(tmp_path) as logger:
        for images in (10, 20, 30, 40):
            logger.scalars(images, {"a": images})
    with open(tmp_path / logs.METRICS, "a") as file:
        file.write('{"images": 50, "ti')  # killed here
    assert [line["images"] for line in read_metrics(tmp_path)] == [10, 20, 30, 40]
    with Logger(tmp_path, images=20) as logger:
        assert [line["images"] for line in read_metrics(tmp_path)] == [10, 20]
        logger.scalars(30, {"a": 30})
    assert [line["images"] for line in read_metrics(tmp_path)] == [10, 20, 30]
    assert ("open", 21) in events


def test_a_line_cut_short_does_not_spoil_the_next(tmp_path):
    (tmp_path / logs.METRICS).write_text('{"images": 1, "a": 1}\n{"images": 2, "a"')
    with Logger(tmp_path, images=5) as logger:
        logger.scalars(6, {"a": 6})
    assert [line["images"] for line in read_metrics(tmp_path)] == [1, 6]


def test_a_run_from_the_start_leaves_nothing_of_an_earlier_one(tmp_path):
    with Logger(tmp_path) as logger:
        logger.scalars(0, {"a": 1})
        logger.scalars(10, {"a": 1})
    with Logger(tmp_path):
        assert read_metrics(tmp_path) == []


def test_tensorboard_reads_the_files(tmp_path):
    with Logger(tmp_path) as logger:
        logger.scalars(10, {"loss": 0.25})
        logger.grid("fakes", 10, np.zeros((2, 4, 4, 3), np.uint8), 2)
    (file,) = tmp_path.glob("events.out.tfevents*")
    data = file.read_bytes()
    assert b"loss" in data and b"fakes" in data and b"PNG" in data


# Pictures.


def test_a_grid_is_drawn_and_shown(tmp_path, events):
    images = np.full((4, 64, 64, 1), 7, np.uint8)
    with Logger(tmp_path) as logger:
        path = logger.grid("fakes", 1234, images, 2, column_titles=("a", "b"))
    assert path == tmp_path / logs.SAMPLES / "fakes-000001234.png"
    picture = np.asarray(Image.open(path))
    assert picture.shape[1] == 2 * 66 + 2 and picture.shape[2] == 3
    assert (picture[-60:-10, -60:-10] == 7).all()
    assert ("fakes", 1234, picture.shape[1]) in events


def test_a_picture_is_never_half_there(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    logs.write_png(path, np.zeros((4, 4, 3), np.uint8))
    before = path.read_bytes()

    def fail(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        logs.write_png(path, np.ones((4, 4, 3), np.uint8))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.png"]


def test_the_first_error_is_the_one_that_is_seen(tmp_path, monkeypatch):
    def fail(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logs.Board, "close", fail)
    with pytest.raises(KeyError, match="mine"), Logger(tmp_path):
        raise KeyError("mine")
    with pytest.raises(OSError, match="No space left"), Logger(tmp_path):
        pass


def test_other_processes_write_nothing(tmp_path, capsys):
    with Logger(tmp_path, enabled=False) as logger:
        logger.status("Compiling")
        logger.scalars(1, {"a": 1})
        assert logger.grid("fakes", 1, np.zeros((1, 4, 4, 3), np.uint8), 1) is None
        assert logger.picture("fakes", 1, np.zeros((4, 4, 3), np.uint8)) is None
        progress = logger.progress(100)
        progress.update(100, {"a": 1})
        assert progress.images == 100
    assert os.listdir(tmp_path) == []
    assert capsys.readouterr() == ("", "")


# Progress.


def test_without_a_terminal_progress_is_a_line_now_and_then(clock):
    stream = io.StringIO()
    progress = Progress(1000, 100, stream)
    for images in range(110, 610, 10):
        clock.now += 0.5  # 20 images/s
        progress.update(images, {"d": 0.51234, "g": -1.0})
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2  # in 25 seconds
    assert lines[0] == "300/1,000 images  30%  20.0 images/s  0:00:35 left  d 0.512  g -1"
    assert progress.rate == pytest.approx(20)
    progress.update(1000)
    assert stream.getvalue().splitlines()[-1].startswith("1,000/1,000 images  100%")
    assert "\r" not in stream.getvalue() and "\x1b" not in stream.getvalue()


def test_a_pause_can_be_left_out_of_the_rate(clock):
    stream = io.StringIO()
    progress = Progress(1000, 0, stream)
    assert progress.rate is None
    clock.now += 60  # a compilation
    progress.restart_clock()
    for images in range(10, 110, 10):
        clock.now += 1
        progress.update(images)
    assert progress.rate == pytest.approx(10)


def test_on_a_terminal_progress_is_a_bar(monkeypatch):
    monkeypatch.setattr(os, "get_terminal_size", lambda descriptor: os.terminal_size((120, 40)))
    stream = Terminal()
    progress = Progress(1000, 200, stream)
    progress.update(600, {"d": 0.5})
    progress.close()
    assert "60%" in stream.getvalue() and "images/s" in stream.getvalue()
    assert "d 0.5" in stream.getvalue() and "\r" in stream.getvalue()


def test_a_terminal_without_a_size_has_a_bar_too(monkeypatch):
    reader, writer = os.openpty()  # 0 columns and 0 rows until somebody sets them
    with open(writer, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)  # tqdm asks for the size of this one
        progress = Progress(1000, 200, stream)
        progress.update(600)
        progress.close()
    shown = b""
    while b"60%" not in shown:
        shown += os.read(reader, 10_000)  # an error at the end
    os.close(reader)


def test_a_status_has_a_line_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "get_terminal_size", lambda descriptor: os.terminal_size((80, 40)))
    stream = Terminal()
    with Logger(tmp_path, stream=stream) as logger:
        logger.progress(100).update(10)
        logger.status("Compiling d/main (about 20 s) ...")
    text = stream.getvalue().replace("\r", "\n")
    assert "Compiling d/main (about 20 s) ..." in [line.strip() for line in text.splitlines()]
