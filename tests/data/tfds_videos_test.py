"""Videos as TFDS keeps them, read where TensorFlow is not."""

import io
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest

tfds = pytest.importorskip("tensorflow_datasets")

from ganjax.data.sources import open_source  # noqa: E402
from ganjax.data.tfds_videos import TfdsVideos  # noqa: E402
from ganjax.data.transforms import BrokenItem  # noqa: E402
from tests.data.pictures import encoded  # noqa: E402

FEATURES = {
    # What tfds.features.Video is, which cannot be made without TensorFlow.
    "video": tfds.features.Sequence(tfds.features.Image(shape=(None, None, 1))),
    "label": tfds.features.ClassLabel(names=["still", "moving"]),
}


def write(folder, features, examples, config="one", version="1.2.0", file_format="array_record"):
    class Made(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "made"
        __module__ = "made"  # not to be looked for in this file
        VERSION = tfds.core.Version(version)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)]  # noqa: RUF012

        def _info(self):
            of = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=of)

        def _split_generators(self, downloads):
            return {"train": enumerate(examples)}

        def _generate_examples(self):
            raise AssertionError

    Made(data_dir=folder, config=config, file_format=file_format).download_and_prepare()
    described = folder / "made" / config / version / "features.json"
    text = described.read_text()
    described.write_text(text.replace("sequence_feature.Sequence", "video_feature.Video"))
    return str(folder)


def example(value, frames, **more):
    pictures = [encoded(10 * value + time, (6, 5)) for time in range(frames)]
    return {"video": [io.BytesIO(data) for data in pictures]} | more


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    examples = [example(value, 3 + value, label=value % 2) for value in range(6)]
    examples[4]["video"][2] = io.BytesIO(b"no picture")
    return write(tmp_path_factory.mktemp("tfds"), FEATURES, examples)


def test_reads_what_tfds_wrote(folder):
    source = TfdsVideos("made", "train", folder)
    assert len(source) == 6 and source.classes == ("still", "moving")
    lengths = set()
    for index in range(6):  # TFDS shuffles as it writes
        item = source[index]
        video, value = item["video"], len(item["video"]) - 3
        lengths.add(len(video))
        assert item["label"] == value % 2 and video.name == f"video {index}"
        if value == 4:
            with pytest.raises(BrokenItem, match=f"video {index}, frame 2: no picture"):
                video.read(np.array([0, 2]))
        frames = video.read(np.array([1, 0]))
        assert frames.shape == (2, 5, 6, 1)
        assert frames[:, 0, 0, 0].tolist() == [10 * value + 1, 10 * value]
    assert lengths == set(range(3, 9))
    data = {"source": "tfds", "name": "made", "path": folder, "clip": {"times": "dense"}}
    assert open_source(types.SimpleNamespace(**data)).fingerprint() == source.fingerprint()


def test_splits_can_be_cut_and_sources_pickled(folder):
    first, rest = (TfdsVideos("made/one:1.2.0", cut, folder) for cut in ("train[:4]", "train[4:]"))
    assert (len(first), len(rest)) == (4, 2) and first.fingerprint() != rest.fingerprint()
    again = pickle.loads(pickle.dumps(rest))
    np.testing.assert_array_equal(
        again[0]["video"].read(np.array([0])), rest[0]["video"].read(np.array([0]))
    )


def test_the_newest_version_and_the_only_config(tmp_path):
    features = {"video": FEATURES["video"]}
    for version, count in (("9.0.0", 1), ("10.0.0", 2)):
        write(tmp_path, features, [example(1, 2)] * count, version=version)
    source = TfdsVideos("made", "train", str(tmp_path))
    assert len(source) == 2 and source.classes == () and source[0]["label"] == 0
    write(tmp_path, features, [example(1, 2)] * 3, config="two")
    assert len(TfdsVideos("made/two", "train", str(tmp_path))) == 3
    with pytest.raises(ValueError, match=r"Set config.data.name to one of \['made/one', 'made/two"):
        TfdsVideos("made", "train", str(tmp_path))


def test_mistakes_are_named(folder, tmp_path):
    command = rf"tfds build ucf101 --file_format=array_record --data_dir={tmp_path}"
    with pytest.raises(FileNotFoundError, match=rf"ucf101 is not there.*\n.*\n.*{command}"):
        TfdsVideos("ucf101", "train", str(tmp_path))
    with pytest.raises(ValueError, match="no split 'dev' .*Set config.data.split"):
        TfdsVideos("made", "dev", folder)
    pictures = write(tmp_path / "a", {"label": FEATURES["label"]}, [{"label": 0}])
    with pytest.raises(ValueError, match=r"has no feature 'video'; it has \['label'\]"):
        TfdsVideos("made", "train", pictures)
    parquet = write(tmp_path / "b", FEATURES, [example(1, 2, label=0)], file_format="parquet")
    with pytest.raises(FileNotFoundError, match="is there in another file format. Prepare"):
        TfdsVideos("made", "train", parquet)
    unknown = write(tmp_path / "c", FEATURES, [example(1, 2, label=-1)])
    with pytest.raises(ValueError, match="no label. Set config.data.split"):
        TfdsVideos("made", "train", unknown)[0]


def test_reading_imports_no_tensorflow(folder):
    code = f"""
import sys
from ganjax.data.tfds_videos import TfdsVideos
source = TfdsVideos("made", "train[:1]", {folder!r})
print(len(source[0]["video"]), "tensorflow" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split()[-1] == "False"
