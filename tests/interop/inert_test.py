"""What stands for the names of a pickle does its work, and cannot be changed."""

import io
import pickle

import pytest

from ganjax.interop.inert import DAMAGE, Constructor, Dict, Inert, Sealed, Unpickler

KNOWN = {("a", "pair"): Constructor(lambda *parts: parts), ("a", "Dict"): Constructor(Dict)}
PAIR = b"\x80\x02ca\npair\n"


def load(program):
    return Unpickler(io.BytesIO(program), KNOWN, "take another").load()


def test_known_names_are_called_and_others_refused():
    assert load(PAIR + b"(I1\nI2\ntR.") == (1, 2)
    with pytest.raises(ValueError, match=r"asks for os\.system, and nothing .* run; take another"):
        load(b"\x80\x02cos\nsystem\n.")


def test_a_dictionary_loses_attributes_and_stays_one():
    content = load(b"\x80\x02ca\nDict\n)R}(X\x05\x00\x00\x00itemsK\x01ub.")
    assert content == {} and list(content.items()) == []


def test_nothing_else_takes_a_state():
    for target in (PAIR, PAIR + b")R"):
        with pytest.raises((ValueError, *DAMAGE)):
            load(target + b"}(X\x05\x00\x00\x00_makeK\x01ub.")
    assert KNOWN["a", "pair"](1) == (1,)
    with pytest.raises(ValueError, match="sets the state of a Inert"):
        Inert().__setstate__({})

    class Named(metaclass=Sealed):
        pass

    with pytest.raises(ValueError, match="sets 'items' of a class"):
        Named.items = 1
    assert pickle.loads(pickle.dumps(Dict(a=1))) == {"a": 1}
