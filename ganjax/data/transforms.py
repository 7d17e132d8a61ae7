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
    """An item whose picture is still the bytes of a file."""

    picture: bytes
    label: int
    name: str
    caption: str | tuple[str, ...] | None = None  # several say the same


def decode_item(encoded: Encoded) -> Item:
    """The item itself.

    Raises:
      BrokenItem: see `decode`.
    """
    image = decode(encoded.picture, encoded.name)
    item = {"image": image, "label": np.asarray(encoded.label, np.int32)}
    return item if encoded.caption is None else item | {"caption": encoded.caption}


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
    if isinstance(caption, str):
        return caption
    return caption[int(rng.integers(len(caption)))]


class Transform:
    """What happens to an item between its source and the batch.

    Args:
      resolution: (height, width) in pixels.
      channels: 1 or 3.
      flip: mirror half of the images left to right.
      read: from texts to tokens [n, l]: of captions; without it they are left out.
    """

    def __init__(
        self,
        resolution: tuple[int, int],
        channels: int = 3,
        flip: bool = False,
        read: Callable[[Sequence[str]], Int[np.ndarray, "n l"]] | None = None,
    ):
        self.resolution = resolution
        self.channels = channels
        self.flip = flip
        self.read = read

    def __call__(self, item: Mapping[str, Any], rng: np.random.Generator) -> Item:
        """Fits ``item["image"]``, makes ``"tokens"`` of a ``"caption"``; other fields pass.

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
        caption = made.pop("caption", None)
        if self.read and caption is not None:
            try:
                made["tokens"] = self.read([one_of(caption, rng)])[0]
            except ValueError as error:
                raise BrokenItem(f"its caption cannot be read: {error}") from error
        return made
