"""Own pictures, of any kind and some of them broken, through a whole run."""

import importlib
import io
import json
import warnings

import numpy as np
import pytest
from absl import flags, logging
from absl.testing import flagsaver
from PIL import Image

from ganjax import main
from ganjax.config import ConfigError
from ganjax.data.prepare import prepare
from ganjax.data.recipes import Recipe
from ganjax.data.sources import open_source
from ganjax.family import build
from ganjax.logs import read_metrics
from ganjax.train import _note_data, train
from tests.data.pictures import write_folder, write_zip

configs = importlib.import_module("configs.biggan")
PER_STEP = 16


def saved(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def picture(mode, size, form="PNG"):
    noise = np.random.default_rng(sum(size)).integers(0, 256, (size[1], size[0]), np.uint8)
    image = Image.fromarray(noise)
    if mode == "I;16":
        return saved(Image.fromarray(noise.astype(np.uint16) * 257), form)
    return saved(image.convert("RGB").convert(mode), form)


@pytest.fixture(scope="module")
def pictures():
    """Ten classes, as the tiny config has; two of 14 files are broken."""
    kinds = [
        ("1", (32, 32), "PNG"),
        ("L", (7, 90), "PNG"),
        ("LA", (40, 33), "PNG"),
        ("P", (33, 40), "GIF"),
        ("RGB", (100, 20), "JPEG"),
        ("RGBA", (32, 31), "WEBP"),
        ("CMYK", (50, 50), "JPEG"),
        ("I;16", (64, 48), "TIFF"),
        ("I;16", (1, 1), "PNG"),
        ("RGBA", (300, 2), "PNG"),
        ("YCbCr", (64, 64), "JPEG"),
        ("LAB", (30, 30), "TIFF"),
    ]
    files = {f"{i % 10}/{i:02d}.{k[2].lower()}": picture(*k) for i, k in enumerate(kinds)}
    files["3/half.png"] = files["1/01.png"][:60]
    files["5/empty.jpg"] = b""
    return files


def tiny(source, path, **data):
    config = configs.tiny()
    config.data.update({"source": source, "path": str(path), "max_broken": 2, **data})
    config.train.images = 3 * PER_STEP
    config.mesh.data = 1  # of the eight virtual devices
    config.mesh.expert = 8
    config.log.update(scalars_every_images=PER_STEP, grid_rows=2)
    return config.lock()


@pytest.fixture
def said(caplog, monkeypatch):
    """Warnings, however absl's logger is set up by now."""
    monkeypatch.setattr(logging.get_absl_logger(), "propagate", False)
    logging.get_absl_logger().addHandler(caplog.handler)
    yield caplog
    logging.get_absl_logger().removeHandler(caplog.handler)


@pytest.mark.parametrize("kind", ["folder", "zip", "records"])
def test_trains_on_pictures_of_any_kind_and_counts_the_broken_ones(kind, pictures, said, tmp_path):
    path = write_folder(tmp_path / "folder", pictures)
    if kind == "zip":
        path = write_zip(tmp_path / "a.zip", pictures)
    if kind == "records":
        path = tmp_path / "records"
        prepare(open_source(tiny("folder", tmp_path / "folder").data), path, Recipe(), show=False)
    # 48 items are three epochs, so that every file is met.
    config = tiny(kind, path, classes=0)
    with config.unlocked():
        config.evaluate.every_images = PER_STEP  # no metric fits: trained all the same
    train(config, tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["data"]["classes"] == 10, "as many as the data has"
    assert json.loads((tmp_path / "run" / "data.json").read_text())["items"] in (12, 14)
    lines = read_metrics(tmp_path / "run")
    assert [line["images"] for line in lines] == [16, 32, 48]
    assert all(np.isfinite(line["d/main/loss"]) for line in lines)
    broken = [record.getMessage() for record in said.records if "Broken" in record.getMessage()]
    if kind == "records":
        assert not broken and lines[-1]["images_skipped"] == 0
    else:
        assert sorted(line.split("'")[2].split(" ")[1] for line in broken) == [
            "3/half.png:",
            "5/empty.jpg:",
        ]
        assert lines[-1]["images_skipped"] == 2


def test_more_broken_pictures_than_allowed_stop_the_run(pictures, tmp_path):
    path = write_folder(tmp_path / "folder", pictures)
    with pytest.raises(ValueError, match=r"2 broken items in 'folder .*config.data.max_broken"):
        train(tiny("folder", path, max_broken=1), tmp_path / "run")


def test_data_that_does_not_fit_is_an_error_before_anything_is_made(pictures, tmp_path):
    path = write_folder(tmp_path / "folder", pictures)
    for config, message in (
        (tiny("folder", path, classes=7), r"classes=7, but .* has 10 classes"),
        (tiny("folder", tmp_path / "nothing"), "nothing is not there.*Set config.data.path"),
        (
            tiny("records", tmp_path / "nothing"),
            "nothing is not there.*; else prepare it from a folder",
        ),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            train(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_data_that_has_changed_is_told(pictures, tmp_path):
    folder, file = write_folder(tmp_path / "folder", pictures), tmp_path / "data.json"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in (folder, folder, write_folder(tmp_path / "moved", pictures)):
            _note_data(file, open_source(tiny("folder", path).data))
    write_folder(tmp_path / "moved", {"0/new.png": 3})
    with pytest.warns(UserWarning, match="14 items of 'folder .*' then, 15 of 'folder .*' now"):
        _note_data(file, open_source(tiny("folder", tmp_path / "moved").data))
    assert json.loads(file.read_text())["items"] == 15


def test_clips_are_for_families_of_videos(tmp_path):
    config = tiny("shapes", "", classes=10, channels=3, clip={"times": "dense"})
    with pytest.raises(ConfigError, match="trains on image and label; .* clips. Set .*clip=None"):
        train(config, tmp_path / "run")


def test_what_looks_at_no_data_needs_the_number_of_classes():
    with pytest.raises(ValueError, match="classes=0 takes what the data has.*Set the number"):
        build(tiny("digits", "", classes=0), "cpu")


def test_metrics_that_do_not_fit_the_data_are_an_error(pictures, tmp_path):
    config = tiny("folder", write_folder(tmp_path / "folder", pictures))
    with config.unlocked():
        config.evaluate.update(every_images=PER_STEP, metrics=("class_accuracy",))
    with pytest.raises(ValueError, match="folder"):
        train(config, tmp_path / "run")


@pytest.mark.parametrize(
    "preset, overrides, expected",
    [
        ("digits", {"data.source": "folder", "data.path": "p"}, ("folder", "p", 0)),
        ("imagenet128", {"data.source": "tfds", "data.name": "x"}, ("tfds", "", 0)),
        ("cifar10", {"data.name": "cifar100"}, ("tfds", "", 0)),
        ("digits", {"data.source": "zip", "data.classes": "3"}, ("zip", "", 3)),
        ("imagenet128", {"data.path": "/big"}, ("records", "/big", 1000)),
    ],
)
def test_other_data_bring_their_own_classes(preset, overrides, expected, monkeypatch):
    trained = []
    monkeypatch.setattr("ganjax.train.train", lambda config, workdir: trained.append(config.data))
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(config=f"configs/biggan.py:{preset}"):
        main._train(overrides)
    (data,) = trained
    assert (data.source, data.path, data.classes) == expected
