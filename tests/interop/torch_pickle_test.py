"""PyTorch checkpoints are read without PyTorch, and never run."""

import collections
import pathlib
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest

from ganjax.interop.torch_pickle import LEGACY_MAGIC, LEGACY_PROTOCOL, read_pth

DATA = pathlib.Path(__file__).parent / "data"
BASE = np.arange(24, dtype=np.float32).reshape(4, 6) / 8
STATE = {
    "float": BASE,
    "transposed": BASE.T,
    "part": BASE[1:3, ::2],
    "scalar": np.float64(0.5),
    "empty": np.zeros((0, 3), np.float32),
    "half": np.array([1.5, -2.0], np.float16),
    "bfloat": np.array([1.5, -2.0], ml_dtypes.bfloat16),
    "long": np.array([1, -(2**40)]),
    "bytes": np.array([0, 255], np.uint8),
    "bool": np.array([True, False]),
    "parameter": np.array([3.0, 4.0], np.float32),
}
ran = []


def run_me(*arguments):
    ran.append(arguments)
    return collections.OrderedDict()


class Evil:
    """Pickled as a call of a function of the attacker's choice."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def archive(path, content):
    """A zip checkpoint around any pickled content."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))
    return path


def tensor_pickle(offset, size, stride, elements=6):
    """The opcodes of one float tensor, whose numbers a file may lie about."""

    def integers(values):
        return b"(" + b"".join(b"I%d\n" % value for value in values) + b"t"

    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    )
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + b"I%d\ntQ" % elements
        + b"I%d\n" % offset
        + integers(size)
        + integers(stride)
        + b"\x89Nt"
        + b"R."
    )


def pickled(content):
    return pickle.dumps(content, protocol=2)[2:-1]  # without PROTO and STOP


@pytest.mark.parametrize("state", [{"offset": 10**6}, (None, {"shape": (9,), "__setstate__": 1})])
@pytest.mark.parametrize(
    "target",
    [
        tensor_pickle(0, (2,), (1,))[2:-1],
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ctorch\nFloatStorage\n",
        b"c__torch__.m\nM\n",
    ],
    ids=["tensor", "function", "storage type", "class"],
)
def test_nothing_takes_a_state_after_its_numbers_were_checked(tmp_path, target, state):
    path = tmp_path / "state.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", b"\x80\x02" + target + pickled(state) + b"b.")
        file.writestr("a/data/0", np.arange(6, dtype=np.float32).tobytes())
    with pytest.raises(ValueError, match=r"state\.pth: "):
        read_pth(path)
    assert read_pth(DATA / "zip.pth")["steps"] == 7


def tensor_file(path, *numbers, **more):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", tensor_pickle(*numbers, **more))
        file.writestr("a/data/0", np.arange(6, dtype=np.float32).tobytes())
    return path


@pytest.mark.parametrize("name", ["zip", "legacy"])
def test_files_of_pytorch(name):
    content = read_pth(DATA / f"{name}.pth")
    for key, wanted in STATE.items():
        assert content[key].dtype == wanted.dtype, key
        np.testing.assert_array_equal(content[key], wanted, err_msg=key)
    np.testing.assert_array_equal(content["linear"]["weight"], np.ones((3, 2)))
    assert content["steps"] == 7


def test_the_weights_of_a_scripted_module_are_its_state_dict():
    state = read_pth(DATA / "scripted.pt")
    assert sorted(state) == ["head", "inner.weight", "resolution"]
    assert state["head"].dtype == np.float16 and state["resolution"] == 224
    np.testing.assert_array_equal(state["head"], np.arange(4) / 4)
    np.testing.assert_array_equal(state["inner.weight"], np.arange(6).reshape(2, 3))


def test_a_scripted_object_that_contains_itself_is_an_error(tmp_path):
    loop = b"\x80\x02c__torch__.m\nM\n)\x81q\x01}(X\x04\x00\x00\x00selfh\x01ub."  # m.self = m
    with zipfile.ZipFile(tmp_path / "loop.pt", "w") as file:
        file.writestr("a/data.pkl", loop)
    with pytest.raises(ValueError, match="RecursionError"):
        read_pth(tmp_path / "loop.pt")


def test_a_pickled_module_is_refused_by_name():
    with pytest.raises(ValueError, match=r"module.pth.*torch\.nn\.modules\.linear\.Linear"):
        read_pth(DATA / "module.pth")


@pytest.mark.parametrize(
    "function, name",
    [(run_me, r"run_me"), (eval, r"builtins?__?\.eval"), (__import__("os").system, r"system")],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_malicious_pickles_do_not_run(tmp_path, function, name, legacy):
    ran.clear()
    path = tmp_path / "evil.pth"
    content = {"weight": Evil(function, "echo run")}
    if legacy:
        parts = (LEGACY_MAGIC, LEGACY_PROTOCOL, {"little_endian": True}, content, [])
        path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    else:
        archive(path, content)
    with pytest.raises(ValueError, match=f"evil.pth.*{name}.*nothing of it was run"):
        read_pth(path)
    assert not ran
    # The same file does run where nothing stops it.
    if function is run_me and not legacy:
        with zipfile.ZipFile(path) as file:
            pickle.loads(file.read("archive/data.pkl"))
        assert ran


def test_views_are_read_and_those_outside_of_their_storage_refused(tmp_path):
    path = tmp_path / "tensor.pth"
    np.testing.assert_array_equal(read_pth(tensor_file(path, 1, (2, 2), (2, 1))), [[1, 2], [3, 4]])
    for numbers in [
        (1, (2, 3), (3, 1)),
        (-1, (2,), (1,)),
        (5, (2,), (-1,)),
        (0, (10**9,), (0,)),
        (0, (2, 2), (1,)),
    ]:
        with pytest.raises(ValueError, match="does not fit its storage"):
            read_pth(tensor_file(path, *numbers))
    with pytest.raises(ValueError, match="cut off"):
        read_pth(tensor_file(path, 0, (2,), (1,), elements=60))


@pytest.mark.parametrize("name", ["zip", "legacy"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 0.99])
def test_truncated_files_are_errors(tmp_path, name, share):
    whole = (DATA / f"{name}.pth").read_bytes()
    path = tmp_path / "cut.pth"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"cut\.pth"):
        read_pth(path)


def test_other_files_are_errors(tmp_path):
    path = tmp_path / "notes.pth"
    path.write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"expected a file written by torch\.save"):
        read_pth(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme", "")
    with pytest.raises(ValueError, match=r"no PyTorch checkpoint"):
        read_pth(path)
