"""Where items come from: random access, a dict of arrays an item."""

import dataclasses
import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ganjax.data.captioned_shapes import CaptionedShapes
from ganjax.data.captions import Captioned
from ganjax.data.clips import Clip, ClipTransform, read_clip
from ganjax.data.demo import Digits, Shapes, ShapeVideos, WarpedDigits
from ganjax.data.files import Files, Folder, Zip
from ganjax.data.records import Records, RecordVideos
from ganjax.data.tfds import Tfds
from ganjax.data.tfds_videos import TfdsVideos
from ganjax.data.transforms import Item, Transform
from ganjax.data.videos import Videos
from ganjax.data.webdataset import WebDataset

LABELLED = ("digits", "warped_digits", "shapes")
BUILT_IN = (*LABELLED, "captioned_shapes")
SOURCES = (*BUILT_IN, "tfds", "folder", "zip", "webdataset", "records")
CAPTIONED_SOURCES = ("captioned_shapes", "tfds", "folder", "zip", "webdataset", "records")
VIDEO_SOURCES = ("shapes", "tfds", "folder", "zip", "records")


@runtime_checkable
class Source(Protocol):
    """A random-access data set.

    An item is ``{"image": uint8 [h, w, c] of any size, "label": int32 scalar}``, with further
    fields where a source has them, as a ``"caption"``, a string; of videos it is
    ``{"video": videos.Video, "label": ...}``.
    `__getitem__` is called from several threads, returns the same item at every call, and raises
    `BrokenItem` for one that cannot be decoded.

    Attributes:
      name: for messages.
      classes: the names of the labels; empty where the data has none (every label is then 0).
    """

    name: str

    @property
    def classes(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...

    def fingerprint(self) -> str:
        """Changes when the items or their order do."""
        ...


def describe(source: Source, index: int) -> str:
    """What a person would call an item: its file, where the source knows one."""
    named = getattr(source, "describe", None)
    return named(index) if named else f"item {index}"


@dataclasses.dataclass(frozen=True)
class Options:
    """``config.data``, checked.

    Attributes:
      source: one of `SOURCES`.
      path: folder, zip file, or folder of records or of TFDS data sets.
      name: of a TFDS data set.
      split: of a TFDS data set; of captioned_shapes "train", "heldout" or "all".
      objects: in a picture of captioned_shapes at most, 1 or 2.
      text: the CLIP whose vocabulary makes tokens of captions, a name of `pretrained.catalog`;
        empty for pictures without captions.
      captions: whether items have captions; always where there is a `text`.
      embedded: whether items have the states of the text tower of `text`, which records hold.
      filters: of a webdataset, as ``("similarity>=0.3",)``.
      resolution: (height, width) in pixels.
      channels: 1 or 3.
      flip: mirror half of the images or clips.
      max_broken: broken items that are replaced before it is an error.
      prefetch: batches read ahead.
      threads: that read and decode; 0 reads in the caller's thread, ``None`` chooses: one for
        the built-in sources, where more only wait for Python's lock, else one a core up to 16.
      clip: what clips are taken of videos; ``None``: the data is pictures.
    """

    source: str
    path: str = ""
    name: str = ""
    split: str = "train"
    objects: int = 2
    text: str = ""
    captions: bool = False
    embedded: bool = False
    filters: tuple[str, ...] = ()
    resolution: tuple[int, int] = (32, 32)
    channels: int = 3
    flip: bool = False
    max_broken: int = 100
    prefetch: int = 2
    threads: int = 1
    clip: Clip | None = None


def read_options(config: Any) -> Options:
    """Reads the attributes of ``config.data`` that `Options` names; absent ones get defaults.

    Raises:
      ValueError: a value that cannot be; says what came, what was expected and what to set.
    """
    values = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(Options)
        if getattr(config, field.name, None) is not None
    }
    source = values.get("source")
    if source not in SOURCES:
        close = difflib.get_close_matches(str(source), SOURCES, 1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise ValueError(
            f"config.data.source={source!r} is no source. {hint}Expected one of {list(SOURCES)}."
        )
    values["resolution"] = parse_resolution(values.get("resolution", 32))
    if values.get("channels", 3) not in (1, 3):
        raise ValueError(
            f"config.data.channels={values['channels']}: expected 1 (gray) or 3 (RGB)."
        )
    for field, least in (("max_broken", 0), ("prefetch", 1), ("threads", 0)):
        value = values.get(field, least)
        if not isinstance(value, int) or value < least:
            raise ValueError(
                f"config.data.{field}={value}: expected a whole number from {least} on."
            )
    if values.get("threads") is None:
        values["threads"] = 1 if source in BUILT_IN else min(16, os.cpu_count() or 1)
    if "clip" in values:
        values["clip"] = read_clip(values["clip"])
    if values.get("text") or values.get("captions"):
        _check_captions(source, values)
        values["captions"] = True
    if values.get("embedded") and not (values.get("text") and source == "records"):
        raise ValueError(
            "config.data.embedded=True takes texts that `python -m ganjax.data.prepare --text=...` "
            "has embedded: set config.data.source='records' and config.data.text to the same CLIP, "
            "or config.data.embedded=False."
        )
    if "filters" in values:
        given = values["filters"]
        values["filters"] = (given,) if isinstance(given, str) else tuple(given)
    if values.get("filters") and source != "webdataset":
        raise ValueError(
            f"config.data.filters={values['filters']!r} is of config.data.source='webdataset', "
            f"whose samples have numbers, and not of {source!r}. Set it to ()."
        )
    return Options(**values)


def _check_captions(source: str, values: Mapping[str, Any]) -> None:
    if "clip" in values or source not in CAPTIONED_SOURCES:
        having = "clips of videos" if "clip" in values else f"config.data.source={source!r}"
        raise ValueError(
            f"config.data.text={values.get('text', '')!r}: captions are to be read, and {having} "
            f"have none. Set config.data.source to one of {list(CAPTIONED_SOURCES)}, or "
            "config.data.text=''."
        )
    if source == "captioned_shapes" and values.get("flip"):
        raise ValueError(
            "config.data.flip=True mirrors pictures, whose captions say what is left and right. "
            "Set config.data.flip=False."
        )


def make_transform(options: Options) -> Transform | ClipTransform:
    """What happens to each item between its source and the batch."""
    fitted = options.resolution, options.channels, options.flip
    if options.clip:
        return ClipTransform(options.clip, *fitted)
    read = find_tokenizer(options.text) if options.text else None
    return Transform(*fitted, read=read, embedded=options.embedded)


def find_tokenizer(name: str) -> Callable[[Sequence[str]], np.ndarray]:
    """What makes tokens of captions for a CLIP.

    Raises:
      ValueError: an unknown name, or its vocabulary is absent.
    """
    from ganjax.pretrained import catalog  # of which other sources need nothing

    try:
        return catalog.find_tokenizer(name)
    except ValueError as error:
        raise ValueError(f"config.data.text={name!r}: {error}") from None


def parse_resolution(value: Any) -> tuple[int, int]:
    """``128``, ``"128"``, ``"128x256"`` or ``(128, 256)`` -> (height, width).

    Raises:
      ValueError: anything else.
    """
    try:
        given = value.lower().split("x") if isinstance(value, str) else value
        sides = [given] if isinstance(given, int) else [int(side) for side in given]
        height, width = sides * 2 if len(sides) == 1 else sides
        if min(height, width) < 1:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"resolution={value!r}: expected pixels, as 128 or as height x width: 128x256."
        ) from None
    return height, width


