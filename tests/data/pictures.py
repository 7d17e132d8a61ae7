"""Small picture files for the tests of sources."""

import io
import zipfile

import numpy as np
from PIL import Image


def encoded(value, size=(6, 5), form="PNG"):
    """A picture of one gray or RGB value, (width, height) in pixels, as the bytes of a file."""
    file = io.BytesIO()
    Image.new("L" if isinstance(value, int) else "RGB", size, value).save(file, form)
    return file.getvalue()


def write_folder(folder, files):
    """Files (name -> bytes, or the value of a picture) below a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else encoded(data))
    return folder


def write_zip(path, files, **options):
    """The same in a zip."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in files.items():
            archive.writestr(name, data if isinstance(data, bytes) else encoded(data))
    return path


def values(source):
    """(value of the picture, label) of each item."""
    items = [source[index] for index in range(len(source))]
    assert all(item["image"].dtype == np.uint8 for item in items)
    return [(int(item["image"][0, 0, 0]), int(item["label"])) for item in items]
