"""NVIDIA's snapshots are read as data; whatever else a pickle asks for is refused."""

import os
import pathlib
import pickle

import numpy as np
import pytest

from ganjax.interop.inert import Constructor
from ganjax.interop.nvidia_pickle import KNOWN, read_snapshot
from ganjax.interop.torch_pickle import KNOWN as TORCH
from ganjax.interop.torch_pickle import LEGACY_MAGIC, LEGACY_PROTOCOL

FIXTURE = pathlib.Path(__file__).parent / "data" / "ada_conditional.pkl"
ran = []


def run_me(*arguments):
    ran.append(arguments)
    return {}


# Programs for the unpickler, opcode by opcode.


def value(content, protocol=2):
    return pickle.dumps(content, protocol)[2:-1]  # without PROTO and STOP


def name(path):
    module, _, attribute = path.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def arguments(*parts):
    return b"(" + b"".join(parts) + b"t"


def call(path, *parts):
    return name(path) + arguments(*parts) + b"R"


def mapping(**items):
    return b"}(" + b"".join(value(key) + item for key, item in items.items()) + b"u"


def network(source="", **state):
    """A network as NVIDIA's `persistence.py` pickles it."""
    meta = mapping(
        type=value("class"),
        version=value(6),
        module_src=value(source),
        class_name=value("Generator"),
        state=mapping(**state),
    )
    return call("torch_utils.persistence._reconstruct_persistent_obj", meta)


def storage(numbers, content=None):
    """A storage as PyTorch pickles it: a file of its own."""
    persistent = value("storage") + name("torch.FloatStorage") + value("0") + value("cpu")
    persistent = arguments(persistent, value(len(numbers)), b"N") + b"Q"
    parts = [value(LEGACY_MAGIC), value(LEGACY_PROTOCOL), value({"little_endian": True})]
    parts += [content or persistent, value(["0"])]
    stream = b"".join(b"\x80\x02" + part + b"." for part in parts)
    stream += len(numbers).to_bytes(8, "little") + np.asarray(numbers, "<f4").tobytes()
    return call("torch.storage._load_from_bytes", value(stream, 3))


def tensor(numbers, shape, *, offset=0):
    strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    data = storage(numbers), value(offset), value(shape), value(strides), b"\x89", b"N"
    return call("torch._utils._rebuild_tensor_v2", *data)


def snapshot(path, body):
    """A file whose G_ema is this."""
    path.write_bytes(b"\x80\x03" + mapping(G_ema=body) + b".")
    return path


def test_a_snapshot_of_the_reference_code():
    found = read_snapshot(FIXTURE)
    assert list(found.networks) == ["G", "D", "G_ema", "augment_pipe"]
    assert found.data["path"] == "./data.zip" and found.data["use_labels"] is True
    g = found.networks["G_ema"]
    facts = [g.attributes[key] for key in ("z_dim", "c_dim", "w_dim", "img_resolution")]
    assert facts == [6, 3, 8, 16]
    assert g.attributes["_init_kwargs"]["synthesis_kwargs"]["channel_base"] == 64
    assert g.part("synthesis.b8.conv1").attributes["conv_clamp"] == 256
    assert g.part("mapping.fc0").attributes["weight_gain"] == pytest.approx(0.01 / 14**0.5)
    state = g.state()
    assert state["synthesis.b16.conv0.weight"].shape == (4, 8, 3, 3)
    assert state["mapping.w_avg"].std() > 0.1 and state["mapping.embed.bias"].dtype == np.float32
    # Frozen layers keep their weights as buffers.
    assert "b16.fromrgb.weight" in found.networks["D"].state()
    assert found.networks["augment_pipe"].state()["p"] == 0.25
    with pytest.raises(ValueError, match=r"no part 'synthesis\.input'"):
        g.part("synthesis.input")


def test_the_source_code_in_a_file_is_not_run(tmp_path):
    mark = tmp_path / "ran"
    source = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nclass Generator: pass\n"
    weight = tensor(range(6), (2, 3))
    body = network(source, _parameters=mapping(weight=weight), z_dim=value(4))
    g = read_snapshot(snapshot(tmp_path / "a.pkl", body)).networks["G_ema"]
    assert g.attributes == {"z_dim": 4} and not mark.exists()
    np.testing.assert_array_equal(g.state()["weight"], np.arange(6).reshape(2, 3))