def open_source(config: Any) -> Source:
    """Opens the source that ``config.data`` names.

    Args:
      config: an object with the attributes of `Options`, such as an ml_collections ConfigDict.

    Raises:
      ValueError: a wrong option, or data that is not as it should be.
      FileNotFoundError: no data at the path; says what to prepare and how.
      ImportError: a package is missing; says how to install it.
    """
    options = read_options(config)
    if options.clip:
        return open_videos(options)
    kind, path = options.source, _place(options)
    if kind == "digits":
        return Digits(options.resolution)
    if kind == "warped_digits":
        return WarpedDigits(options.resolution)
    if kind == "shapes":
        return Shapes(options.resolution)
    if kind == "captioned_shapes":
        return CaptionedShapes(options.resolution, split=options.split, objects=options.objects)
    if kind in ("folder", "zip"):
        return Captioned(_tree(options)) if options.captions else Files(_tree(options), kind)
    if kind == "webdataset":
        return WebDataset(path, options.filters)
    if kind == "tfds":
        return Tfds(_tfds_name(options), options.split, path, options.captions)
    try:
        records = Records(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} {_how_to_prepare(options)}") from None
    if options.captions and not records.captioned:
        raise ValueError(
            f"{path} holds no captions, which config.data.text={options.text!r} reads. Prepare it "
            "from data that has them, with --captions."
        )
    if options.embedded and records.text != options.text:
        raise ValueError(
            f"{path} holds texts embedded by {records.text or 'nobody'}, and "
            f"config.data.text={options.text!r}. Prepare it with --text={options.text}, or set "
            "config.data.embedded=False to embed them in training."
        )
    return records


