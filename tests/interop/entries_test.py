"""Arrays of ours as entries of a state dict, there and back, and what became of every name."""

import numpy as np
import pytest

from ganjax.interop.entries import Entry, collect, fill, plain, report_of

JOINED = Entry(
    ("params", "both"),
    ("first", "second"),
    (2,),
    lambda arrays: np.stack(arrays, axis=1),
    lambda array: [array[:, 0], array[:, 1]],
)
WANTED = (JOINED, plain(("params", "layer", "bias"), "layer.b", (3,)))
STATE = {"first": np.array([1.0, 2]), "second": np.array([3.0, 4]), "layer.b": np.arange(3.0)}


def test_there_and_back():
    filled, missing = fill(STATE, WANTED, "channels")
    assert not missing
    np.testing.assert_array_equal(filled[JOINED], [[1, 3], [2, 4]])
    variables = {"params": {"both": filled[JOINED], "layer": {"bias": filled[WANTED[1]]}}}
    back = collect(variables, WANTED)
    assert back.keys() == STATE.keys()
    for name, array in STATE.items():
        np.testing.assert_array_equal(back[name], array)
    assert collect({"params": {"both": filled[JOINED]}}, WANTED).keys() == {"first", "second"}


def test_what_is_missing_wrong_or_left_is_named():
    partial = {"first": STATE["first"], "layer.b": STATE["layer.b"], "extra": 0, "n.counter": 1}
    filled, missing = fill(partial, WANTED, "channels")
    assert missing == ["second"] and list(filled) == [WANTED[1]]
    report = report_of(
        {**partial, "filter": 2}, filled, missing, lambda name: "counter" in name, ["filter"]
    )
    assert report.matched == ("layer.b", "filter") and report.missing == ("second",)
    assert report.unexpected == ("extra", "first") and report.ignored == ("n.counter",)
    with pytest.raises(ValueError, match="layer.b has shape .2,., the module wants .3,."):
        fill({**STATE, "layer.b": np.zeros(2)}, WANTED, "channels")
