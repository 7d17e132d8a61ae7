import json
import pickle

import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from ganjax.data.records import INDEX, Records, pack, unpack
from ganjax.data.transforms import BrokenItem, Encoded
from tests.data.pictures import encoded, values

ITEMS = [Encoded(encoded(value), value % 2, f"{value}.png") for value in range(7)]


@pytest.fixture
def folder(tmp_path):
    """Seven records in two shards."""
    shards = []
    for number, items in enumerate((ITEMS[:4], ITEMS[4:])):
        file = tmp_path / f"{number}.array_record"
        writer = ArrayRecordWriter(str(file), "group_size:1,uncompressed")
        for item in items:
            writer.write(pack(item))
        writer.close()
        shards.append({"file": file.name, "items": len(items), "bytes": file.stat().st_size})
    index = {"format": 1, "classes": ["a", "b"], "fingerprint": "f", "shards": shards}
    (tmp_path / INDEX).write_text(json.dumps(index))
    return tmp_path


def change_index(folder, **changes):
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(index | changes))


def test_a_record_holds_any_bytes_and_names():
    item = Encoded(bytes(range(256)) + b"\n\n", 3, 'ü\n"\udcff')
    assert unpack(pack(item)) == item


def test_records_are_read_in_the_order_of_the_index(folder):
    source = Records(folder)
    assert len(source) == 7 and source.classes == ("a", "b") and source.fingerprint() == "f"
    assert values(source) == [(value, value % 2) for value in range(7)]
    assert source.describe(5) == "record 5, 5.png"


def test_a_pickled_source_reads_the_same(folder):
    source = Records(folder)
    source[0]
    assert values(pickle.loads(pickle.dumps(source))) == values(source)


def test_a_flipped_bit_is_a_broken_item(folder):
    file = folder / "0.array_record"
    data = bytearray(file.read_bytes())
    data[data.index(ITEMS[2].picture) + 50] ^= 1
    file.write_bytes(data)
    source = Records(folder)
    with pytest.raises(BrokenItem, match="Corrupted"):
        source[2]
    assert source.describe(2) == "record 2"
    assert [source[index]["image"][0, 0, 0] for index in (0, 1, 3, 4)] == [0, 1, 3, 4]


def test_half_a_shard_is_an_error(folder):
    file = folder / "1.array_record"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"1\.array_record has \d+ bytes; index.json says"):
        Records(folder)
    file.unlink()
    with pytest.raises(ValueError, match=r"1\.array_record is missing"):
        Records(folder)


def test_a_shard_that_goes_away_is_a_fault_of_the_storage(folder):
    source = Records(folder)
    (folder / "1.array_record").unlink()
    with pytest.raises(OSError, match="record 5: open.* failed: No such file"):
        source[5]


def test_no_index_is_an_error(folder):
    with pytest.raises(FileNotFoundError, match="nothing is not there"):
        Records(folder / "nothing")
    (folder / INDEX).unlink()
    with pytest.raises(FileNotFoundError, match="holds no index.json"):
        Records(folder)
    (folder / "unfinished.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="is not finished: run the command"):
        Records(folder)


def test_another_format_is_an_error(folder):
    change_index(folder, format=3)
    with pytest.raises(ValueError, match="of format 3; this version of ganjax reads formats 1"):
        Records(folder)
    (folder / INDEX).write_text("[]")
    with pytest.raises(ValueError, match="is no index of records"):
        Records(folder)
