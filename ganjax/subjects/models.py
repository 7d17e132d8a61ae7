"""Samples of a model, and pairs of images that a probe makes of it."""

import functools
import io
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
from jaxtyping import Array, Int, UInt8

from ganjax import generate
from ganjax.family import Request
from ganjax.layers.images import to_uint8
from ganjax.metrics.clips import fake_times
from ganjax.metrics.protocols import Clip, Probe
from ganjax.parallel.mesh import batch_sharding, make_mesh, replicated
from ganjax.parallel.rules import whole


class Samples:
    """The samples of a model, its averaged generator without truncation.

    Every process makes its own on its own devices; the variables may be split over all of them,
    and every process must make this call.

    Args:
      model: of which.
      seed: of the latents.
      labels: of the samples; None goes round the classes.
      programs: compiled ones of an earlier model of the same family.
      clip: which frames a family of videos makes, and what becomes of them; None: images.
      request: what is asked of the model.
    """

    fingerprint = ""

    def __init__(
        self,
        model: generate.Model,
        seed: int = 0,
        labels: Int[np.ndarray, "n"] | None = None,
        programs: generate.Programs | None = None,
        clip: Clip | None = None,
        request: Request = Request(),  # noqa: B008
    ):
        self.name = f"samples of step {model.step}"
        self._classes = int(model.config.data.get("classes", 0)) or 1
        self._seed, self._labels = seed, labels
        self._clip, self._request = clip, request
        self.model = _local(model, programs)

    def batches(self, places: range) -> Iterator[UInt8[np.ndarray, "m ..."]]:
        # Labels go round the classes, so this index has the label that is wanted.
        indices = np.asarray(places)
        if self._labels is not None:
            indices = indices * self._classes + self._labels[indices]
        if self._clip is None:
            return self.model.batches(indices, self._seed, self._request)
        return self._clips(indices, self._clip)

    def _clips(
        self, indices: Int[np.ndarray, "n"], clip: Clip
    ) -> Iterator[UInt8[np.ndarray, "m t h w c"]]:
        """Clips, whose frames together are as many as the images of a batch."""
        times = fake_times(clip.frames, clip.stride)
        devices = jax.local_device_count()
        some = -(-max(1, generate.CHUNK // clip.frames) // devices) * devices
        request = Request(times=tuple(times.tolist()))
        to_bytes = BYTES[clip.rounding]
        for clips in self.model.batches(indices, self._seed, request, some, to_bytes):
            if clips.shape[1:2] != (clip.frames,):
                raise ValueError(
                    f"{self.name} are of {clips.shape[1:]}, the metric looks at clips of "
                    f"{clip.frames} frames: [t, h, w, c]; its family must make the frames at "
                    "Request.times"
                )
            yield through_jpeg(clips, clip.jpeg) if clip.jpeg else clips

    def asked(self, count: int) -> Int[np.ndarray, "n"]:
        if self._labels is None:
            return np.arange(count) % self._classes
        return self._labels[:count]

    def describe(self, place: int) -> str:
        return f"sample {place} ({self.name})"


def _down(images: Array) -> UInt8[Array, "*shape"]:
    """[-1, 1] to the byte below, as DIGAN's code does."""
    return jnp.floor((jnp.clip(images, -1, 1) + 1) / 2 * 255).astype(jnp.uint8)


BYTES = {"nearest": to_uint8, "down": _down}


def through_jpeg(
    clips: UInt8[np.ndarray, "n t h w c"], quality: int
) -> UInt8[np.ndarray, "n t h w c"]:
    """What is left of frames that Pillow writes as JPEG and reads again."""

    def frame(pixels: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        squeezed = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
        PIL.Image.fromarray(squeezed).save(file, "JPEG", quality=quality)
        return np.asarray(PIL.Image.open(file)).reshape(pixels.shape)

    return np.stack([np.stack([frame(pixels) for pixels in clip]) for clip in clips])


def _local(model: generate.Model, programs: generate.Programs | None) -> generate.Model:
    """The model on this process's devices, each of which makes a part of a batch."""
    if jax.device_count() == 1:
        return model
    devices = make_mesh({"data": -1}, jax.local_devices())
    programs = programs or generate.Programs(model.family, batch_sharding(devices, leading=0))
    variables: Any = jax.device_get(whole(model.variables))
    return generate.Model(
        model.family,
        jax.device_put(variables, replicated(devices)),
        model.config,
        model.step,
        programs,
    )


class Pairs:
    """The pairs of images that a probe makes of a model.

    What lies at a place is a pair's index and label; the images are made where their features are
    taken, on the devices.

    Attributes:
      make: from `variables` and what lies at some places to their pairs.
      variables: ready for it.

    Args:
      model: of which.
      probe: which function of its family, and its options.
      seed: of the pairs.
      labels: of the pairs; None goes round the classes.
    """

    fingerprint = ""

    def __init__(
        self,
        model: generate.Model,
        probe: Probe,
        seed: int = 0,
        labels: Int[np.ndarray, "n"] | None = None,
    ):
        self.name = f"pairs of step {model.step}"
        self._classes = int(model.config.data.get("classes", 0)) or 1
        self._labels = labels
        function = functools.partial(model.family.probes[probe.name], **probe.options)
        self.make = functools.partial(_make, function)
        ready = _local(model, None).ready(seed, Request())
        self.variables = {"generator": ready, "key": jax.random.key(seed)}

    def batches(self, places: range) -> Iterator[dict[str, Int[np.ndarray, "m"]]]:
        indices = np.arange(places.start, places.stop, dtype=np.int32)
        yield {"index": indices, "label": self._asked(indices)}

    def asked(self, count: int) -> Int[np.ndarray, "n"]:
        return self._asked(np.arange(count))

    def describe(self, place: int) -> str:
        return f"pair {place} ({self.name})"

    def _asked(self, indices: Int[np.ndarray, "m"]) -> Int[np.ndarray, "m"]:
        labels = indices % self._classes if self._labels is None else self._labels[indices]
        return labels.astype(np.int32)


def _make(function: Any, variables: Any, places: Mapping[str, Array]) -> Mapping[str, Array]:
    return function(variables["generator"], variables["key"], places["index"], places["label"])
