"""Which frames make a clip, and the stream of clips: the same wherever and whenever it is read."""

import dataclasses
import json
import pathlib
import types
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from ganjax.data.clips import TIMES, Clip, ClipTransform, Dense, Even, Sparse, read_clip
from ganjax.data.demo import ShapeVideos
from ganjax.data.files import Folder
from ganjax.data.pipeline import Stream, index_at
from ganjax.data.sources import make_transform, open_source, read_options
from ganjax.data.transforms import BrokenItem
from ganjax.data.videos import Videos
from tests.data.clips_on_disk import write_video
from tests.data.pictures import write_folder
from tests.data.pipeline_test import mesh_sharding
from tests.goldens.adapters.styleganv import sampler
from tests.processes import run

MEASURED = pathlib.Path(__file__).parent.parent / "goldens" / "styleganv" / "sampling.json"
COUNT = 20_000


def clips_of(times, length, count=COUNT, seed=0):
    uniform = np.random.default_rng(seed).random((count, times.draws))
    return times(uniform, length)


@pytest.mark.parametrize("experiment", json.loads(MEASURED.read_text())["experiments"])
def test_frequencies_are_those_of_the_released_code(experiment):
    """Measured on 200,000 of its clips: spans, the earliest and the latest frame."""
    found = clips_of(sampler(experiment), experiment["total_video_len"])
    spans, counts = np.unique((found[:, -1] - found[:, 0]).round(6), return_counts=True)
    wanted = {float(span): share for span, share in experiment["span_freq"].items()}
    np.testing.assert_allclose(spans, sorted(wanted), atol=1e-9)
    for span, count in zip(spans, counts):
        share = wanted[round(span)]
        error = np.sqrt(share * (1 - share) * (1 / COUNT + 1 / experiment["n"]))
        assert abs(count / COUNT - share) <= 5 * error, span
    assert (np.diff(found) > 0).all()
    latest = experiment["total_video_len"] - 1
    margin = 0.01 * latest if experiment["use_fractional_t"] else 0
    assert 0 <= found.min() <= margin and latest - margin <= found.max() <= latest


def test_frames_in_between_are_any_of_those_not_chosen():
    times = Sparse(4, dists=(5,))  # two of the four in between: six pairs, one place
    found = clips_of(times, 6)
    pairs, counts = np.unique(found[:, 1:3], axis=0, return_counts=True)
    assert pairs.tolist() == [[1, 2], [1, 3], [1, 4], [2, 3], [2, 4], [3, 4]]
    np.testing.assert_allclose(counts / COUNT, 1 / 6, atol=5 * np.sqrt(5 / 36 / COUNT))


def test_every_place_of_a_dense_clip_is_as_likely():
    found = clips_of(Dense(3, stride=2), 8)
    assert (np.diff(found) == 2).all()
    places, counts = np.unique(found[:, 0], return_counts=True)
    assert places.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(counts / COUNT, 1 / 4, atol=5 * np.sqrt(3 / 16 / COUNT))


SAMPLERS = [
    Dense(16),
    Dense(4, stride=3),
    Sparse(2),
    Sparse(3),
    Sparse(3, dists=None),
    Sparse(16, dists=tuple(range(1, 33))),
    Even(4),
    Even(4, max_dist=2),
]


@pytest.mark.parametrize("times", SAMPLERS, ids=str)
@pytest.mark.parametrize("fractional", [False, True])
def test_videos_from_the_shortest_on_give_clips_within_them(times, fractional):
    if isinstance(times, Dense):
        assert times.least == (times.frames - 1) * times.stride + 1
    else:
        times = dataclasses.replace(times, fractional=fractional)
    lengths = times.least + np.arange(40)
    for uniform in (np.zeros((40, times.draws)), np.full((40, times.draws), np.nextafter(1, 0))):
        found = times(uniform, lengths)
        assert found.shape == (40, times.frames) and (np.diff(found) > 0).all()
        assert (found >= 0).all() and (found <= lengths[:, None] - 1).all()


def test_a_jitted_step_chooses_the_same_times():
    times = Sparse(5, fractional=True)
    uniform = np.random.default_rng(0).random((50, 5), np.float32)
    lengths = np.arange(20, 70)
    with jax.enable_x64(False):
        found = jax.jit(times)(jnp.asarray(uniform), jnp.asarray(lengths))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, times(uniform, lengths), rtol=1e-6)
    largest, lengths = np.nextafter(np.float32(1), np.float32(0)), jnp.arange(1, 100_000)
    with jax.enable_x64(False):
        last = Dense(1)(jnp.full((len(lengths), 1), largest), lengths)
    assert (last[:, 0] < lengths).all(), "no product is rounded up"


