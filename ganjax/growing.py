"""When networks that grow go on to their next stage: the reference distance (Aurora, section 3.4).

Two disjoint sets of real pictures have a Frechet distance, too. Samples that are as close to real
pictures as these are to one another have learned what there is to learn at a resolution. Aurora
calls that of Inception's features the reference FID.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ganjax import generate
from ganjax.bench import Bench
from ganjax.data.sources import Options, Source
from ganjax.family import Growth, Request
from ganjax.metrics.protocols import BY_N_LESS_1, Protocol
from ganjax.subjects import Subject, pictures
from ganjax.subjects.models import Samples


class Reduced:
    """The pictures of another subject, each pixel the mean of so many that the side is `size`."""

    def __init__(self, subject: Subject, size: int):
        self.name = f"{subject.name} at {size} pixels"
        self.fingerprint = f"{subject.fingerprint} at {size} pixels"
        self._subject, self._size = subject, size

    def __len__(self) -> int:
        return len(self._subject)  # type: ignore[arg-type]

    def batches(self, places: range) -> Iterator[UInt8[np.ndarray, "m s s c"]]:
        for images in self._subject.batches(places):
            part = images.shape[1] // self._size
            blocks = images.reshape(-1, self._size, part, self._size, part, images.shape[-1])
            yield np.round(blocks.mean(axis=(2, 4))).astype(np.uint8)

    def asked(self, count: int) -> None:
        """Stages are not of classes."""

    def describe(self, place: int) -> str:
        return self._subject.describe(place)


class Growing:
    """Where a run is in its stages, and when it goes on.

    Args:
      growth: the family's.
      source: of the real pictures.
      options: how they are read.
      extras: of the state that the run goes on from.

    Attributes:
      stage: its number.
    """

    def __init__(self, growth: Growth, source: Source, options: Options, extras: Mapping[str, Any]):
        self.growth = growth
        self.stage, self._began = int(extras["stage"]), int(extras["stage_began"])
        self._near: tuple[float, float] | None = None
        self._source, self._options = source, options
        self._benches: dict[int, tuple[Bench, Protocol, Request]] = {}
        self._programs: generate.Programs | None = None

    @property
    def done(self) -> bool:
        """Whether this is the last stage."""
        return self.stage + 1 >= len(self.growth.resolutions)

    def measure(self, model: generate.Model) -> dict[str, float]:
        """The samples' distance from real pictures, and the reference; kept for `over`.

        Every process makes this call.
        """
        bench, protocol, request = self._bench(self.stage)
        samples = Samples(model, request=request, programs=self._programs)
        self._programs = samples.model.programs
        size = self.growth.resolutions[self.stage]
        result = bench.measure(Reduced(samples, size), [protocol])[protocol]
        self._near = result.values[""], result.reference["real_real"]
        return {"stage/distance": self._near[0], "stage/reference": self._near[1]}

    def over(self, images: int) -> str:
        """Why the stage is over, after so many real images of the run; empty if it is not."""
        growth, near, self._near = self.growth, self._near, None
        size = growth.resolutions[self.stage]
        if near and near[0] <= growth.margin * near[1]:
            return (
                f"at {size} pixels samples are {near[0]:.3g} from real pictures, these "
                f"{near[1]:.3g} from one another"
            )
        seen = images - self._began
        if growth.most_images and seen >= growth.most_images:
            return f"{seen} images at {size} pixels, the most of a stage"
        return ""

    def move(self, images: int) -> dict[str, Any]:
        """Goes on to the next stage; the extras of the state then."""
        self.stage, self._began = self.stage + 1, images
        return {"stage": np.int32(self.stage), "stage_began": np.uint32(images)}

    def _bench(self, stage: int) -> tuple[Bench, Protocol, Request]:
        """The real side of a stage, and the prompts of the samples: captions of the former."""
        if stage not in self._benches:
            growth, size = self.growth, self.growth.resolutions[stage]
            protocol = Protocol(
                f"stage_{size}",
                "frechet",
                growth.network,
                growth.feature,
                reals=2 * growth.pictures,  # two sets, whose distance is the reference
                fakes=growth.pictures,
                labels="even",
                options=BY_N_LESS_1,
                source="Aurora, section 3.4",
            )
            reals = pictures.of_run(self._source, self._options)
            if len(reals) < 2 * growth.pictures:
                raise ValueError(
                    f"{len(reals)} real pictures, and two sets of {growth.pictures} are wanted to"
                    " tell when a stage is over. Set config.grow.pictures to half of them or less."
                )
            request = Request(prompts=reals.captions(growth.pictures))
            self._benches[stage] = Bench(Reduced(reals, size), [protocol], 0), protocol, request
        return self._benches[stage]
