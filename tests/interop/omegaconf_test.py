"""Configurations of OmegaConf are read as values; nothing of them runs."""

import io
import pathlib

import pytest

from ganjax.interop.inert import DAMAGE, Unpickler
from ganjax.interop.nvidia_pickle import read_snapshot
from ganjax.interop.omegaconf import KNOWN, Node, plain
from tests.interop.nvidia_pickle_test import (
    arguments,
    call,
    mapping,
    name,
    network,
    snapshot,
    value,
)

FIXTURE = pathlib.Path(__file__).parent / "data" / "styleganv.pkl"
DICT, LIST = "omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"


def load(program):
    return Unpickler(io.BytesIO(b"\x80\x03" + program + b"."), KNOWN, "take another").load()


def made(path, **state):
    """An object of a class, and its state."""
    return name(path) + b")\x81" + mapping(**state) + b"b"


def metadata():
    return made(
        "omegaconf.base.ContainerMetadata",
        ref_type=name("typing.Any"),
        object_type=name("builtins.dict"),
        resolver_cache=call("collections.defaultdict", name("builtins.dict")),
    )


def leaf(content):
    return made("omegaconf.nodes.AnyNode", _metadata=metadata(), _parent=b"N", _val=value(content))


def tree(**nodes):
    return made(DICT, _metadata=metadata(), _parent=b"N", _content=mapping(**nodes))


def test_a_configuration_of_the_library():
    found = read_snapshot(FIXTURE)
    options = plain(found.networks["D"].attributes["cfg"])
    # It refers to another branch of the tree, where one value refers to a third.
    assert options["sampling"]["total_dists"] == [1, 2, 4, 8, 16, 32, 64]
    assert (options["sampling"]["max_num_frames"], options["dummy_c"]) == (64, False)
    # Texts with a reference among others stay as they are.
    assert plain(found.data["cfg"])["path"] == "./${dataset.name}.zip"


def test_values_lists_and_references():
    row = made(LIST, _parent=b"N", _content=b"](" + leaf(1) + leaf("a") + b"e")
    assert plain(load(tree(a=row, b=leaf(None), c=leaf(0.5)))) == {
        "a": [1, "a"],
        "b": None,
        "c": 0.5,
    }
    node = load(tree(a=leaf("${b.c}"), b=tree(c=leaf(True)), d=leaf("${none}")))
    for inner in node.content.values():
        inner.parent = node
    assert plain(node) == {"a": True, "b": {"c": True}, "d": "${none}"}
    node.content["b"].content["c"].content = "${a}"
    node.content["b"].content["c"].parent = node.content["b"]
    with pytest.raises(ValueError, match="refers to itself"):
        plain(node)


ODD = {
    "a function": call("os.system", value("echo > ran")),
    "a class that is no value": name("builtins.eval"),
    "a node of arguments": name(DICT) + arguments(value(1)) + b"R",
    "a node of two states": tree(a=leaf(1)) + mapping() + b"b",
    "the state of a class": name(DICT) + mapping(_content=value({})) + b"b",
    "slots of a class": name(DICT) + arguments(b"N", mapping(content=value(1))) + b"b",
    "the state of a type": name("builtins.dict") + mapping(a=value(1)) + b"b",
    "a call of a type": name("builtins.dict") + b")R",
    "a list as a state": name(DICT) + b")\x81" + value([1]) + b"b",
    "a text as its place": made(DICT, _parent=value("up")),
}
ODD_VALUES = {
    "an object": made("omegaconf.nodes.AnyNode", _val=name("typing.Any")),
    "bytes": made("omegaconf.nodes.AnyNode", _val=value(b"a", 3)),
    "a tuple in a list": made(LIST, _content=value([(1, 2)])),
    "a name that is a node": made(DICT, _content=b"}" + leaf(1) + leaf(1) + b"s"),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_no_configuration_has_is_refused(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, *DAMAGE)):
        load(ODD[kind])
    # In a network the error names the file.
    with pytest.raises(ValueError, match=r"odd\.pkl: "):
        read_snapshot(snapshot(tmp_path / "odd.pkl", network(cfg=ODD[kind])))
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match="sets 'content' of a class"):
        Node.content = 1


@pytest.mark.parametrize("kind", ODD_VALUES)
def test_other_values_are_no_configuration(kind):
    with pytest.raises(ValueError, match="in a configuration"):
        plain(load(ODD_VALUES[kind]))


def test_trees_that_lie_in_themselves_end():
    node = load(tree(a=leaf("${b}")))
    node.content["a"].parent, node.parent = node, node.content["a"]
    with pytest.raises(ValueError, match="lies in itself"):
        plain(node)
    node.content["a"] = node
    with pytest.raises(ValueError, match="refers to itself"):
        plain(node)
    # As many paths as 2 to the power of 64, through 64 nodes.
    inner = load(leaf(1))
    for _ in range(64):
        outer = load(tree())
        outer.content = {"left": inner, "right": inner}
        inner = outer
    assert list(plain(inner)) == ["left", "right"]