def test_a_config_names_a_sampler():
    fields = {"times": "sparse", "frames": 2, "stride": 3, "max_frames": 64, "max_dist": 8}
    assert read_clip(ConfigDict(fields)) == Clip(Sparse(2, max_dist=8), 64)
    assert read_clip({**fields, "times": "dense"}) == Clip(Dense(2, stride=3), 64)
    assert read_clip({"times": "even"}) == Clip(Even(), None)
    assert set(TIMES) == {"dense", "sparse", "even"}


@pytest.mark.parametrize(
    "config, message",
    [
        ({"times": "spares"}, r"clip.times='spares': expected one of \['dense', 'sparse', 'even"),
        (
            {"times": "dense", "frame": 3},
            r"clip has no \['frame'\]; it has times, max_frames, rate, di",
        ),
        ({"times": "dense", "stride": 0}, "clip.stride=0: expected a number from 1 on"),
        ({"times": "sparse", "frames": 1}, "1 sparse frames at .* Set config.data.clip.frames"),
        ({"times": "sparse", "max_dist": 1}, "3 sparse frames at distances .* up to 1"),
        ({"times": "dense", "max_frames": 9}, "max_frames=9: its clips take 16 frames or more"),
    ],
)
def test_mistakes_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        read_clip(config)


@dataclasses.dataclass
class Given:
    """A video of any frames."""

    name: str
    length: int
    read: Callable
    rate: float = 25.0

    def __len__(self):
        return self.length


class Counted:
    """Videos of several lengths, frame i of video v being v and i; broken and short ones too."""

    name = "counted"
    classes = ("even", "odd")
    rate = 25.0

    def __init__(self, lengths=(3, 40, 7, 200, 12, 64, 33), broken=(4,)):
        self.lengths, self.broken, self.reads = lengths, broken, []

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        def read(frames):
            if index in self.broken:
                raise BrokenItem("torn")
            self.reads.append((index, frames.tolist()))
            return np.array([[[[index, frame, 9]] * 6] * 4 for frame in frames], np.uint8)

        video = Given(self.describe(index), self.lengths[index], read)
        return {"video": video, "label": np.int32(index % 2)}

    def describe(self, index):
        return f"video {index}"

    def fingerprint(self):
        return "counted"


def stream(source, clip=None, shape=(1, 1, 8), flip=False, size=(4, 6), **options):
    transform = ClipTransform(clip or Clip(Sparse(3)), size, flip=flip)
    return Stream(source, transform, shape=shape, seed=0, **options)


def test_an_item_is_a_clip_with_its_times():
    source = Counted(broken=())
    batch = jax.device_get(next(stream(source, threads=0)))
    shapes = {name: (value.shape[3:], value.dtype) for name, value in batch.items()}
    assert shapes == {
        "clip": ((3, 4, 6, 3), np.uint8),
        "times": ((3,), np.float32),
        "length": ((), np.int32),
        "label": ((), np.int32),
    }
    order = [index_at(0, position, 7) for position in range(8)]
    assert [index for index, _ in source.reads] == order, "each video as often as the others"
    assert batch["clip"][0, 0, :, 0, 0, 0, 0].tolist() == order
    assert batch["length"].ravel().tolist() == [source.lengths[index] for index in order]
    assert batch["label"].ravel().tolist() == [index % 2 for index in order]
    np.testing.assert_array_equal(batch["clip"][0, 0, :, :, 0, 0, 1], batch["times"][0, 0])


def test_a_long_video_is_cut_first():
    """Times count from the start of the part, as StyleGAN-V's data does."""
    clips = stream(Counted((100,), ()), Clip(Dense(5), max_frames=8), shape=(1, 1, 64), threads=0)
    batch = jax.device_get(next(clips))
    assert (batch["length"] == 8).all() and batch["times"].max() == 7 and batch["times"].min() == 0
    starts = batch["clip"][0, 0, :, 0, 0, 0, 1] - batch["times"][0, 0, :, 0]
    assert starts.min() < 10 and starts.max() > 80 and starts.max() <= 92


