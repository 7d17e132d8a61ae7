"""TensorFlow graphs, written here by the official protocol buffers, read without them."""

import io
import tarfile

import numpy as np
import pytest
from tensorboardX.proto import graph_pb2, types_pb2

from ganjax.interop.read import read_state
from ganjax.interop.tf_graph import read_graph

RNG = np.random.default_rng(0)
ARRAYS = {
    "conv/conv2d_params": RNG.normal(size=(3, 3, 2, 4)).astype(np.float32),
    "wide": RNG.normal(size=(5,)),
    "counts": np.array([1, -7, 2**31 - 1], np.int32),
    "long": np.array([[-(2**40), 3]]),
}
FIELDS = {
    np.dtype("f4"): (types_pb2.DT_FLOAT, "float_val"),
    np.dtype("f8"): (types_pb2.DT_DOUBLE, "double_val"),
    np.dtype("i4"): (types_pb2.DT_INT32, "int_val"),
    np.dtype("i8"): (types_pb2.DT_INT64, "int64_val"),
}


def constant(graph, name, array, block):
    node = graph.node.add(name=name, op="Const")
    kind, numbers = FIELDS[array.dtype]
    node.attr["dtype"].type = kind
    tensor = node.attr["value"].tensor
    tensor.dtype = kind
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if block:
        tensor.tensor_content = array.tobytes()
    else:
        getattr(tensor, numbers).extend(array.reshape(-1).tolist())
    return tensor


@pytest.mark.parametrize("block", [True, False])
def test_constants(tmp_path, block):
    graph = graph_pb2.GraphDef()
    graph.node.add(name="input", op="Placeholder")
    for name, array in ARRAYS.items():
        constant(graph, name, array, block)
    tensor = constant(graph, "filled", np.zeros((2, 3), np.float32), block)
    if not block:
        del tensor.float_val[1:]
        tensor.float_val[0] = 0.25
    text = graph.node.add(name="text", op="Const").attr["value"].tensor
    text.dtype = types_pb2.DT_STRING
    text.string_val.append(b"label")
    graph.node.add(name="sum", op="Add", input=["wide", "wide"])
    (tmp_path / "graph.pb").write_bytes(graph.SerializeToString())
    found = read_state(tmp_path / "graph.pb")
    assert set(found) == {*ARRAYS, "filled"}
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    np.testing.assert_array_equal(found["filled"], np.full((2, 3), 0 if block else 0.25))


@pytest.fixture
def graph(tmp_path):
    graph = graph_pb2.GraphDef()
    constant(graph, "w", ARRAYS["wide"], block=True)
    (tmp_path / "graph.pb").write_bytes(graph.SerializeToString())
    return tmp_path / "graph.pb"


def test_graph_in_an_archive(graph, tmp_path):
    with tarfile.open(tmp_path / "graph.tgz", "w:gz") as archive:
        for name in ("readme.txt", "graph.pb"):
            data = graph.read_bytes() if name.endswith("pb") else b"hello"
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    np.testing.assert_array_equal(read_state(tmp_path / "graph.tgz")["w"], ARRAYS["wide"])


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_damaged_graphs_are_errors(graph, share):
    whole = graph.read_bytes()
    graph.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"graph\.pb: not a readable TensorFlow graph"):
        read_graph(graph)


def test_other_files_are_errors(tmp_path):
    for name, content in {"a.pb": b"", "b.pb": b"\x0b\x0b", "c.tgz": b"no archive"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            read_graph(tmp_path / name)