def test_what_older_pythons_and_numpys_write(tmp_path):
    array = call(
        "numpy.core.multiarray._reconstruct", name("numpy.ndarray"), value((0,)), value(b"b", 3)
    )
    dtype = call("numpy.dtype", value("i8"), value(0), value(1))
    dtype += value((3, "<", None, None, None, -1, -1, 0)) + b"b"
    content = np.array([[1, 2], [3, 4]], np.int64)
    array += (
        arguments(value(1), value((2, 2)), dtype, b"\x88", value(content.T.tobytes(), 3)) + b"b"
    )
    half = call("numpy.dtype", value("f4"), value(0), value(1))
    encoded = call(
        "_codecs.encode", value(np.float32(0.5).tobytes().decode("latin1")), value("latin1")
    )
    body = network(
        size=array,
        gain=call("numpy.core.multiarray.scalar", half, encoded),
        names=call("builtins.set", value(["a"])),
        _non_persistent_buffers_set=call("__builtin__.set", value(["b"])),
        _buffers=mapping(a=tensor([1], ()), b=tensor([2], ()), c=b"N"),
        kwargs=name("dnnlib.util.EasyDict") + b")\x81" + b"(" + value("a") + value(1) + b"u",
    )
    g = read_snapshot(snapshot(tmp_path / "old.pkl", body)).networks["G_ema"]
    np.testing.assert_array_equal(g.attributes["size"].numbers, content)
    assert (g.attributes["gain"], g.attributes["names"]) == (0.5, {"a"})
    assert g.attributes["kwargs"] == {"a": 1}
    assert g.state() == {"a": 1}  # b is in no state dict


