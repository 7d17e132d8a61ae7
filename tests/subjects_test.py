"""Sets that are measured: every picture once, broken ones named, samples with the asked labels."""

import dataclasses

import av
import jax
import numpy as np
import pytest
from PIL import Image

from configs import biggan
from ganjax import family, generate
from ganjax.data.demo import Digits
from ganjax.data.sources import Options
from ganjax.data.transforms import BrokenItem
from ganjax.family import Request
from ganjax.metrics.protocols import BY_NAME, Clip
from ganjax.subjects import models, pictures, videos
from tests.data.clips_on_disk import write_video


class Numbers:
    """Twenty pictures of their own number, of three classes; number 4 is broken."""

    name = "numbers"
    classes = ("a", "b", "c")
    broken = (4,)

    def __len__(self):
        return 20

    def __getitem__(self, index):
        if index in self.broken:
            raise BrokenItem("torn")
        return {"image": np.full((2, 2, 1), index, np.uint8), "label": np.int32(index % 3)}

    def fingerprint(self):
        return "numbers-1"


def numbers(pictures, places):
    return [int(image[0, 0, 0]) for part in pictures.batches(places) for image in part]


def test_pictures_are_shuffled_by_the_seed_and_the_same_by_place(monkeypatch):
    monkeypatch.setattr(Numbers, "broken", ())
    monkeypatch.setattr(pictures, "CHUNK", 6)
    shuffled = pictures.Pictures(Numbers())
    every = numbers(shuffled, range(20))
    assert sorted(every) == list(range(20)) != every
    assert numbers(shuffled, range(5, 13)) == every[5:13]
    assert numbers(pictures.Pictures(Numbers(), seed=1), range(20)) != every
    np.testing.assert_array_equal(shuffled.asked(7), np.array(every[:7]) % 3)
    assert pictures.Pictures(Numbers(), seed=1).fingerprint != shuffled.fingerprint


def test_a_broken_picture_is_named_or_replaced():
    with pytest.raises(ValueError, match="item 4 of numbers is broken .torn.; mend it"):
        numbers(pictures.Pictures(Numbers()), range(20))
    with pytest.warns(UserWarning, match="item 4 is left out: torn"):
        found = numbers(pictures.Pictures(Numbers(), max_broken=1), range(20))
    assert len(found) == 20 and 4 not in found


def test_folders_and_zips_as_they_are(tmp_path):
    for index, size in enumerate([(4, 4), (4, 4)]):
        Image.new("RGB", size, (index, 0, 0)).save(tmp_path / f"{index}.png")
    here = pictures.of_path(tmp_path)
    (images,) = here.batches(range(2))
    assert images.shape == (2, 4, 4, 3) and here.asked(2) is None
    assert here.describe(0) in {f"{name}.png of {here.name}" for name in (0, 1)}
    Image.new("L", (4, 4)).save(tmp_path / "1.png")
    assert [part.shape for part in pictures.of_path(tmp_path).batches(range(2))] == [(2, 4, 4, 3)]
    before = here.fingerprint
    Image.new("RGB", (5, 4)).save(tmp_path / "1.png")
    changed = pictures.of_path(tmp_path)
    assert changed.fingerprint != before
    with pytest.raises(ValueError, match="bring all to one size"):
        list(changed.batches(range(2)))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileNotFoundError, match="holds no pictures"):
        pictures.of_path(empty)


def test_clips_of_video_files_are_those_of_their_frames(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, 9)
    decoded = []
    for name in ("a.mp4", "b.webm"):
        codec = "libx264" if name == "a.mp4" else "libvpx-vp9"
        file = write_video(tmp_path / "files" / name, levels, codec, (16, 12))
        with av.open(str(file)) as container:
            decoded.append([frame.to_ndarray(format="rgb24") for frame in container.decode()])
    for name, frames in zip("ab", decoded):
        (tmp_path / "frames" / name).mkdir(parents=True)
        for number, frame in enumerate(frames):
            Image.fromarray(frame).save(tmp_path / "frames" / name / f"{number}.png")
    strided = dataclasses.replace(BY_NAME["fvd_all_16f"], clip=Clip(4, 2))
    for clips_of in (
        lambda seen: videos.real(seen, strided, None),
        lambda seen: videos.leading(seen, strided, None),
    ):
        both = [
            np.concatenate(list(clips.batches(range(2))))
            for folder in ("files", "frames")
            for clips in [clips_of(videos.of_path(tmp_path / folder))]
        ]
        assert both[0].shape == (2, 4, 12, 16, 3)
        np.testing.assert_array_equal(*both)
    (tmp_path / "gray" / "video").mkdir(parents=True)
    Image.new("L", (3, 2), 7).save(tmp_path / "gray" / "video" / "0.png")
    one = dataclasses.replace(strided, clip=Clip(1))
    clips = videos.real(videos.of_path(tmp_path / "gray"), one, None)
    assert next(clips.batches(range(1))).shape == (1, 1, 2, 3, 3)


def test_a_run_sees_its_own_size():
    config = biggan.tiny().data
    reals = pictures.of_run(Digits((32, 32)), Options(source="digits", resolution=(16, 16)))
    (images,) = reals.batches(range(3))
    assert images.shape == (3, 16, 16, 3) and config.channels == 1


@pytest.fixture(scope="module")
def model():
    config = biggan.tiny()
    config.sample.standing = 0
    made = family.build(config, "cpu")
    variables = jax.device_put(made.init(jax.random.key(0)).ema)
    return generate.Model(made, variables, config, step=1)


def test_samples_on_all_devices_are_those_of_one(model):
    samples = models.Samples(model, seed=3)
    assert samples.model is not model and jax.device_count() == 8
    found = np.concatenate(list(samples.batches(range(2, 9))))
    alone = np.concatenate(list(model.batches(np.arange(2, 9), 3, Request())))
    assert np.abs(found.astype(int) - alone).max() <= 1
    np.testing.assert_array_equal(samples.asked(12), np.arange(12) % 10)


def test_samples_take_the_labels_that_they_are_given(model, monkeypatch):
    labels = np.array([7, 0, 7, 3])
    samples = models.Samples(model, labels=labels)
    seen = []
    monkeypatch.setattr(
        samples.model, "batches", lambda indices, seed, request: seen.append(indices) or iter(())
    )
    list(samples.batches(range(4)))
    (indices,) = seen
    np.testing.assert_array_equal(indices % 10, labels)
    assert len(set(indices.tolist())) == 4
    np.testing.assert_array_equal(samples.asked(3), labels[:3])
