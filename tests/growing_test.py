"""When stages end."""

import numpy as np
import pytest

from ganjax import generate
from ganjax.data.demo import Shapes
from ganjax.data.sources import Options
from ganjax.family import Growth
from ganjax.growing import Growing, Reduced
from ganjax.metrics.measures import Result


class Gradient:
    """Pictures of 4x4 that differ from place to place."""

    name, fingerprint = "gradient", "gradient-1"

    def __len__(self):
        return 4

    def batches(self, places):
        for place in places:
            yield np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1) + np.uint8(place)

    def asked(self, count):
        return None

    def describe(self, place):
        return f"gradient {place}"


def growth(**fields):
    given = dict(
        resolutions=(4, 8, 16),
        most_images=100,
        every_images=10,
        margin=1.0,
        pictures=2,
        network="",
        feature="",
    )
    return Growth(**given | fields)


def at(stage, began, **fields):
    extras = {"stage": np.int32(stage), "stage_began": np.uint32(began)}
    return Growing(growth(**fields), Shapes((16, 16)), Options("shapes"), extras)


def test_reduced_pictures_are_means():
    reduced = Reduced(Gradient(), 2)
    assert len(reduced) == 4 and reduced.fingerprint != Gradient.fingerprint
    (picture,) = reduced.batches(range(1, 2))
    # Of 1, 2, 5, 6 and so on; half a step goes to the even number.
    assert picture.dtype == np.uint8
    assert picture[0, :, :, 0].tolist() == [[4, 6], [12, 14]]


def test_a_stage_ends_after_the_most_images():
    growing = at(1, began=40)
    assert not growing.over(139) and not growing.done
    assert growing.over(140) == "100 images at 8 pixels, the most of a stage"
    assert growing.move(140) == {"stage": 2, "stage_began": 140}
    assert growing.done


def test_without_a_limit_it_waits():
    assert not at(0, began=0, most_images=0).over(10**9)


@pytest.mark.parametrize(
    "distance, margin, over", [(2.0, 1.0, False), (1.0, 1.0, True), (2.0, 3.0, True)]
)
def test_a_stage_ends_when_samples_are_as_close_as_real_pictures(
    distance, margin, over, monkeypatch
):
    class Bench:
        def measure(self, fakes, chosen):
            (protocol,) = chosen
            assert fakes.name == "samples at 8 pixels"
            return {protocol: Result({"": distance}, reference={"real_real": 1.0})}

    growing = at(1, began=0, margin=margin)
    monkeypatch.setattr("ganjax.growing.Samples", Samples)
    monkeypatch.setattr(growing, "_bench", lambda stage: (Bench(), f"stage {stage}", None))
    model = generate.Model.__new__(generate.Model)
    assert growing.measure(model) == {"stage/distance": distance, "stage/reference": 1.0}
    assert bool(growing.over(50)) == over
    # A measurement counts once.
    assert not growing.over(50)


class Samples(Gradient):
    name = "samples"

    def __init__(self, model, request, programs):
        self.model = self
        self.programs = "compiled"


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"pictures": 1}, "distance of 1 pictures .* set config.grow.pictures"),
        ({"margin": 0.0}, "margin 0; set"),
        ({"every_images": 0, "most_images": 0}, "No stage but the first would ever come: set"),
    ],
)
def test_growth_that_cannot_be(fields, message):
    with pytest.raises(ValueError, match=message):
        growth(**fields)
