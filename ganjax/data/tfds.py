"""Data sets of TensorFlow Datasets, prepared as ArrayRecord and read without TensorFlow."""

import contextlib
import io
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ganjax.data.records import read_record
from ganjax.data.transforms import BrokenItem, Encoded, Item, decode_item

# Features that tell a person which picture it is, where a data set has one.
_NAMES = ("file_name", "image/filename", "id", "image_id", "image/id")


class Tfds:
    """A split of a data set that has an ``image`` and, where it knows classes, a ``label``.

    Args:
      name: as TFDS writes it: ``"cifar10"``, ``"imagenet2012:5.1.0"``.
      split: ``"train"``, ``"train[:90%]"``.
      folder: where the prepared data sets are; empty for TFDS's own choice
        (``TFDS_DATA_DIR``, else ``~/tensorflow_datasets``).
      captions: whether items have them: of a feature ``captions`` (coco_captions) or ``caption``.

    Raises:
      FileNotFoundError: not prepared there as ArrayRecord; says how it is.
      ImportError: the package tensorflow-datasets is missing; says how to install it, and how to
        prepare the data set.
      ValueError: an unknown name or split, or a data set without pictures.
    """

    def __init__(self, name: str, split: str = "train", folder: str = "", captions: bool = False):
        tfds = package(name, folder)
        self._args = (name, split, folder, captions)
        self.name = f"tfds {name} {split}"
        builder = _builder(tfds, name, folder)
        formats = {file_format.value for file_format in builder.info.available_file_formats()}
        there = builder.data_path.exists() and builder.is_prepared()
        if not there or "array_record" not in formats:
            what = "is there in another file format" if there else "is not there"
            raise FileNotFoundError(f"{builder.data_path} {what}. {how_to_prepare(name, folder)}")
        features = builder.info.features
        wanted = {name: features[name] for name in ("image", "label", *_NAMES) if name in features}
        image, label = wanted.get("image"), wanted.get("label")
        whole = (np.uint8, np.uint16)
        if not isinstance(image, tfds.features.Image) or image.np_dtype not in whole:
            raise ValueError(
                f"The TFDS data set {name!r} has no feature 'image' of 8 or 16 bits; it has "
                f"{dict(features)}. Choose another."
            )
        if not isinstance(label, tfds.features.ClassLabel):
            wanted.pop("label", None)
            self.classes: tuple[str, ...] = ()
        else:
            self.classes = tuple(label.names)
        self._captions = ""
        if captions:
            found = [feature for feature in ("captions", "caption") if feature in features]
            if not found:
                raise ValueError(
                    f"The TFDS data set {name!r} has no feature 'captions' or 'caption'; it has "
                    f"{dict(features)}. Choose another, such as coco_captions."
                )
            self._captions = found[0]
            wanted[self._captions] = features[self._captions]
        # What nobody reads is not decoded.
        self._features = tfds.features.FeaturesDict(wanted)
        self._decoders = {"image": tfds.decode.SkipDecoding()}
        self._records = records_of(builder, name, split)
        self._fingerprint = f"tfds-1-{builder.info.full_name}-{split}-{len(self._records)}"

    def __reduce__(self) -> Any:
        return Tfds, self._args

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Item:
        return decode_item(self.encoded(index))

    def encoded(self, index: int) -> Encoded:
        """An item's picture as it is kept.

        Raises:
          ValueError: TFDS's label for "unknown", in a data set that has classes.
        """
        record = read_record(self._records, index, self.name)
        fields = self._features.deserialize_example_np(record, decoders=self._decoders)
        label = label_of(fields, index, self.name)
        names = [fields[name] for name in _NAMES if name in fields]
        name = names[0].decode(errors="replace") if names and isinstance(names[0], bytes) else ""
        name = name or f"item {index}"
        captions = _texts(fields[self._captions], name) if self._captions else None
        return Encoded(fields["image"], label, name, captions)

    def describe(self, index: int) -> str:
        try:
            return self.encoded(index).name
        except (OSError, ValueError):
            return f"item {index}"

    def fingerprint(self) -> str:
        return self._fingerprint


