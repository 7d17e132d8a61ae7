"""Where weight files are found, how they are fetched, and that their hashes stay the same."""

import hashlib
import json

import pytest

from ganjax.pretrained import weights
from ganjax.pretrained.weights import File, find


def sha(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache, empty; the internet is a folder; networks "one" and "two"."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GANJAX_WEIGHTS", raising=False)
    monkeypatch.delenv("GANJAX_OFFLINE", raising=False)
    net = tmp_path / "net"
    net.mkdir()
    for name in ("a.pth", "b.npz", "c.npz"):
        (net / name).write_bytes(name.encode())
    url = net.as_uri()
    sources = {
        "one": (
            (File("a.pth", f"{url}/a.pth", sha(b"a.pth")[:8]),),
            (File("other.pth", f"{url}/other.pth"),),
        ),
        "two": ((File("b.npz", f"{url}/b.npz"), File("c.npz", f"{url}/c.npz")),),
        "manual": ((File("d.pth", "https://example.org/page", by_hand=True),),),
    }
    monkeypatch.setattr(weights, "SOURCES", sources)
    return tmp_path / "cache" / "ganjax" / "weights"


def test_files_are_downloaded_once(cache, tmp_path, capsys):
    found = find("two")
    assert found.paths == (cache / "b.npz", cache / "c.npz")
    assert found.sha256 == (sha(b"b.npz"), sha(b"c.npz"))
    assert "b.npz" in capsys.readouterr().err  # the bar
    (tmp_path / "net" / "b.npz").unlink()
    assert find("two") == found
    assert sorted(file.name for file in cache.iterdir()) == ["b.npz", "c.npz", weights.RECORD]


def test_offline_says_which_file_from_where_to_where(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("GANJAX_OFFLINE", "1")
    monkeypatch.setenv("GANJAX_WEIGHTS", str(tmp_path / "mine"))
    with pytest.raises(ValueError) as error:
        find("two")
    text = str(error.value)
    for part in ("b.npz from file://", "c.npz from file://", str(tmp_path / "mine"), str(cache)):
        assert part in text
    assert "$GANJAX_WEIGHTS" in text and not cache.exists()
    (tmp_path / "mine").mkdir()
    for name in ("b.npz", "c.npz"):
        (tmp_path / "mine" / name).write_bytes(b"x")
    assert find("two").paths[0] == tmp_path / "mine" / "b.npz"


def test_no_connection_and_pages_for_people(cache, tmp_path):
    (tmp_path / "net" / "c.npz").unlink()
    with pytest.raises(
        ValueError, match=r"c.npz could not be downloaded .*\nwanted for two: b.npz"
    ):
        find("two")
    with pytest.raises(ValueError, match=r"d.pth must be fetched by hand\n.*https://example.org"):
        find("manual")


def test_a_download_of_another_hash_is_not_kept(cache, tmp_path):
    (tmp_path / "net" / "a.pth").write_bytes(b"tampered")
    with pytest.raises(
        ValueError, match=rf"{sha(b'tampered')}.*publisher states.*nothing was kept"
    ):
        find("one")
    assert list(cache.iterdir()) == []


def test_a_stated_hash_is_checked_wherever_the_file_lies(cache, tmp_path):
    (tmp_path / "a.pth").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="publisher states"):
        find("one", tmp_path / "a.pth")
    # Another name: a file of the user's own, of which nothing is stated.
    (tmp_path / "b.pth").write_bytes(b"damaged")
    assert find("one", tmp_path / "b.pth").sha256 == (sha(b"damaged"),)


def test_a_file_that_changes_is_an_error_until_its_line_is_removed(cache, tmp_path):
    path = tmp_path / "mine.pth"
    path.write_bytes(b"first")
    find("one", path)
    find("one", path)
    path.write_bytes(b"second")
    with pytest.raises(ValueError, match="at its first use it had") as error:
        find("one", path)
    assert sha(b"first") in str(error.value) and weights.RECORD in str(error.value)
    record = cache / weights.RECORD
    known = json.loads(record.read_text())
    del known[str(path)]
    record.write_text(json.dumps(known))
    assert find("one", path).sha256 == (sha(b"second"),)
    record.write_text("{")
    with pytest.raises(ValueError, match="known-hashes.json is damaged"):
        find("one", path)


def test_given_paths(cache, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ValueError, match="folder holds no weights of two"):
        find("two", folder)
    (folder / "b.npz").write_bytes(b"b")
    with pytest.raises(ValueError, match="c.npz must lie beside"):
        find("two", folder / "b.npz")
    (folder / "c.npz").write_bytes(b"c")
    assert find("two", folder / "c.npz").paths == (folder / "b.npz", folder / "c.npz")
    assert find("two", folder) == find("two", folder / "b.npz")
    (folder / "two.safetensors").write_bytes(b"converted")
    assert find("two", folder).paths == (folder / "two.safetensors",)
    with pytest.raises(ValueError, match="absent.npz does not exist\nwanted for two"):
        find("two", folder / "absent.npz")
    (folder / "other.pth").write_bytes(b"alternative")
    assert find("one", folder).paths == (folder / "other.pth",)


def test_a_cache_that_cannot_be_written_is_no_error(cache, tmp_path, caplog):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where a folder should be")
    (tmp_path / "mine.pth").write_bytes(b"x")
    assert find("one", tmp_path / "mine.pth").sha256 == (sha(b"x"),)


def test_the_table_shows_every_file():
    text = weights.table()
    for network, sources in weights.SOURCES.items():
        assert network in text
        for file in (file for source in sources for file in source):
            assert file.name in text and file.url in text
            assert len(file.sha256) in (0, 8, 64) and file.url.startswith("http")


def test_unknown_networks_are_named(cache):
    with pytest.raises(ValueError, match="no network 'three'; known are one, two"):
        find("three")
