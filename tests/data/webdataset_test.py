import io
import json
import pickle
import tarfile
import warnings

import numpy as np
import pytest

from ganjax import config as configs
from ganjax.data import webdataset
from ganjax.data.files import Folder
from ganjax.data.prepare import main
from ganjax.data.records import Records
from ganjax.data.sources import make_transform, open_source, read_options
from ganjax.data.transforms import BrokenItem
from ganjax.data.webdataset import WebDataset
from tests.data.pictures import encoded, write_folder
from tests.data.sources_test import data


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ganjax" / "webdataset"


def write_tar(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def samples(numbers, **fields):
    """As img2dataset writes them; `fields` go into the JSON, called with the number."""
    files = {}
    for number in numbers:
        known = {"caption": "x", "key": f"{number:09d}", "width": 64, "original_width": 80 + number}
        known |= {name: value(number) for name, value in fields.items()}
        files[f"{number:09d}.jpg"] = encoded(number, (8, 6))  # Pillow looks at the content
        files[f"{number:09d}.txt"] = f"picture {number}\n".encode()
        files[f"{number:09d}.json"] = json.dumps(known).encode()
    return files


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "laion"
    score = dict(similarity=lambda n: n / 10, nothing=lambda n: None)
    write_tar(folder / "00000.tar", samples(range(4), **score))
    write_tar(folder / "00001.tar", samples(range(4, 7), **score))
    (folder / "00000_stats.json").write_text("{}")
    return folder


def test_any_sample_of_any_tar_can_be_read(shards):
    source = WebDataset(shards)
    assert len(source) == 7
    for index in (6, 0, 3, 4):
        item = source[index]
        assert item["image"].max() == index and item["image"].shape == (6, 8, 1)
        assert item["caption"] == f"picture {index}" and item["label"] == 0
    assert source.describe(5) == "00001.tar/000000005"
    assert len(WebDataset(shards / "00001.tar")) == 3
    copy = pickle.loads(pickle.dumps(source))
    assert copy.fingerprint() == source.fingerprint() != WebDataset(shards, ["width>1"]).name


def test_tars_are_looked_through_once_and_again_when_they_change(shards, cache, monkeypatch):
    looked = []
    whole = webdataset.look_through
    monkeypatch.setattr(webdataset, "look_through", lambda tar: looked.append(tar) or whole(tar))
    first = WebDataset(shards)
    assert len(looked) == 2 == len(list(cache.iterdir()))
    assert WebDataset(shards).content() == first.content() and len(looked) == 2
    write_tar(shards / "00001.tar", samples(range(4, 6)))
    changed = WebDataset(shards)
    assert looked[2:] == [shards / "00001.tar"] and len(changed) == 6
    assert changed.fingerprint() != first.fingerprint() and changed.content() != first.content()
    for file in cache.iterdir():
        file.write_bytes(file.read_bytes()[:99])
    assert WebDataset(shards).fingerprint() == changed.fingerprint() and len(looked) == 5


@pytest.mark.parametrize(
    "filters, kept",
    [
        (["similarity>=0.3"], [3, 4, 5, 6]),
        (["similarity >= .3", "original_width<85"], [3, 4]),
        (["similarity==0.5"], [5]),
        (["similarity!=0.5", "similarity>0.4"], [6]),
        (["similarity<=1e-1"], [0, 1]),
    ],
)
def test_filters_say_how_many_pass(filters, kept, shards):
    source = WebDataset(shards, filters)
    assert [int(source[i]["image"].max()) for i in range(len(source))] == kept
    assert f"{len(kept)} of 7 pairs pass {filters[0]}" in source.name


@pytest.mark.parametrize(
    "filters, said",
    [
        (["AESTHETIC_SCORE>5"], r"has a number 'AESTHETIC_SCORE'.* have original_width, simil"),
        (["nothing>5"], "has a number 'nothing'"),
        (["similarity=5"], "has 'similarity=5'; expected"),
        (["similarity>=high"], "has 'similarity>=high'; expected"),
        (["similarity>9"], "none of 7 pairs passes similarity>9"),
    ],
)
def test_a_filter_that_cannot_be_is_an_error(filters, said, shards):
    with pytest.raises(ValueError, match=said):
        WebDataset(shards, filters)


def test_a_sample_without_the_number_does_not_pass(tmp_path):
    files = samples(range(3), score=lambda n: float(n)) | {"000000001.json": b"{}"}
    source = WebDataset(write_tar(tmp_path / "0.tar", files), ["score>=0"])
    assert [source[i]["caption"] for i in range(2)] == ["picture 0", "picture 2"]


def test_broken_members_are_named_and_skipped(tmp_path):
    files = samples(range(5))
    del files["000000001.txt"], files["000000002.jpg"]
    files["000000003.json"] = b"{"
    tar = write_tar(tmp_path / "laion" / "0.tar", files)
    for _ in range(2):  # looked through, and from the cache
        with pytest.warns(UserWarning) as said:
            source = WebDataset(tar.parent)
        (message,) = [str(each.message) for each in said]
        assert "0.tar/000000001 has no text" in message
        assert "0.tar/000000002 has no picture" in message and "000000003.json, whose" in message
        assert [source[i]["caption"] for i in range(3)] == ["picture 0", "picture 3", "picture 4"]


def test_a_tar_that_was_cut_off_keeps_what_is_whole(tmp_path):
    tar = write_tar(tmp_path / "0.tar", samples(range(5)))
    with tarfile.open(tar) as archive:
        member = archive.getmember("000000003.jpg")
    tar.write_bytes(tar.read_bytes()[: member.offset_data + 10])
    with pytest.warns(UserWarning, match="0.tar is cut off"):
        source = WebDataset(tar)
    assert [source[i]["caption"] for i in range(len(source))] == [f"picture {i}" for i in range(3)]


def test_texts_and_pictures_that_cannot_be_read_are_broken(tmp_path):
    files = samples(range(4))
    files |= {"000000000.txt": b"\xff\xfe", "000000001.txt": b" \n", "000000002.jpg": b"no"}
    source = WebDataset(write_tar(tmp_path / "0.tar", files))
    for index, said in enumerate(("not UTF-8", "is empty", "no picture of a kind")):
        with pytest.raises(BrokenItem, match=f"0.tar/00000000{index}.*{said}"):
            source[index]
    (tmp_path / "0.tar").write_bytes(b"")
    with pytest.raises(OSError, match="ends before 0.tar/000000003"):
        source[3]


def test_what_is_no_webdataset_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not there"):
        WebDataset(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no tar files"):
        WebDataset(tmp_path)
    (tmp_path / "a.tar").write_bytes(b"x" * 3000)
    with pytest.raises(ValueError, match="a.tar is no tar"):
        WebDataset(tmp_path)
    with tarfile.open(tmp_path / "a.tar", "w:gz"):
        pass
    with pytest.raises(ValueError, match="or a compressed one"):
        WebDataset(tmp_path)
    write_tar(tmp_path / "a.tar", {"a.txt": b"x"})
    with pytest.raises(ValueError, match="none of 1 tars has a picture with a text"):
        with pytest.warns(UserWarning, match="a.tar/a has no picture"):
            WebDataset(tmp_path)


def test_a_file_beside_tars_that_is_none_is_named_and_skipped(shards):
    (shards / "00002.tar").write_bytes(b"x" * 3000)
    (shards / "00003.tar").touch()
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"00002.tar is no tar.*00003.tar is no tar"):
            source = WebDataset(shards, ["similarity>=0.3"])
        assert len(source) == 4


def test_a_tar_without_the_number_has_nothing_that_passes(shards):
    write_tar(shards / "00002.tar", samples([8, 9]))
    source = WebDataset(shards, ["similarity>=0.3"])
    assert len(source) == 4 and "4 of 9 pairs" in source.name


def test_folders_inside_tell_samples_apart(tmp_path):
    files = {f"{folder}/1.{end}": content for folder, n in (("a", 1), ("b", 2))
             for end, content in (("PNG", encoded(n)), ("txt", folder.encode()))}  # fmt: skip
    source = WebDataset(write_tar(tmp_path / "0.tar", files))
    assert [(source[i]["caption"], int(source[i]["image"].max())) for i in range(2)] == [
        ("a", 1),
        ("b", 2),
    ]


def test_a_config_opens_it(shards):
    fields = dict(source="webdataset", path=str(shards), resolution=4, channels=1)
    filtered = open_source(data(**fields, filters=("similarity>=0.5",)))
    assert len(filtered) == 2
    transform = make_transform(read_options(data(**fields)))
    item = transform(filtered[0], np.random.default_rng(0))
    assert set(item) == {"image", "label"} and item["image"].shape == (4, 4, 1)
    with pytest.raises(ValueError, match="needs a place"):
        open_source(data(source="webdataset"))
    with pytest.raises(ValueError, match="and not of 'folder'"):
        open_source(data(source="folder", path=str(shards), filters=("a>1",)))


def test_a_run_filters_by_the_command_line(shards):
    """The fields that texts have are those of the config, whatever its preset."""
    for preset in ("shapes", "laion64"):
        config = configs.load(f"configs/aurora.py:{preset}")
        overrides = {"data.source": "webdataset", "data.path": str(shards)}
        overrides |= {"data.filters": "('similarity>=0.5',)", "data.embedded": "false"}
        assert len(open_source(configs.override(config, overrides).data)) == 2
        with pytest.raises(ValueError, match="embedded=True takes texts that"):
            open_source(configs.override(config, overrides | {"data.embedded": "true"}).data)


def test_captions_are_prepared_and_trained_on(shards, tmp_path, capsys):
    """The words are those that the small vocabulary knows."""
    for tar, numbers in (("00000.tar", range(4)), ("00001.tar", range(4, 7))):
        files = samples(numbers, similarity=lambda n: n / 10)
        for number in numbers:
            files[f"{number:09d}.txt"] = b"a red circle"
        if 2 in numbers:
            files["000000002.txt"] = b" "
        write_tar(shards / tar, files)
    out = tmp_path / "records"
    arguments = ["--captions", "--source=webdataset", f"--path={shards}", f"--out={out}"]
    arguments += ["--resolution=4", "--workers=0", "--filters", "similarity>=0.2"]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "4 pictures" in said.out and "--config.data.text=clip-vit-l-14" in said.out
    assert "00000.tar/000000002: its text is empty" in said.err
    fields = dict(source="records", path=str(out), resolution=4, channels=1)
    source = open_source(data(**fields, text="clip-shapes"))
    assert isinstance(source, Records) and len(source) == 4
    assert {source[i]["caption"] for i in range(4)} == {"a red circle"}
    transform = make_transform(read_options(data(**fields, text="clip-shapes")))
    assert transform(source[0], np.random.default_rng(0))["tokens"].shape == (20,)


def test_records_without_captions_are_an_error(tmp_path):
    path = write_folder(tmp_path / "pictures", {"1.png": 1, "2.png": 2})
    (path / "1.txt").write_text("a red circle")
    (path / "2.txt").write_text("a blue star")
    start = ["--source=folder", f"--path={path}", "--workers=0"]
    assert main([*start, f"--out={tmp_path / 'bare'}"]) == 0
    with pytest.raises(ValueError, match="bare holds no captions.*with --captions"):
        open_source(data(source="records", path=str(tmp_path / "bare"), text="clip-shapes"))
    assert main([*start, f"--out={tmp_path / 'with'}", "--captions"]) == 0
    source = open_source(data(source="records", path=str(tmp_path / "with"), text="clip-shapes"))
    assert [source[i]["caption"] for i in range(2)] == ["a red circle", "a blue star"]
    bare = Records(tmp_path / "bare")
    assert "caption" not in bare[0] and len(Folder(path).names()) == 4


def test_warnings_are_of_broken_members_alone(shards):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        WebDataset(shards)