def open_videos(options: Options) -> Source:
    """The source of videos that checked options name; errors as of `open_source`."""
    kind, path = options.source, _place(options)
    if kind == "shapes":
        return ShapeVideos(options.resolution)
    if kind in ("folder", "zip"):
        return Videos(_tree(options))
    if kind == "tfds":
        return TfdsVideos(_tfds_name(options), options.split, path)
    if kind == "records":
        try:
            return RecordVideos(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error} {_how_to_prepare(options)}") from None
    raise ValueError(
        f"config.data.source={kind!r} has no videos. Set it to one of {list(VIDEO_SOURCES)}, or "
        "take a config of a family of pictures."
    )


def _tree(options: Options) -> Folder | Zip:
    try:
        return (Folder if options.source == "folder" else Zip)(options.path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error} Set config.data.path to where it is (--config.data.path=...)."
        ) from None


def _place(options: Options) -> str:
    if options.source in _PLACES and not options.path:
        raise ValueError(
            f"config.data.source={options.source!r} needs a place: {_PLACES[options.source]}."
        )
    return options.path


def _tfds_name(options: Options) -> str:
    if not options.name:
        pictures = "coco_captions" if options.text else "cifar10"
        example = "ucf101/ucf101_1" if options.clip else pictures
        raise ValueError(f"config.data.source='tfds' needs config.data.name, such as {example}.")
    return options.name


_PLACES = {
    "folder": "set config.data.path to a folder of pictures, with a sub-folder for each class",
    "zip": "set config.data.path to a zip file of pictures",
    "webdataset": "set config.data.path to a folder of tar files, or to one",
    "records": "set config.data.path to a folder that `python -m ganjax.data.prepare` wrote",
}


def _how_to_prepare(options: Options) -> str:
    height, width = options.resolution
    size = f"{height}" if height == width else f"{height}x{width}"
    rest = f"--out={options.path} --resolution={size}"
    tool = "  python -m ganjax.data.prepare"
    if options.clip:
        return (
            "If it is elsewhere, set config.data.path; else prepare it from a folder or a zip of "
            "videos, or of folders of frames:\n"
            f"{tool} --videos --source=folder --path=VIDEOS {rest}"
        )
    if options.text:
        embedded = f" --text={options.text}" if options.embedded else ""
        return (
            "If it is elsewhere, set config.data.path; else prepare it from pictures with texts, "
            "in img2dataset's tars, a folder, or a TFDS data set:\n"
            f"{tool} --captions --source=webdataset --path=TARS {rest}{embedded}\n"
            f"{tool} --captions --source=folder --path=PICTURES {rest}{embedded}\n"
            f"{tool} --captions --source=tfds --name=coco_captions {rest}{embedded}"
        )
    return (
        "If it is elsewhere, set config.data.path; else prepare it from a folder with a sub-folder "
        "for each class, a zip, or a TFDS data set:\n"
        f"{tool} --source=folder --path=PICTURES {rest}\n"
        f"{tool} --source=zip --path=PICTURES.zip {rest}\n"
        f"{tool} --source=tfds --name=imagenet2012 {rest}"
    )


def fit_classes(classes: int, source: Source) -> int:
    """The number of classes to train on: what a config says, if it fits the data.

    Args:
      classes: of the config; 0 takes what the data has. Data without classes is one class.

    Raises:
      ValueError: the config says another number than the data.
    """
    known = len(source.classes)
    if classes in (0, known or 1):
        return known or 1
    named = f" ({', '.join(source.classes[:3])}, ...)" if known else ""
    raise ValueError(
        f"config.data.classes={classes}, but {source.name!r} has {known or 'no'} classes{named}. "
        f"Set config.data.classes={known or 1}"
        + (", or 0 to take what the data has." if known else " to train without classes.")
    )
