import io
import pickle
import subprocess
import sys

import numpy as np
import pytest

tfds = pytest.importorskip("tensorflow_datasets")

from ganjax.data.tfds import Tfds  # noqa: E402
from ganjax.data.transforms import BrokenItem  # noqa: E402
from tests.data.pictures import encoded, values  # noqa: E402


@pytest.fixture(scope="module")
def prepare(tmp_path_factory):
    """``prepare(features, examples, **options) -> folder``: a data set "made", written by TFDS."""

    def prepare(features, examples, file_format="array_record"):
        class Made(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.2.0")
            # Not to be found by its class: it is read from its files alone.
            __module__ = "made"

            def _info(self):
                features_dict = tfds.features.FeaturesDict(features)
                return tfds.core.DatasetInfo(builder=self, features=features_dict)

            def _split_generators(self, downloads):
                return {"train": enumerate(examples), "test": enumerate(examples[:1])}

            def _generate_examples(self):
                raise AssertionError

        tfds.core.registered._DATASET_REGISTRY.pop("made", None)
        folder = tmp_path_factory.mktemp("tfds")
        Made(data_dir=folder, file_format=file_format).download_and_prepare()
        tfds.core.registered._DATASET_REGISTRY.pop("made", None)
        return str(folder)

    return prepare


def example(value, label=0, data=None, **more):
    data = encoded(value, (6 + value, 5)) if data is None else data
    return {"image": io.BytesIO(data), "label": label} | more


FEATURES = {
    "image": tfds.features.Image(shape=(None, None, 1)),
    "label": tfds.features.ClassLabel(names=["even", "odd"]),
    "file_name": tfds.features.Text(),
}


@pytest.fixture(scope="module")
def folder(prepare):
    examples = [example(value, value % 2, file_name=f"{value}.png") for value in range(10)]
    examples.append(example(0, 0, b"no picture", file_name="broken.png"))
    return prepare(FEATURES, examples)


def test_reads_what_tfds_wrote(folder):
    source = Tfds("made", "train", folder)
    assert len(source) == 11 and source.classes == ("even", "odd")
    # TFDS shuffles as it writes.
    names = [source.describe(i) for i in range(11)]
    bad = names.index("broken.png")
    with pytest.raises(BrokenItem, match="broken.png"):
        source[bad]
    for index in set(range(11)) - {bad}:
        item, value = source[index], int(names[index].removesuffix(".png"))
        assert item["image"].shape == (5, 6 + value, 1) and item["image"].max() == value
        assert item["label"] == value % 2 and item["label"].dtype == "int32"


def test_splits_can_be_cut(folder):
    first, rest = (Tfds("made:1.2.0", cut, folder) for cut in ("train[:4]", "train[4:]"))
    assert (len(first), len(rest)) == (4, 7)
    assert first.fingerprint() != rest.fingerprint()
    whole = Tfds("made", "train", folder)
    assert rest.describe(0) == whole.describe(4)


def test_a_pickled_source_reads_the_same(folder):
    source = Tfds("made", "train[:3]", folder)
    assert [pickle.loads(pickle.dumps(source)).encoded(i) for i in range(3)] == [
        source.encoded(i) for i in range(3)
    ]


def test_without_labels_there_are_no_classes(prepare):
    features = {"image": FEATURES["image"]}
    folder = prepare(features, [{"image": io.BytesIO(encoded(3))}])
    source = Tfds("made", "train", folder)
    assert source.classes == () and values(source) == [(3, 0)]
    assert source.describe(0) == "item 0"


def test_a_label_that_is_no_class_is_left_out(prepare):
    features = {"image": FEATURES["image"], "label": tfds.features.Text()}
    source = Tfds("made", "train", prepare(features, [example(1, "many words")]))
    assert source.classes == () and values(source) == [(1, 0)]


def test_an_unknown_label_is_an_error(prepare):
    """The test split of imagenet2012 has them."""
    source = Tfds("made", "train", prepare(FEATURES, [example(1, -1, file_name="1")]))
    with pytest.raises(ValueError, match="no label. Set config.data.split") as error:
        source[0]
    assert not isinstance(error.value, BrokenItem)


def test_no_pictures_are_an_error(prepare):
    folder = prepare({"label": FEATURES["label"]}, [{"label": 0}])
    with pytest.raises(ValueError, match="has no feature 'image' of 8 or 16 bits; it has .*label"):
        Tfds("made", "train", folder)


def test_a_data_set_that_is_not_prepared_says_how(tmp_path):
    command = rf"tfds build mnist --file_format=array_record --data_dir={tmp_path}"
    with pytest.raises(FileNotFoundError, match=rf"mnist/\S+ is not there.*\n.*\n.*{command}"):
        Tfds("mnist", "train", str(tmp_path))


def test_another_file_format_says_how_to_prepare(prepare):
    folder = prepare(FEATURES, [example(1, 1, file_name="1")], "parquet")
    with pytest.raises(FileNotFoundError, match="is there in another file format. Prepare"):
        Tfds("made", "train", folder)


def test_an_unknown_name_or_split_is_an_error(folder):
    with pytest.raises(ValueError, match="knows no data set 'mde' .*Set config.data.name"):
        Tfds("mde", "train", folder)
    with pytest.raises(ValueError, match="no split 'dev' .*'test'.*Set config.data.split"):
        Tfds("made", "dev", folder)


def test_a_data_set_whose_own_code_wants_tensorflow_is_read_by_its_files(folder, monkeypatch):
    own = Tfds("made", "train", folder)

    def builder(name, data_dir):
        raise ModuleNotFoundError("No module named 'tensorflow'")

    monkeypatch.setattr(tfds, "builder", builder)
    source = Tfds("made", "train", folder)
    assert source.fingerprint() == own.fingerprint() and source.classes == own.classes
    assert source.encoded(3) == own.encoded(3)
    with pytest.raises(
        FileNotFoundError, match="mde is not there. Prepare it .*(.|\n)*tfds build mde"
    ):
        Tfds("mde", "train", folder)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match="pip install tensorflow-datasets(.|\n)*tfds build"):
        Tfds("mnist")