def test_frames_of_a_clip_are_mirrored_together_and_fitted_alike():
    class Halves(Counted):
        def __getitem__(self, index):
            frames = np.zeros((40, 8, 20, 3), np.uint8)
            frames[:, :, 10:] = 200  # bright at the right
            return {"video": Given("halves", 40, lambda chosen: frames[chosen]), "label": 0}

    plain = [
        jax.device_get(next(stream(Halves(), flip=flip, size=(2, 4), shape=(1, 1, 32), threads=0)))
        for flip in (False, True)
    ]
    bright = [batch["clip"][0, 0, ..., 0, -1, 0] > 100 for batch in plain]
    assert bright[0].all() and (bright[1] == bright[1][:, :1]).all()
    assert 5 < bright[1][:, 0].sum() < 27
    np.testing.assert_array_equal(plain[0]["times"], plain[1]["times"])


def test_short_and_broken_videos_are_named_and_replaced():
    source = Counted()
    clips = stream(source, Clip(Dense(8)), shape=(1, 1, 14), threads=0)
    chosen = np.asarray(next(clips)["clip"])[0, 0, :, 0, 0, 0, 0].tolist()
    replaced = {0: 1, 2: 3, 4: 5}
    order = [index_at(0, position, 7) for position in range(14)]
    assert chosen == [replaced.get(index, index) for index in order]
    assert clips.skipped == 3
    with pytest.raises(ValueError, match=r"3 broken items in 'counted': video \d.*max_broken"):
        next(stream(source, Clip(Dense(8)), shape=(1, 1, 14), threads=0, max_broken=2))
    with pytest.raises(ValueError, match=r"video 2: 7 frames, fewer than the 8 of the shortest"):
        next(stream(Counted((9, 9, 7)), Clip(Dense(8)), threads=0, max_broken=0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of several kinds and a folder of frames, two of six videos broken or short."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mp4", range(20, 140, 3), gop=9)
    write_video(folder / "b.webm", range(0, 250, 10), "libvpx-vp9")
    write_video(folder / "c.avi", range(60, 100), "mpeg4")
    write_video(folder / "short.mp4", [9])
    (folder / "torn.mp4").write_bytes(b"nothing")
    write_folder(folder, {f"d/{i:03d}.png": 5 * i for i in range(30)})
    return folder


def batches(folder, count, **options):
    clips = stream(Videos(Folder(folder)), flip=True, size=(16, 16), **options)
    return [jax.device_get(next(clips)) for _ in range(count)]


def assert_equal(found, wanted):
    for ours, theirs in zip(found, wanted, strict=True):
        assert set(ours) == set(theirs)
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], name)


def test_threads_devices_and_restarts_do_not_matter(folder):
    wanted = batches(folder, 3, threads=0)
    assert len({clip.tobytes() for batch in wanted for clip in batch["clip"][0, 0]}) > 20
    assert_equal(batches(folder, 3, threads=4), wanted)
    assert_equal(batches(folder, 2, threads=2, start_items=8), wanted[1:])
    assert_equal(batches(folder, 3, threads=2, sharding=mesh_sharding(8)), wanted)


@pytest.mark.slow
def test_two_processes_read_the_clips_of_one(folder, tmp_path):
    run(f"{__name__}:save_batches", str(folder), str(tmp_path), processes=2)
    for number, batch in enumerate(batches(folder, 2, threads=0)):
        for name, wanted in batch.items():
            parts = [np.load(tmp_path / f"{i}-{number}.npz") for i in range(2)]
            found = np.concatenate([part[name] for part in parts], axis=2)
            np.testing.assert_array_equal(found, wanted, name)


def save_batches(folder, out):
    """In each process: its rows of two batches."""
    sharding = mesh_sharding(jax.device_count())
    clips = stream(Videos(Folder(folder)), flip=True, size=(16, 16), sharding=sharding, threads=0)
    for number in range(2):
        shards = {
            name: sorted(value.addressable_shards, key=lambda shard: shard.index[2].start)
            for name, value in next(clips).items()
        }
        local = {
            name: np.concatenate([np.asarray(shard.data) for shard in parts], axis=2)
            for name, parts in shards.items()
        }
        np.savez(f"{out}/{jax.process_index()}-{number}.npz", **local)


def options(**fields):
    return types.SimpleNamespace(**({"clip": {"times": "dense", "frames": 4}} | fields))


def test_a_config_opens_videos(folder, tmp_path):
    shapes = open_source(options(source="shapes", resolution=24))
    assert isinstance(shapes, ShapeVideos) and shapes.resolution == (24, 24)
    config = options(source="folder", path=str(folder), resolution=(8, 12), channels=1)
    assert isinstance(open_source(config), Videos)
    item = make_transform(read_options(config))(open_source(config)[0], np.random.default_rng(0))
    assert item["clip"].shape == (4, 8, 12, 1)
    with pytest.raises(ValueError, match="source='digits' has no videos. Set it to one of .*shape"):
        open_source(options(source="digits"))
