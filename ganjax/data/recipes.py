"""What becomes of a source's items on their way into record shards."""

import dataclasses
import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ganjax.data.records import pack
from ganjax.data.shards import Made
from ganjax.data.sources import Source, describe
from ganjax.data.transforms import BrokenItem, Encoded, decode, fit
from ganjax.data.videos import Video

FORMS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "jpeg": {"format": "JPEG", "quality": 95, "subsampling": "4:4:4"},
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What becomes of a picture.

    Attributes:
      resolution: (height, width) in pixels; ``None`` keeps files as they are.
      form: of `FORMS`, for those that are not kept.
      quality: of JPEG, from 1 to 100; ``None`` for 95.
      captions: whether they are kept; a picture without is left out as broken.
    """

    resolution: tuple[int, int] | None = None
    form: str = "png"
    quality: int | None = None
    captions: bool = False

    unit = "pictures"
    shard_items = 4096  # a run keeps every shard open, and many systems allow 1,024 files
    chunk = 16  # items that a worker makes at a time

    def origin(self) -> dict[str, Any]:
        """Itself as JSON can hold it; records of another origin are other records."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name in ("resolution", "form") or getattr(self, field.name) != field.default
        }

    def make(self, source: Source, index: int) -> Made:
        """The record of an item."""
        encoded: Encoded | None = None
        try:
            if hasattr(source, "encoded"):
                encoded = source.encoded(index)
                image, label = decode(encoded.picture, encoded.name), encoded.label
                name, caption = encoded.name, encoded.caption
            else:
                item = source[index]
                image, label, name = item["image"], int(item["label"]), describe(source, index)
                caption = item.get("caption")
            if self.captions and not caption:
                raise BrokenItem(f"{name}: it has no caption")
        except BrokenItem as error:
            return Made(describe(source, index), fault=str(error))
        height, width, channels = image.shape
        if encoded is None or self.resolution:
            encoded = Encoded(self._encode(image), label, name)
        encoded = dataclasses.replace(encoded, caption=caption if self.captions else None)
        return Made(name, (pack(encoded),), size=(height, width), channels=channels)

    def finish(self, made: Iterable[Made]) -> Iterator[Made]:
        """What happens to items after they were made, in one process and in order."""
        return iter(made)

    def _encode(self, image: UInt8[np.ndarray, "h w c"]) -> bytes:
        height, width, channels = image.shape
        fitted = fit(image, self.resolution or (height, width), channels)
        options = FORMS[self.form]
        if self.quality is not None and self.form == "jpeg":
            options = options | {"quality": self.quality}
        file = io.BytesIO()
        Image.fromarray(fitted[..., 0] if channels == 1 else fitted).save(file, **options)
        return file.getvalue()


@dataclasses.dataclass(frozen=True)
class VideoRecipe(Recipe):
    """What becomes of a video: a record a frame.

    Attributes:
      min_frames: shorter videos are left out like broken ones.
    """

    form: str = "jpeg"
    min_frames: int = 1

    unit = "videos"
    shard_items = 256
    chunk = 1

    def origin(self) -> dict[str, Any]:
        return {"videos": True} | super().origin()

    def make(self, source: Source, index: int) -> Made:
        """The records of a video's frames."""
        try:
            item = source[index]
            video: Video = item["video"]
            if len(video) < self.min_frames:
                raise BrokenItem(
                    f"{video.name}: {len(video)} frames, fewer than --min_frames={self.min_frames}"
                )
            sizes: set[tuple[int, ...]] = set()
            records = tuple(self._records(video, sizes))
        except BrokenItem as error:
            return Made(describe(source, index), fault=str(error))
        (height, width, channels), *others = sorted(sizes)
        if others:
            fault = f"its frames are of several sizes: {sorted(sizes)} (height, width, channels)"
            return Made(describe(source, index), fault=fault)
        return Made(
            video.name,
            records,
            size=(height, width),
            channels=channels,
            video={"label": int(item["label"]), "rate": float(video.rate)},
        )

    def _records(self, video: Video, sizes: set[tuple[int, ...]]) -> Iterator[bytes]:
        # Frames that lie in files of their own may be kept as they are.
        kept = None if self.resolution else getattr(video, "encoded", None)
        for number, frame in enumerate(video.walk()):
            sizes.add(frame.shape)
            yield kept(number) if kept else self._encode(frame)
