"""Names stand for whole protocols, and the table shows them all."""

import json

import pytest

from ganjax.metrics import protocols
from ganjax.metrics.measures import MEASURES
from ganjax.pretrained import clip, vgg16
from ganjax.pretrained.catalog import KINDS


def test_every_protocol_can_be_carried_out():
    assert len(protocols.BY_NAME) == len(protocols.TABLE)
    for protocol in protocols.TABLE:
        assert protocol.measure in MEASURES
        if protocol.probe and protocol.network == protocols.VGG:
            assert protocol.feature in vgg16.PAIRS
        elif protocol.caption is not None:
            assert protocol.feature in clip.PAIRS and "{}" in protocol.caption
        elif protocol.network not in protocols.NO_WEIGHTS:
            assert protocol.feature in KINDS[protocol.network].features, protocol.name
        assert protocol.fakes is None or protocol.fakes != 1
        assert protocol.fakes != 0 or protocol.reals != 0, protocol.name
        assert json.loads(json.dumps(protocol.record()))["name"] == protocol.name


def test_the_table_has_a_line_for_each():
    lines = protocols.table().splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(protocols.BY_NAME)
    assert "50000" in next(line for line in lines if line.startswith("fid50k_full"))


def test_names_are_found_once_and_typos_answered():
    found = protocols.find(["kid50k", "fid50k", "kid50k"])
    assert [protocol.name for protocol in found] == ["kid50k", "fid50k"]
    with pytest.raises(ValueError, match="no metric 'fid50'; did you mean 'fid50k'"):
        protocols.find(["fid50"])


def test_what_was_assumed_is_part_of_the_record():
    record = protocols.BY_NAME["fvd2048_16f_paper"].record()
    assert "10" in record["assumed"] and "half-pixel" in record["assumed"]
    assert record["clip"]["jpeg"] == 95 and record["repeats"] == 10
    assert protocols.BY_NAME["fid50k"].record()["assumed"] == ""
    assert "10 x 2048 of 16" in protocols.table() and "2048 of 16/8" in protocols.table()