def _texts(feature: Any, name: str) -> tuple[str, ...]:
    """One text or several, or records of such with other things, as COCO has."""
    found = feature["text"] if isinstance(feature, Mapping) else feature
    try:
        texts = [text.decode().strip() for text in np.atleast_1d(np.asarray(found, object))]
    except UnicodeDecodeError as error:
        raise BrokenItem(f"{name}: a caption is not UTF-8 ({error})") from error
    if not any(texts):
        raise BrokenItem(f"{name}: it has no caption")
    return tuple(filter(None, texts))


def package(name: str, folder: str) -> Any:
    """tensorflow_datasets, which not every installation has.

    Raises:
      ImportError: it is missing; says how to install it, and how to prepare the data set.
    """
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ImportError(
            f"The source tfds needs the package tensorflow-datasets ({error}). Install it: "
            f"pip install tensorflow-datasets\nIs {name} not there yet? "
            f"{how_to_prepare(name, folder)}"
        ) from error
    return tensorflow_datasets


def records_of(builder: Any, name: str, split: str) -> Any:
    """The records of a split of a prepared data set.

    Raises:
      ValueError: there is no such split.
    """
    try:
        return builder.as_data_source(split=split).data_source
    except ValueError as error:
        raise ValueError(
            f"{name} has no split {split!r} ({first_line(error)}). Set config.data.split."
        ) from None


def label_of(fields: Mapping[str, Any], index: int, source: str) -> int:
    """The class of an item; 0 in a data set without classes.

    Raises:
      ValueError: TFDS's label for "unknown", in a data set that has classes.
    """
    label = int(fields.get("label", 0))
    if label < 0:
        raise ValueError(
            f"Item {index} of {source!r} has no label. Set config.data.split to one that has, such "
            "as train."
        )
    return label


def _builder(tfds: Any, name: str, folder: str) -> Any:
    """What reads a data set, by its own code in TFDS, or by its files alone."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # a banner about TensorFlow
            return tfds.builder(name, data_dir=folder or None)
    except ValueError as error:  # DatasetNotFoundError is one
        raise ValueError(
            f"TFDS knows no data set {name!r} ({first_line(error)}). Set config.data.name "
            "to one of https://www.tensorflow.org/datasets/catalog, or config.data.path to "
            "where yours was prepared."
        ) from None
    except ImportError:
        # NOTE: the code of some, such as coco_captions, wants TensorFlow to be described at all.
        root, dataset, config, version = find(name, folder)
        return tfds.builder_from_directory(root.joinpath(dataset, *config, version))


def find(name: str, folder: str) -> tuple[pathlib.Path, str, tuple[str, ...], str]:
    """The folder of all data sets, and data set, config (or none) and version below it.

    Raises:
      FileNotFoundError: no such data set; says how to prepare it.
      ValueError: it has several configs, and the name does not say which.
    """
    base, _, version = name.partition(":")
    dataset, _, config = base.partition("/")
    root = pathlib.Path(folder or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    root = root.expanduser()
    known = [
        file.parent.relative_to(root / dataset).parts
        for file in root.glob(f"{dataset}/**/dataset_info.json")
    ]
    fitting = [
        parts
        for parts in known
        if (not config or parts[:-1] == (config,)) and (not version or parts[-1] == version)
    ]
    if not fitting:
        raise FileNotFoundError(f"{root / base} is not there. {how_to_prepare(name, folder)}")
    configs = {parts[:-1] for parts in fitting}
    if len(configs) > 1:
        names = sorted("/".join((dataset, *parts)) for parts in configs)
        raise ValueError(
            f"{name!r} is there in several configs. Set config.data.name to one of {names}."
        )
    newest = max(fitting, key=lambda parts: [int(part) for part in parts[-1].split(".")])
    return root, dataset, newest[:-1], newest[-1]


def how_to_prepare(name: str, folder: str) -> str:
    """The commands that prepare a data set where it is looked for."""
    where = f" --data_dir={folder}" if folder else ""
    return (
        "Prepare it as ArrayRecord, on any machine; only this step needs TensorFlow:\n"
        "  pip install tensorflow tensorflow-datasets\n"
        f"  tfds build {name} --file_format=array_record{where}"
    )


def first_line(error: Exception) -> str:
    """Of what TFDS says, which may be a page."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
