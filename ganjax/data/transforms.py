"""From an encoded picture to the uint8 array that the stream hands out.

All pixels are uint8 ``[h, w, c]`` with c = 1 (gray) or 3 (RGB); the step scales them on the device.
"""

import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

Item = dict[str, Any]  # arrays, and of sources also what a transform makes arrays of


class BrokenItem(ValueError):
    """One item cannot be decoded, now and at every later try; the others may be fine."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """An item whose picture is still the bytes of a file.

    Attributes:
      caption: or several that say the same.
      states: of a text tower for each of them, float16 [k, l, w].
    """

    picture: bytes
    label: int
    name: str
    caption: str | tuple[str, ...] | None = None
    states: np.ndarray | None = None


def decode_item(encoded: Encoded) -> Item:
    """The item itself.

    Raises:
      BrokenItem: see `decode`.
    """
    image = decode(encoded.picture, encoded.name)
    item = {"image": image, "label": np.asarray(encoded.label, np.int32)}
    more = {"caption": encoded.caption, "text_states": encoded.states}
    return item | {name: value for name, value in more.items() if value is not None}


def decode(data: bytes, name: str = "image") -> UInt8[np.ndarray, "h w c"]:
    """Decodes any picture that Pillow reads, upright, to 8-bit gray (c=1) or RGB (c=3).

    Transparent pixels are laid over white, 16-bit pixels keep their upper bits, EXIF rotation is
    applied, of several frames the first is taken. Colour profiles are not applied.

    Args:
      data: the bytes of a file.
      name: what an error calls it.

    Raises:
      BrokenItem: not a picture, damaged, or of a pixel type without a known range (float).
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            image = ImageOps.exif_transpose(opened)
            return _to_uint8(image)
    except UnidentifiedImageError:
        raise BrokenItem(f"{name}: no picture of a kind that Pillow reads") from None
    # Pillow's decoders raise nearly anything on damaged input, struct.error and
    # DecompressionBombError among it.
    except Exception as error:
        raise BrokenItem(f"{name}: {error or type(error).__name__}") from error


def _to_uint8(image: Image.Image) -> np.ndarray:
    if image.mode == "F":
        raise ValueError("float pixels have no agreed range; convert it to 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits, which Pillow may hold in 32
        wide = np.clip(np.asarray(image.convert("I")), 0, 65535)
        return (wide >> 8).astype(np.uint8)[..., None]
    if image.has_transparency_data or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        gray = image.mode in ("L", "LA", "La")
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("L" if gray else "RGB")
    elif image.mode in ("1", "L"):
        image = image.convert("L")
    else:
        image = image.convert("RGB")
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def fit(
    image: UInt8[np.ndarray, "h w c"], resolution: tuple[int, int], channels: int
) -> UInt8[np.ndarray, "th tw tc"]:
    """Crops the centre to the target's aspect ratio, resizes by Lanczos, sets the channels.

    Args:
      image: gray or RGB.
      resolution: target (height, width) in pixels.
      channels: 1 (ITU-R 601 luma of a colour image) or 3 (a gray image three times).
    """
    height, width = resolution
    rows, columns, depth = image.shape
    if (depth, channels) == (3, 1):
        image = np.asarray(Image.fromarray(image).convert("L"))[..., None]
    crop_rows = max(1, min(rows, round(columns * height / width)))
    crop_columns = max(1, min(columns, round(rows * width / height)))
    if (crop_rows, crop_columns) != (rows, columns):
        top, left = (rows - crop_rows) // 2, (columns - crop_columns) // 2
        image = image[top : top + crop_rows, left : left + crop_columns]
    if image.shape[:2] != (height, width):
        squeezed = image[..., 0] if image.shape[2] == 1 else image
        resized = Image.fromarray(squeezed).resize((width, height), Image.Resampling.LANCZOS)
        image = np.asarray(resized).reshape(height, width, -1)
    if image.shape[2] != channels:
        image = np.repeat(image, channels, axis=2)
    return image


def one_of(caption: str | Sequence[str], rng: np.random.Generator) -> str:
    """A caption, or one of several that say the same."""
    return _one_of(caption, rng)[1]


def _one_of(caption: str | Sequence[str], rng: np.random.Generator) -> tuple[int, str]:
    if isinstance(caption, str):
        return 0, caption
    number = int(rng.integers(len(caption)))
    return number, caption[number]


class Transform:
    """What happens to an item between its source and the batch.

    Args:
      resolution: (height, width) in pixels.
      channels: 1 or 3.
      flip: mirror half of the images left to right.
      read: from texts to tokens [n, l]: of captions; without it they are left out.
      embedded: whether the states of a text tower, which records hold, are wanted, too.
    """

    def __init__(
        self,
        resolution: tuple[int, int],
        channels: int = 3,
        flip: bool = False,
        read: Callable[[Sequence[str]], Int[np.ndarray, "n l"]] | None = None,
        embedded: bool = False,
    ):
        self.resolution = resolution
        self.channels = channels
        self.flip = flip
        self.read = read
        self.embedded = embedded

    def __call__(self, item: Mapping[str, Any], rng: np.random.Generator) -> Item:
        """Fits ``item["image"]``, makes ``"tokens"`` of one ``"caption"``; other fields pass.

        Args:
          item: a source's item.
          rng: a pure function of the run's seed and the item's position in the stream.

        Raises:
          BrokenItem: a caption with words that the tokens have no number for.
        """
        image = fit(item["image"], self.resolution, self.channels)
        if self.flip and rng.random() < 0.5:
            image = image[:, ::-1]
        made = {**item, "image": image}
        caption, states = made.pop("caption", None), made.pop("text_states", None)
        if self.read and caption is not None:
            number, text = _one_of(caption, rng)
            try:
                made["tokens"] = self.read([text])[0]
            except ValueError as error:
                raise BrokenItem(f"its caption cannot be read: {error}") from error
            if self.embedded:
                assert states is not None, "records were asked whether they hold them"
                made["text_states"] = states[number]
        return made