EVIL = {
    "os.system": (f"{os.system.__module__}.system", r"system"),
    "eval": ("builtins.eval", r"builtins\.eval"),
    "exec": ("builtins.exec", r"builtins\.exec"),
    "getattr": ("builtins.getattr", r"builtins\.getattr"),
    "import": ("importlib.import_module", r"importlib\.import_module"),
    "torch.load": ("torch.load", r"torch\.load"),
    "dotted": ("dnnlib.util.EasyDict.__init__", r"EasyDict\.__init__"),
    "run_me": (f"{__name__}.run_me", r"run_me"),
}
PLACES = {
    "root": lambda evil: evil,
    "state": lambda evil: network(z_dim=evil),
    "arguments": lambda evil: network(_init_kwargs=mapping(synthesis_kwargs=mapping(a=evil))),
    "part": lambda evil: network(_modules=mapping(mapping=network(a=evil))),
    "storage": lambda evil: network(a=storage([1], evil)),
    "meta": lambda evil: call("torch_utils.persistence._reconstruct_persistent_obj", evil),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", EVIL)
def test_malicious_pickles_do_not_run(tmp_path, monkeypatch, kind, place):
    monkeypatch.chdir(tmp_path)
    ran.clear()
    path, shown = EVIL[kind]
    file = snapshot(tmp_path / "evil.pkl", PLACES[place](call(path, value("echo > ran"))))
    with pytest.raises(ValueError, match=rf"evil\.pkl.*asks for .*{shown}.*nothing of it was run"):
        read_snapshot(file)
    assert not ran and not (tmp_path / "ran").exists()
    # The same file does run where nothing stops it.
    if place == "root" and kind == "run_me":
        pickle.loads(file.read_bytes())
        assert ran


def dtype(code):
    return call("numpy.dtype", value(code), value(0), value(1))


ODD = {
    "a network of a number": call("torch_utils.persistence._reconstruct_persistent_obj", value(5)),
    "a network of nothing": call("torch_utils.persistence._reconstruct_persistent_obj"),
    "a network without a state": call(
        "torch_utils.persistence._reconstruct_persistent_obj", value({"type": "class"})
    ),
    "a part that is a text": network(_modules=value({"mapping": "text"})),
    "a parameter that is a text": network(_parameters=value({"weight": "text"})),
    "a name that is a number": network(_parameters=b"}" + value(1) + tensor([1], ()) + b"s"),
    "a tensor of no storage": network(
        a=call("torch._utils._rebuild_tensor_v2", value("x"), value(0), value((2,)), value((1,)))
    ),
    "a tensor beyond its storage": network(a=tensor([1, 2], (2,), offset=7)),
    "a storage of garbage": network(a=call("torch.storage._load_from_bytes", value(b"x", 3))),
    "a storage of a text": network(a=call("torch.storage._load_from_bytes", value("x"))),
    "a storage that is none": network(a=storage([1], value("text"))),
    "objects in an array": network(a=dtype("O8")),
    "records in an array": network(a=dtype("V8")),
    "a class as a dtype": network(a=call("numpy.dtype", name("dnnlib.util.EasyDict"))),
    "a scalar of too few bytes": network(
        a=call("numpy.core.multiarray.scalar", dtype("f8"), value(b"abc", 3))
    ),
    "an array of too few bytes": network(
        a=call("numpy.core.multiarray._reconstruct")
        + arguments(value(1), value((9,)), dtype("f4"), b"\x89", value(b"", 3))
        + b"b"
    ),
    "an encoding that runs": network(a=call("_codecs.encode", value("x"), value("zlib_codec"))),
    "a dictionary of a number": network(a=name("dnnlib.util.EasyDict") + value(5) + b"\x85R"),
    "a tensor that is made of a class": network(
        a=name("torch._utils._rebuild_tensor_v2") + b")\x81"
    ),
    "an object of someone else": network(a=value("key") + b"Q"),
}


@pytest.mark.parametrize("kind", ODD)
def test_known_names_with_odd_arguments_are_errors(tmp_path, kind):
    with pytest.raises(ValueError, match=r"odd\.pkl: "):
        read_snapshot(snapshot(tmp_path / "odd.pkl", ODD[kind]))


STATES = {
    "attributes": value({"offset": 10**6, "_make": None}),
    "slots": value((None, {"_make": None, "__setstate__": None, "storage": None})),
}
TARGETS = {
    "a function": name("torch._utils._rebuild_tensor_v2"),
    "a network's constructor": name("torch_utils.persistence._reconstruct_persistent_obj"),
    "a storage type": name("torch._utils._rebuild_parameter"),
    "a class": name("dnnlib.util.EasyDict"),
    "an object": name("numpy.ndarray"),
    "a dictionary": name("dnnlib.util.EasyDict") + b")\x81",
    "a tensor": tensor([1, 2], (2,)),
    "a storage": storage([1, 2]),
    "a network": network(),
}


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("state", STATES)
def test_nothing_takes_a_state_that_no_such_file_sets(tmp_path, kind, state):
    before = {key: known._make for key, known in KNOWN.items() if isinstance(known, Constructor)}
    with pytest.raises(ValueError, match=r"state\.pkl: "):
        read_snapshot(
            snapshot(tmp_path / "state.pkl", network(a=TARGETS[kind] + STATES[state] + b"b"))
        )
    assert before == {key: KNOWN[key]._make for key in before}
    assert callable(TORCH["torch._utils", "_rebuild_parameter"])
    read_snapshot(FIXTURE)


def test_other_files_are_told_what_they_are(tmp_path):
    path = tmp_path / "old.pkl"
    path.write_bytes(b"\x80\x02" + name("dnnlib.tflib.network.Network") + b")\x81.")
    with pytest.raises(ValueError, match=r"old\.pkl.*TensorFlow releases.*legacy\.py.*--dest"):
        read_snapshot(path)
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match="holds a list; expected a dictionary with G, D and G_ema"):
        read_snapshot(path)
    for content in ({"model": 1}, {"G": 1}, {"G_ema": None}):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match="are no networks; expected G, D and G_ema"):
            read_snapshot(path)
    whole = FIXTURE.read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"old\.pkl: not a readable snapshot"):
            read_snapshot(path)


def test_modules_that_carry_no_source_code(tmp_path):
    def sequential(**state):
        return name("torch.nn.modules.container.Sequential") + b")\x81" + mapping(**state) + b"b"

    layer = network(_parameters=mapping(weight=tensor([1, 2], (2,))))
    whole = sequential(training=b"\x89", _modules=b"}" + value("0") + layer + b"s")
    path = tmp_path / "plain.pkl"
    g = read_snapshot(snapshot(path, network(_modules=mapping(conv=whole)))).networks["G_ema"]
    assert g.part("conv").name == "Sequential" and list(g.state()) == ["conv.0.weight"]
    itself = name("torch.nn.modules.container.Sequential") + b")\x81q\xfe"
    itself += mapping(training=b"\x89", _modules=mapping(a=b"h\xfe")) + b"b"
    for wrong in (sequential(), whole + mapping(training=b"\x88") + b"b", itself):
        with pytest.raises(ValueError, match=r"plain\.pkl: .*(lies in itself|no such file sets)"):
            read_snapshot(snapshot(path, network(_modules=mapping(conv=wrong))))
