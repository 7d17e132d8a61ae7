import json
import subprocess
import sys

import pytest

from ganjax.data.records import INDEX, UNFINISHED, Records, pack
from ganjax.data.shards import Made, Shards
from ganjax.data.transforms import Encoded
from tests.data.pictures import encoded, values

COUNT, SHARD = 10, 4
ORIGIN = {"fingerprint": "f", "resolution": (5, 6)}


def made(index):
    if index in (3, 8, 9):
        return Made(f"{index}.png", fault="truncated")
    record = pack(Encoded(encoded(index), index % 2, f"{index}.png"))
    return Made(f"{index}.png", (record,), size=(5, 6 + index), channels=1)


def shards(out, **changes):
    options = {"origin": ORIGIN, "count": COUNT, "classes": ("a", "b"), "shard_items": SHARD}
    return Shards(out, **(options | changes))


def write(out, numbers=None):
    with shards(out) as writer:
        for number in writer.missing if numbers is None else numbers:
            writer.write(number, map(made, writer.items(number)))
        return writer.finish() if not writer.missing else None


def files(out):
    return {file.name: file.read_bytes() for file in out.iterdir()}


def test_what_is_written_is_read(tmp_path):
    index = write(tmp_path)
    source = Records(tmp_path)
    assert values(source) == [(i, i % 2) for i in (0, 1, 2, 4, 5, 6, 7)]
    assert source.classes == ("a", "b") and source.fingerprint() == index["fingerprint"]
    assert [shard["items"] for shard in index["shards"]] == [3, 4, 0]
    assert index["shards"][0]["broken"] == [("3.png", "truncated")]
    assert [shard["smallest_side"] for shard in index["shards"]] == [5, 5, None]
    assert set(files(tmp_path)) == {INDEX, *(f"part-0000{i}.array_record" for i in range(3))}


def test_goes_on_where_it_stopped(tmp_path):
    write(tmp_path / "whole")
    write(tmp_path / "out", numbers=[1])
    kept = (tmp_path / "out" / "part-00001.array_record").stat()
    with shards(tmp_path / "out") as writer:
        assert writer.missing == [0, 2] and writer.index is None
    write(tmp_path / "out")
    assert (tmp_path / "out" / "part-00001.array_record").stat() == kept
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_what_is_finished_is_not_begun_again(tmp_path):
    index = write(tmp_path)
    with shards(tmp_path) as writer:
        assert writer.index == json.loads(json.dumps(index)) and not writer.missing
    assert UNFINISHED not in files(tmp_path)


def test_a_stop_leaves_no_half_of_a_shard(tmp_path):
    def stopped():
        yield made(4)
        raise KeyboardInterrupt

    write(tmp_path, numbers=[0])
    before = files(tmp_path)
    with shards(tmp_path) as writer, pytest.raises(KeyboardInterrupt):
        writer.write(1, stopped())
    assert files(tmp_path) == before


def test_what_a_kill_leaves_is_cleared(tmp_path):
    write(tmp_path, numbers=[0, 1])
    (tmp_path / "part-00007.array_record.tmp").write_bytes(b"half")
    (tmp_path / "part-00001.array_record").write_bytes(b"cut by a crash of the machine")
    (tmp_path / "part-00002.array_record").write_bytes(b"renamed, but not noted")
    with shards(tmp_path) as writer:
        assert writer.missing == [1, 2]
    write(tmp_path)
    assert len(Records(tmp_path)) == 7 and not list(tmp_path.glob("*.tmp"))


def test_records_of_something_else_are_an_error(tmp_path):
    write(tmp_path, numbers=[0])
    origin = ORIGIN | {"resolution": (8, 8)}
    for finished in (False, True):
        with pytest.raises(
            ValueError, match=r"resolution: \[5, 6\] then, \[8, 8\] now\nGive --out"
        ):
            shards(tmp_path, origin=origin).__enter__()
        with pytest.raises(ValueError, match="shard_items: 4 then, 2 now"):
            shards(tmp_path, shard_items=2).__enter__()
        if not finished:
            write(tmp_path)


def test_fingerprint_is_of_the_content(tmp_path):
    first = write(tmp_path / "a")["fingerprint"]
    assert write(tmp_path / "b")["fingerprint"] == first
    with shards(tmp_path / "c") as writer:
        for number in writer.missing:
            writer.write(number, (made(i if i != 5 else 4) for i in writer.items(number)))
        assert writer.finish()["fingerprint"] != first


def test_nothing_but_broken_items_is_an_error(tmp_path):
    with shards(tmp_path, count=1) as writer:
        writer.write(0, [made(3)])
        with pytest.raises(ValueError, match="Every one of the 1 items is broken"):
            writer.finish()


def test_one_writer_at_a_time(tmp_path):
    with shards(tmp_path):
        with pytest.raises(ValueError, match="Another process is writing records"):
            shards(tmp_path).__enter__()
    with shards(tmp_path):
        pass


def test_an_out_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/out cannot be written \(.*Give --out another"):
        shards(tmp_path / "file" / "out").__enter__()


def test_a_full_disk_is_an_error_and_leaves_what_was_finished(tmp_path):
    """A limit on the size of files stands in for the disk."""
    code = f"""
import resource, signal
from tests.data.shards_test import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
out = __import__("pathlib").Path({str(tmp_path)!r})
write(out, [0])
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    write(out, [1])
except OSError as error:
    print("OSError:", error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "OSError: write() failed: File too large" in run.stdout
    assert not list(tmp_path.glob("*.tmp"))
    with shards(tmp_path) as writer:
        assert writer.missing == [1, 2]
