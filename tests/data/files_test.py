import json
import os
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from ganjax.data.files import Files, Folder, Zip
from ganjax.data.transforms import BrokenItem
from tests.data.pictures import encoded, values, write_folder, write_zip

CLASSES = {"b/1.png": 3, "a/2.JPG": encoded(2, form="JPEG"), "a/x/1.png": 1, "b/notes.txt": b"-"}


def open_folder(path, files):
    return Files(Folder(write_folder(path / "folder", files)), "folder")


def open_zip(path, files, **options):
    return Files(Zip(write_zip(path / "pictures.zip", files, **options)), "zip")


both = pytest.mark.parametrize("opened", [open_folder, open_zip])


@both
def test_sub_folders_are_the_classes(opened, tmp_path):
    source = opened(tmp_path, CLASSES)
    assert source.classes == ("a", "b")
    assert values(source) == [(2, 0), (1, 0), (3, 1)]
    assert [source.describe(i) for i in range(3)] == ["a/2.JPG", "a/x/1.png", "b/1.png"]


@both
def test_one_folder_around_everything_is_no_class(opened, tmp_path):
    source = opened(tmp_path, {f"data/{name}": data for name, data in CLASSES.items()})
    assert source.classes == ("a", "b") and values(source) == [(2, 0), (1, 0), (3, 1)]
    flat = opened(tmp_path / "flat" if opened is open_folder else tmp_path, {"p/1.png": 1})
    assert flat.classes == () and values(flat) == [(1, 0)]


@both
def test_without_sub_folders_there_are_no_classes(opened, tmp_path):
    source = opened(tmp_path, {"2.png": 2, "1.png": 1})
    assert source.classes == () and values(source) == [(1, 0), (2, 0)]


@both
@pytest.mark.parametrize("around", ["", "set/"])
def test_dataset_json_gives_labels(opened, around, tmp_path):
    labels = {"labels": [["00/2.png", 4], ["00/1.png", 0], ["00/gone.png", 1]]}
    files = {"00/1.png": 1, "00/2.png": 2, "dataset.json": json.dumps(labels).encode()}
    source = opened(tmp_path, {around + name: data for name, data in files.items()})
    assert source.classes == ("0", "1", "2", "3", "4")
    assert values(source) == [(1, 0), (2, 4)]


@both
def test_dataset_json_says_that_there_are_no_labels(opened, tmp_path):
    source = opened(tmp_path, {"a/1.png": 1, "b/2.png": 2, "dataset.json": b'{"labels": null}'})
    assert source.classes == () and values(source) == [(1, 0), (2, 0)]


@both
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"labels": [["a/1.png", 0]]}', r"no class for 1 of 2 items, such as 'a/2.png'"),
        ('{"labels": [["a/1.png", [0.5, 1]], ["a/2.png", 0]]}', r"'a/1.png' the class '\[0.5, 1\]"),
        ('{"labels": [["a/1.png", -1], ["a/2.png", 0]]}', "whole number from 0 on"),
        ('{"labels": 3}', "cannot be read"),
        ("[", "cannot be read"),
    ],
)
def test_labels_that_do_not_fit_are_an_error(opened, text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, {"a/1.png": 1, "a/2.png": 2, "dataset.json": text.encode()})


@both
def test_pictures_beside_the_classes_are_an_error(opened, tmp_path):
    with pytest.raises(ValueError, match="'stray.png' and 0 more items lie beside the 2"):
        opened(tmp_path, {"a/1.png": 1, "b/1.png": 2, "stray.png": 3})


@both
def test_hidden_files_are_no_pictures(opened, tmp_path):
    files = {"1.png": 1, "._1.png": 2, ".cache/3.png": 3, "__MACOSX/4.png": 4}
    assert values(opened(tmp_path, files)) == [(1, 0)]


@both
def test_no_pictures_are_an_error(opened, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no pictures \(1 other files\).*\.png"):
        opened(tmp_path, {"readme.txt": b"-"})


@both
def test_a_damaged_picture_is_a_broken_item(opened, tmp_path):
    source = opened(tmp_path, {"1.png": encoded(1, (90, 90))[:-60], "2.png": b"", "3.png": 3})
    for index, name in enumerate(("1.png", "2.png")):
        with pytest.raises(BrokenItem, match=name):
            source[index]
    assert source[2]["image"][0, 0, 0] == 3


@both
def test_fingerprint_tells_other_files_and_labels_apart(opened, tmp_path):
    def fingerprint(number, files):
        (tmp_path / str(number)).mkdir()
        return opened(tmp_path / str(number), files).fingerprint()

    prints = [
        fingerprint(0, {"a/1.png": 1, "b/2.png": 2}),
        fingerprint(1, {"a/1.png": 1, "b/3.png": 2}),
        fingerprint(2, {"a/1.png": 1, "b/2.png": 2, "dataset.json": b'{"labels": null}'}),
    ]
    assert len(set(prints)) == 3
    assert fingerprint(3, {"a/1.png": 1, "b/2.png": 2}) == prints[0]


@both
def test_a_pickled_source_reads_the_same(opened, tmp_path):
    source = opened(tmp_path, CLASSES)
    assert values(pickle.loads(pickle.dumps(source))) == values(source)


@pytest.mark.parametrize("tree", [Folder, Zip])
def test_a_missing_place_is_an_error(tree, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing is not there"):
        tree(tmp_path / "nothing")


def test_a_file_is_no_folder_and_a_folder_no_zip(tmp_path):
    with pytest.raises(FileNotFoundError, match="is a folder, not a zip"):
        Zip(tmp_path)
    with pytest.raises(FileNotFoundError, match="is a file, not a folder"):
        Folder(write_zip(tmp_path / "a.zip", {}))


def test_links_are_followed_but_not_round_and_round(tmp_path):
    outside = write_folder(tmp_path / "outside", {"1.png": 1})
    folder = write_folder(tmp_path / "folder", {"a/2.png": 2})
    (folder / "b").symlink_to(outside)
    (folder / "a" / "up").symlink_to(folder)
    assert values(Files(Folder(folder), "folder")) == [(2, 0), (1, 1)]


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    """Not fewer pictures than there are."""
    folder = write_folder(tmp_path / "folder", {"a/1.png": 1, "b/2.png": 2})
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="folder/b"):
        Files(Folder(folder), "folder")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_threads_read_a_zip_at_once(compression, tmp_path):
    files = {f"{i:03d}.png": encoded(i, (64, 64)) for i in range(200)}
    source = open_zip(tmp_path, files, compression=compression)
    with ThreadPoolExecutor(8) as pool:
        items = list(pool.map(source.__getitem__, list(range(200)) * 3))
    assert [int(item["image"][0, 0, 0]) for item in items] == list(range(200)) * 3


def test_a_flipped_bit_in_a_zip_is_a_broken_item(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"1.bmp": encoded(7, form="BMP"), "2.png": 2})
    data = bytearray(path.read_bytes())
    data[data.index(b"BM") + 60] ^= 1  # a pixel: without the checksum it would pass
    path.write_bytes(data)
    source = Files(Zip(path), "zip")
    with pytest.raises(BrokenItem, match="1.bmp: its checksum"):
        source[0]
    assert source[1]["image"][0, 0, 0] == 2


def test_half_a_zip_is_an_error(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"1.png": 1})
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="not a whole zip file.*Copy it again"):
        Zip(path)


def test_a_rare_compression_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="1.png is encrypted or not compressed by deflate"):
        open_zip(tmp_path, {"1.png": 1}, compression=zipfile.ZIP_BZIP2)