def test_reading_imports_no_tensorflow(folder):
    code = f"""
import sys
from ganjax.data.tfds import Tfds
source = Tfds("made", "train[:1]", {folder!r})
print(source.encoded(0).name, "tensorflow" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip().endswith(".png False")


def test_captions_are_one_or_several_texts(prepare):
    several = {"id": tfds.features.Scalar(np.int64), "text": tfds.features.Text()}
    coco = prepare(
        {"image": FEATURES["image"], "captions": tfds.features.Sequence(several)},
        [
            {"image": io.BytesIO(encoded(n)), "captions": [{"id": i, "text": t} for i, t in texts]}
            for n, texts in ((1, ((7, "a star "), (8, "one star"))), (2, ((9, " "),)))
        ],
    )
    source = Tfds("made", "train", coco, captions=True)
    found = {}
    for index in range(2):
        try:
            found[int(source[index]["image"].max())] = source[index]["caption"]
        except BrokenItem as error:
            assert "it has no caption" in str(error)
    assert found == {1: ("a star", "one star")}
    assert "caption" not in Tfds("made", "train", coco)[0]


def test_a_single_caption_is_enough(prepare):
    plain = prepare(
        {"image": FEATURES["image"], "caption": tfds.features.Text()},
        [{"image": io.BytesIO(encoded(3)), "caption": "a heart"}],
    )
    source = pickle.loads(pickle.dumps(Tfds("made", "train", plain, captions=True)))
    assert source[0]["caption"] == ("a heart",)
    with pytest.raises(ValueError, match="no feature 'captions' or 'caption'"):
        Tfds("made", "train", prepare(FEATURES, [example(1, file_name="a")]), captions=True)
