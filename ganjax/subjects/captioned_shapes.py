"""Whether samples for prompts of captioned shapes have the colour and the shape that were asked.

A small classifier, trained on real pictures of all combinations, looks at the part of a picture in
which the prompt has its first thing: all of it, or one half.
"""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Int, UInt8

from ganjax.data.captioned_shapes import COMBINATIONS, CaptionedScene, CaptionedShapes
from ganjax.metrics.cache import cached
from ganjax.metrics.classifier import FEATURES, Classifier, Network, train_classifier
from ganjax.subjects import Nothing
from ganjax.subjects.models import Samples

PROMPTS_SEED, CLASSIFIER_SEED = 1, 2  # of sets that no training sees
PICTURES = 6_000
STEPS = 1_200


class Asked:
    """Samples of prompts, but of each only the part that its first thing should be in.

    Args:
      samples: sample i is for the prompt of scene i.
      scenes: gone round.
    """

    fingerprint = ""

    def __init__(self, samples: Samples, scenes: Sequence[CaptionedScene]):
        self.name, self._samples, self._scenes = samples.name, samples, scenes

    def batches(self, places: range) -> Iterator[UInt8[np.ndarray, "m h w c"]]:
        place = places.start
        for images in self._samples.batches(places):
            numbers = range(place, place + len(images))
            yield np.stack([_part(image, self._scene(i)) for i, image in zip(numbers, images)])
            place += len(images)

    def asked(self, count: int) -> Int[np.ndarray, "n"]:
        """The combinations of the first things."""
        return np.array([COMBINATIONS.index(self._scene(i).combination) for i in range(count)])

    def describe(self, place: int) -> str:
        return f"{self._samples.describe(place)} for {self._scene(place).caption!r}"

    def _scene(self, place: int) -> CaptionedScene:
        return self._scenes[place % len(self._scenes)]


class HeldOut(Nothing):
    """What is asked of a model that was trained on the split "train"; no pictures are looked at.

    Args:
      resolution: (height, width) of the samples.
      objects: 1 or 2, of a picture at most.
    """

    def __init__(self, resolution: tuple[int, int], objects: int):
        self.resolution, self.objects = resolution, objects

    def scenes(self, count: int) -> list[CaptionedScene]:
        """The first so many."""
        source = CaptionedShapes(self.resolution, count, PROMPTS_SEED, "heldout", self.objects)
        return [source.scene(i) for i in range(count)]


def classifier(resolution: tuple[int, int], objects: int, folder: str | pathlib.Path) -> Classifier:
    """Of the first thing's combination of colour and shape; trained once, then read from a file.

    Args:
      resolution: (height, width) of the pictures.
      objects: 1 or 2, of a picture at most.
      folder: of the file.
    """
    source = CaptionedShapes(resolution, PICTURES, CLASSIFIER_SEED, "all", objects)

    def build() -> dict[str, np.ndarray]:
        scenes = [source.scene(i) for i in range(PICTURES)]
        images = np.stack([_part(source[i]["image"], scene) for i, scene in enumerate(scenes)])
        labels = np.array([COMBINATIONS.index(scene.combination) for scene in scenes])
        made = train_classifier(images, labels, len(COMBINATIONS), CLASSIFIER_SEED, STEPS)
        return {"accuracy": np.array(made.accuracy)} | flatten_dict(dict(made.params), sep="/")

    protocol = {"name": "combinations", "looks": [*resolution, 3], "steps": STEPS}
    arrays = cached(folder, source.fingerprint(), protocol, f"classifier-1-{FEATURES}", build)
    accuracy = float(arrays.pop("accuracy"))
    params = unflatten_dict(arrays, sep="/")
    network = Network(len(COMBINATIONS))
    return Classifier(network, params, (*resolution, 3), accuracy, PICTURES // 5)


def _part(image: UInt8[np.ndarray, "h w c"], scene: CaptionedScene) -> UInt8[np.ndarray, "h w c"]:
    """The picture, black outside of the half in which the first of two things should be."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    every = slice(None)
    rows, columns = {
        "": (every, every),
        "left": (every, slice(width)),
        "right": (every, slice(width, None)),
        "above": (slice(height), every),
        "below": (slice(height, None), every),
    }[scene.relation]
    seen = np.zeros_like(image)
    seen[rows, columns] = image[rows, columns]
    return seen
