"""Videos of TensorFlow Datasets, prepared as ArrayRecord and read without TensorFlow."""

import json
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int, UInt8

from ganjax.data.records import read_record
from ganjax.data.tfds import find, how_to_prepare, label_of, package, records_of
from ganjax.data.transforms import Item, decode
from ganjax.data.videos import Video, same_size


class EncodedFrames(Video):
    """A video of encoded pictures.

    Attributes:
      rate: TFDS does not say it.
    """

    rate = 0.0

    def __init__(self, frames: list[bytes], name: str):
        self.name, self._frames = name, frames

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, frames: Int[np.ndarray, "t"]) -> UInt8[np.ndarray, "t h w c"]:
        names = [f"{self.name}, frame {number}" for number in frames]
        return same_size([decode(self._frames[n], name) for n, name in zip(frames, names)], names)

    def encoded(self, frame: int) -> bytes:
        """A frame's picture as it is kept."""
        return self._frames[frame]


class TfdsVideos:
    """A split of a data set that has a ``video`` and perhaps a ``label``, such as ucf101.

    TFDS keeps a video in one record, of which only the wanted frames are decoded.

    Args:
      name: as TFDS writes it: ``"ucf101/ucf101_1"``, ``"ucf101/ucf101_1:2.0.0"``.
      split: ``"train"``, ``"train[:90%]"``.
      folder: where the prepared data sets are; empty for TFDS's own choice
        (``TFDS_DATA_DIR``, else ``~/tensorflow_datasets``).

    Raises:
      FileNotFoundError: not prepared there as ArrayRecord; says how it is.
      ImportError: the package tensorflow-datasets is missing; says how to install it.
      ValueError: an unknown split, or a data set without videos.
    """

    def __init__(self, name: str, split: str = "train", folder: str = ""):
        tfds = package(name, folder)
        self._args = (name, split, folder)
        self.name = f"tfds {name} {split}"
        root, dataset, config, version = find(name, folder)
        place = root.joinpath(dataset, *config, version)
        found = json.loads((place / "features.json").read_text())["featuresDict"]["features"]
        kind = found.get("video", {}).get("pythonClassName", "").rpartition(".")[2]
        if kind not in ("Video", "Sequence"):
            raise ValueError(
                f"The TFDS data set {name!r} has no feature 'video'; it has {sorted(found)}. "
                "Choose another, or set config.data.clip=None for its pictures."
            )
        # NOTE: not `tfds.builder`, which makes the data set's own Video, and that needs TensorFlow.
        # A video is kept as encoded pictures, which a sequence of texts reads as they are.
        features = {"video": tfds.features.Sequence(tfds.features.Text())}
        if "classLabel" in found.get("label", {}):
            features["label"] = tfds.features.ClassLabel()

        # mypy sees nothing of TFDS.
        class Described(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore
            VERSION = tfds.core.Version(version)
            BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=name) for name in config]

            def _info(self) -> Any:
                described = tfds.features.FeaturesDict(features)
                return tfds.core.DatasetInfo(builder=self, features=described)

            def _split_generators(self, manager: Any) -> Any:
                raise AssertionError("it is prepared")

            _generate_examples = _split_generators

        Described.name = dataset
        builder = Described(data_dir=root, config=config[0] if config else None)
        formats = {file_format.value for file_format in builder.info.available_file_formats()}
        if "array_record" not in formats:
            raise FileNotFoundError(
                f"{place} is there in another file format. {how_to_prepare(name, folder)}"
            )
        self._features = builder.info.features
        labels = self._features["label"].names if "label" in self._features else ()
        self.classes: tuple[str, ...] = tuple(labels)
        self._records = records_of(builder, name, split)
        self._fingerprint = f"tfds-2-{builder.info.full_name}-{split}-{len(self._records)}"

    def __reduce__(self) -> Any:
        return TfdsVideos, self._args

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Item:
        record = read_record(self._records, index, self.name)
        fields = self._features.deserialize_example_np(record)
        label = label_of(fields, index, self.name)
        video = EncodedFrames(list(fields["video"]), self.describe(index))
        return {"video": video, "label": np.asarray(label, np.int32)}

    def describe(self, index: int) -> str:
        return f"video {index}"

    def fingerprint(self) -> str:
        return self._fingerprint
