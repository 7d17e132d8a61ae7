import os
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from ganjax.data.demo import Shapes
from ganjax.data.sources import (
    Source,
    fit_classes,
    make_transform,
    open_source,
    parse_resolution,
    read_options,
)
from ganjax.data.transforms import BrokenItem
from ganjax.pretrained import catalog
from tests.data.pictures import values, write_folder, write_zip


def data(**fields):
    return SimpleNamespace(**fields)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_opens_pictures(kind, tmp_path):
    files = {"a/1.png": 1, "b/2.png": 2}
    write = {"folder": write_folder, "zip": write_zip}[kind]
    source = open_source(data(source=kind, path=str(write(tmp_path / kind, files))))
    assert isinstance(source, Source) and source.name == f"{kind} {tmp_path / kind}"
    assert values(source) == [(1, 0), (2, 1)]


@pytest.mark.parametrize("kind", ["folder", "zip", "records"])
def test_no_path_is_an_error(kind):
    with pytest.raises(ValueError, match=f"source='{kind}' needs .*config.data.path to a"):
        open_source(data(source=kind))


def test_no_name_is_an_error():
    with pytest.raises(ValueError, match="needs config.data.name"):
        open_source(data(source="tfds"))


def test_missing_records_say_how_to_prepare_them(tmp_path):
    path = tmp_path / "pets"
    wanted = rf"pets is not there.*--source=folder --path=PICTURES --out={path} --resolution=64x128"
    with pytest.raises(FileNotFoundError, match="(?s)" + wanted):
        open_source(data(source="records", path=str(path), resolution=(64, 128)))


def test_missing_records_of_captions_say_how_to_prepare_them(tmp_path):
    missing = dict(source="records", path=str(tmp_path / "laion"), text="clip-shapes")
    wanted = "--captions --source=webdataset --path=TARS --out=.*laion --resolution=32"
    with pytest.raises(FileNotFoundError, match=f"{wanted}\n"):
        open_source(data(**missing))
    with pytest.raises(FileNotFoundError, match=f"{wanted} --text=clip-shapes"):
        open_source(data(**missing, embedded=True))


def test_an_unknown_source_is_an_error():
    with pytest.raises(ValueError, match="'foldr' is no source. Did you mean 'folder'"):
        open_source(data(source="foldr"))


@pytest.mark.parametrize(
    "field, value",
    [("channels", 2), ("max_broken", -1), ("prefetch", 0), ("threads", -1), ("threads", "a")],
)
def test_an_option_that_cannot_be_is_an_error(field, value):
    with pytest.raises(ValueError, match=f"config.data.{field}={value}: expected"):
        read_options(data(source="digits", **{field: value}))


def test_threads_are_as_many_as_help():
    """More than one would only wait for Python's lock where nothing is decoded."""
    assert read_options(data(source="digits", threads=None)).threads == 1
    assert read_options(data(source="folder")).threads == min(16, os.cpu_count())
    assert read_options(data(source="digits", threads=3)).threads == 3


@pytest.mark.parametrize(
    "text, size", [(128, (128, 128)), ("64", (64, 64)), ("64x128", (64, 128)), ((8, 9), (8, 9))]
)
def test_resolution_is_read(text, size):
    assert parse_resolution(text) == size


@pytest.mark.parametrize("text", ["", "a", "1x2x3", 0, (4, -1), None])
def test_a_resolution_that_cannot_be_is_an_error(text):
    with pytest.raises(ValueError, match="expected pixels"):
        parse_resolution(text)


def with_classes(*names):
    source = Shapes()
    source.name, source.classes = "pets", names
    return source


def test_classes_are_what_the_data_has():
    assert fit_classes(0, with_classes("cat", "dog")) == 2
    assert fit_classes(2, with_classes("cat", "dog")) == 2
    assert fit_classes(0, with_classes()) == fit_classes(1, with_classes()) == 1


def test_other_classes_than_the_data_has_are_an_error():
    with pytest.raises(ValueError, match=r"classes=10, but 'pets' has 2 classes \(cat, dog, .*=2,"):
        fit_classes(10, with_classes("cat", "dog"))
    with pytest.raises(ValueError, match=r"'pets' has no classes. Set config.data.classes=1 to"):
        fit_classes(10, with_classes())


@pytest.mark.parametrize(
    "fields, said",
    [
        (dict(source="digits"), "source='digits' have none"),
        (dict(source="folder", clip=dict(times="dense")), "clips of videos have none"),
        (dict(source="captioned_shapes", flip=True), "flip=True mirrors"),
    ],
)
def test_captions_that_cannot_be_are_an_error(fields, said):
    with pytest.raises(ValueError, match=said):
        read_options(data(**fields, text="clip-shapes"))


def test_an_unknown_vocabulary_is_an_error():
    options = read_options(data(source="captioned_shapes", text="clip-shape"))
    with pytest.raises(ValueError, match="config.data.text='clip-shape': there is no network"):
        make_transform(options)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_captioned_pictures_are_trained_on(kind, tmp_path):
    files = {"1.png": 1, "2.png": 2, "3.png": 3}
    path = write_folder(tmp_path / "pictures", files)
    for name, text in {"1": "a red circle", "2": "a blue star", "3": "a green dragon"}.items():
        (path / f"{name}.txt").write_text(text)
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
            for file in sorted(path.iterdir()):
                archive.write(file, file.name)
        path = tmp_path / "pictures.zip"
    fields = dict(source=kind, path=str(path), resolution=8, text="clip-shapes")
    source, transform = open_source(data(**fields)), make_transform(read_options(data(**fields)))
    rng = np.random.default_rng(0)
    made = [transform(source[i], rng) for i in range(2)]
    expected = catalog.find_tokenizer("clip-shapes")(["a red circle", "a blue star"])
    np.testing.assert_array_equal([item["tokens"] for item in made], expected)
    with pytest.raises(BrokenItem, match="caption cannot be read: 'a green dragon'.*'dragon'"):
        transform(source[2], rng)
