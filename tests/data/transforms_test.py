import io
import struct

import numpy as np
import pytest
from PIL import Image

from ganjax.data.transforms import BrokenItem, Transform, decode, fit


def saved(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def pixel(image, form="PNG", **options):
    """What one colour of a picture becomes: its channels."""
    decoded = decode(saved(image, form, **options))
    assert decoded.dtype == np.uint8 and decoded.shape[:2] == (image.height, image.width)
    assert (decoded == decoded[0, 0]).all()
    return tuple(decoded[0, 0].tolist())


def palette(transparent):
    image = Image.new("P", (3, 2), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    return image, {"transparency": 1} if transparent else {}


@pytest.mark.parametrize(
    "mode, value, form, expected",
    [
        ("1", 1, "PNG", (255,)),
        ("L", 77, "PNG", (77,)),
        ("LA", (100, 255), "PNG", (100,)),
        ("LA", (100, 0), "PNG", (255,)),  # transparent is white
        ("RGB", (1, 2, 3), "PNG", (1, 2, 3)),
        ("RGBA", (10, 20, 30, 255), "PNG", (10, 20, 30)),
        ("RGBA", (0, 0, 0, 51), "PNG", (204, 204, 204)),
        ("CMYK", (0, 255, 255, 0), "TIFF", (255, 0, 0)),
        ("CMYK", (0, 0, 0, 255), "JPEG", (0, 0, 0)),
        ("I;16", 0xABCD, "PNG", (0xAB,)),
        ("I;16", 0xABCD, "TIFF", (0xAB,)),
        ("I", 70_000, "TIFF", (255,)),
    ],
)
def test_any_kind_of_pixel(mode, value, form, expected):
    assert pixel(Image.new(mode, (3, 2), value), form) == expected


@pytest.mark.parametrize("transparent, expected", [(False, (200, 100, 50)), (True, (255,) * 3)])
def test_palette(transparent, expected):
    image, options = palette(transparent)
    assert pixel(image, "PNG", **options) == expected
    assert pixel(image, "GIF", **options) == expected


def test_16_bit_big_endian():
    pgm = b"P5 2 1 65535\n" + struct.pack(">2H", 0x0100, 0xFFFF)
    assert decode(pgm)[..., 0].tolist() == [[1, 255]]


def test_a_camera_held_sideways():
    image = Image.fromarray(np.array([[0, 50, 100], [150, 200, 250]], np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    decoded = decode(saved(image, "PNG", exif=exif))
    assert decoded[..., 0].tolist() == [[150, 0], [200, 50], [250, 100]]


def test_of_several_frames_the_first():
    frames = [Image.new("RGB", (2, 2), color) for color in ((250, 0, 0), (0, 0, 250))]
    decoded = decode(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert decoded[0, 0].tolist() == [250, 0, 0]


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "no picture of a kind"),
        (b"GIF89a", "."),
        (saved(Image.effect_noise((64, 64), 50))[:900], "truncated"),
        (saved(Image.effect_noise((64, 64), 50), "JPEG")[:900], "truncated"),
        (saved(Image.new("F", (2, 2), 0.5), "TIFF"), "float pixels"),
    ],
)
def test_what_is_no_picture_is_named(data, reason):
    with pytest.raises(BrokenItem, match=f"a/b.png: .*{reason}"):
        decode(data, "a/b.png")


def test_fit_takes_the_middle():
    image = np.zeros((2, 6, 1), np.uint8)
    image[:, 2:4] = 200
    assert fit(image, (2, 2), 1).tolist() == [[[200]] * 2] * 2
    assert fit(image.transpose(1, 0, 2), (4, 4), 1).min() == 200


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (33, 47), (300, 7)])
@pytest.mark.parametrize("target", [(32, 32), (16, 48), (48, 16), (1, 1)])
def test_fit_any_size(size, target):
    image = np.full((*size, 3), 9, np.uint8)
    assert (fit(image, target, 3) == np.full((*target, 3), 9)).all()
    assert fit(image, target, 1).shape == (*target, 1)


def test_fit_keeps_the_aspect_of_what_it_shows():
    """A disc stays round in a target that is not square."""
    y, x = np.mgrid[:90, :120] - np.array([44.5, 59.5])[:, None, None]
    disc = np.where(np.hypot(x, y) < 20, 255, 0).astype(np.uint8)[..., None]
    shown = fit(disc, (32, 64), 1)[..., 0] > 127
    assert shown.any(axis=0).sum() == pytest.approx(shown.any(axis=1).sum(), abs=1)


def test_fit_does_not_alias():
    """The finest stripes become an even gray; nearest or plain bilinear would show some of them."""
    stripes = np.tile(np.array([0, 255], np.uint8), (256, 128))[..., None]
    small = fit(stripes, (32, 32), 1)[2:-2, 2:-2]
    assert np.abs(small.astype(int) - 127).max() <= 2


def test_gray_and_colour():
    rgb = np.full((4, 4, 3), (255, 0, 0), np.uint8)
    assert fit(rgb, (4, 4), 1)[0, 0].tolist() == [76]  # ITU-R 601: 0.299
    assert fit(np.full((4, 4, 1), 7, np.uint8), (4, 4), 3)[0, 0].tolist() == [7, 7, 7]


def test_transform_mirrors_half_of_the_images():
    image = np.arange(4, dtype=np.uint8).reshape(1, 4, 1)
    item = {"image": image, "label": np.int32(3)}
    draws = [Transform((1, 4), 1, flip=True)(item, np.random.default_rng(i)) for i in range(400)]
    assert all(draw["label"] == 3 for draw in draws)
    mirrored = sum(draw["image"][0, 0, 0] == 3 for draw in draws)
    assert 150 < mirrored < 250
    kept = Transform((1, 4), 1)(item, np.random.default_rng(0))
    assert (kept["image"] == image).all()
