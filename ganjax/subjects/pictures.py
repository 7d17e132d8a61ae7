"""Pictures of a source, of a folder or of a zip."""

import itertools
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Int, UInt8

from ganjax.data.files import Files, Folder, Tree, Zip
from ganjax.data.sources import Options, Source, describe
from ganjax.data.transforms import BrokenItem, Item, Transform, one_of

CHUNK = 64  # pictures read together


class Pictures:
    """The pictures of a source, shuffled by a seed, so that the first n are a fair choice.

    Args:
      source: of pictures.
      transform: what happens to each; without it all must be of one size, and come in colours.
      seed: of the order.
      threads: that read and decode.
      max_broken: broken pictures that are replaced by the next ones before it is an error.
    """

    def __init__(
        self,
        source: Source,
        transform: Transform | None = None,
        seed: int = 0,
        threads: int = 8,
        max_broken: int = 0,
    ):
        self.name = source.name
        looks = (transform.resolution, transform.channels) if transform else "as they are"
        content = getattr(source, "content", source.fingerprint)()
        self.fingerprint = f"{content} {looks} seed {seed}"
        self.classes = source.classes
        self._source, self._transform = source, transform
        self._order = np.random.default_rng(seed).permutation(len(source))
        self._threads, self._max_broken = max(threads, 1), max_broken
        self._broken: set[int] = set()

    def __len__(self) -> int:
        return len(self._order)

    def batches(self, places: range) -> Iterator[UInt8[np.ndarray, "m h w c"]]:
        with ThreadPoolExecutor(self._threads) as pool:
            starts = range(places.start, places.stop, CHUNK)
            parts = [range(start, min(start + CHUNK, places.stop)) for start in starts]
            # The next chunk is read while this one is looked at.
            waiting = [[pool.submit(self._item, place) for place in p] for p in parts[:1]]
            for following in itertools.chain(parts[1:], [range(0)]):
                waiting.append([pool.submit(self._item, place) for place in following])
                yield stack(self.name, [f.result()["image"] for f in waiting.pop(0)])

    def asked(self, count: int) -> Int[np.ndarray, "n"] | None:
        return self._labels(np.arange(count))

    def drawn_labels(self, count: int, seed: int) -> Int[np.ndarray, "n"] | None:
        """The classes of random pictures, drawn with replacement; None where there are none."""
        rng = np.random.default_rng([seed, 1])
        return self._labels(rng.integers(len(self), size=count))

    def captions(self, count: int) -> tuple[str, ...]:
        """What is said of the first pictures; nothing where they have no captions."""
        with ThreadPoolExecutor(self._threads) as pool:
            found = list(pool.map(self._caption, range(min(count, len(self)))))
        return tuple(caption for caption in found if caption is not None)

    def _caption(self, place: int) -> str | None:
        """One of an item's captions, the same one at every call."""
        caption = self._found(place).get("caption")
        return None if caption is None else one_of(caption, np.random.default_rng([3, place]))

    def _labels(self, places: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"] | None:
        if not self.classes:
            return None
        with ThreadPoolExecutor(self._threads) as pool:
            items = pool.map(self._item, places.tolist())
            return np.array([item["label"] for item in items], np.int32)

    def describe(self, place: int) -> str:
        return f"{describe(self._source, int(self._order[place]))} of {self.name}"

    def _item(self, place: int) -> Item:
        item = self._found(place)
        if self._transform:
            return self._transform(item, _NO_DRAWS)
        return item | {"image": in_colours(item["image"])}

    def _found(self, place: int) -> Item:
        """What the source has there, or the next good one."""
        for offset in range(len(self._order)):
            index = int(self._order[(place + offset) % len(self._order)])
            try:
                return self._source[index]
            except BrokenItem as error:
                self._skip(index, error)
        raise ValueError(f"no picture of {self.name} can be read")

    def _skip(self, index: int, error: Exception) -> None:
        if index not in self._broken:
            self._broken.add(index)
            if len(self._broken) > self._max_broken:
                raise ValueError(
                    f"{describe(self._source, index)} of {self.name} is broken ({error}); mend it "
                    "or remove it."
                ) from error
            warnings.warn(f"{describe(self._source, index)} is left out: {error}", stacklevel=2)


def in_colours(image: UInt8[np.ndarray, "*n h w c"]) -> UInt8[np.ndarray, "*n h w 3"]:
    """Three channels: folders of photographs hold grey ones, too."""
    return image.repeat(3, axis=-1) if image.shape[-1] == 1 else image


def stack(name: str, images: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures or clips of one size as one array.

    Raises:
      ValueError: they are of several sizes.
    """
    for image in images:
        if image.shape != images[0].shape:
            raise ValueError(
                f"{name} holds pictures of {images[0].shape} and of {image.shape} ([frames,] "
                "height, width, channels); bring all to one size, as "
                "`python -m ganjax.data.prepare` does."
            )
    return np.stack(images)


_NO_DRAWS = np.random.default_rng(0)  # for transforms that draw nothing: no flips


def of_run(source: Source, options: Options, seed: int = 0) -> Pictures:
    """The real pictures as a run sees them, none of them mirrored."""
    transform = Transform(options.resolution, options.channels)
    return Pictures(source, transform, seed, options.threads, options.max_broken)


def of_path(path: str | pathlib.Path, seed: int = 0) -> Pictures:
    """The pictures of a folder or a zip, as they are.

    Raises:
      FileNotFoundError: nothing there, or no pictures in it.
    """
    tree = tree_of(path)
    return Pictures(Files(tree, "zip" if isinstance(tree, Zip) else "folder"), seed=seed)


def tree_of(path: str | pathlib.Path) -> Tree:
    """A folder or a zip."""
    return Zip(path) if pathlib.Path(path).suffix == ".zip" else Folder(path)
