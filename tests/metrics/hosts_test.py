import pathlib

import jax
import numpy as np
import pytest

from ganjax.metrics.cache import cached
from ganjax.metrics.frechet import Moments
from ganjax.metrics.hosts import all_agree, gather_rows, merge_moments, of_first, share
from tests import processes

ROWS = np.random.default_rng(0).standard_normal((7, 3))


def test_one_process_has_everything():
    assert share(5) == range(5)
    assert all_agree(True) and not all_agree(False)
    np.testing.assert_array_equal(gather_rows(ROWS), ROWS)
    np.testing.assert_array_equal(merge_moments(Moments.of(ROWS)).mean, Moments.of(ROWS).mean)
    with pytest.raises(ValueError, match="0 samples cannot be shared by 1 processes"):
        share(0)


@pytest.mark.slow
def test_two_processes_share(tmp_path):
    said = processes.run(f"{__name__}:one_of_two", str(tmp_path), processes=2, devices=1)
    moments = [out.splitlines()[-1] for out in said]
    assert moments[0] == moments[1]  # to the last digit


def one_of_two(folder):
    """In each of two processes."""
    process = jax.process_index()
    assert share(7) == (range(0, 3), range(3, 7))[process]
    with pytest.raises(ValueError, match="1 samples cannot be shared by 2"):
        share(1)
    own = ROWS[share(7).start : share(7).stop]
    assert gather_rows(own).dtype == np.float64
    np.testing.assert_array_equal(gather_rows(own), ROWS)
    np.testing.assert_array_equal(gather_rows(own > 0), ROWS > 0)
    first = of_first({"rows": ROWS + process, "number": process + 0.5})
    np.testing.assert_array_equal(first["rows"], ROWS)
    assert first["number"] == 0.5
    assert all_agree(True)
    assert not all_agree(process == 0) and not all_agree(process == 1)
    moments = merge_moments(Moments.of(own))
    np.testing.assert_allclose(moments.covariance(), np.cov(ROWS.T), rtol=1e-13)
    check_cache(pathlib.Path(folder) / f"disk{process}", process)
    print(moments.scatter.tolist())


def check_cache(disk, process):
    """Each process has a disk of its own; one loses the file, and both make it again."""
    made = []

    def build():
        made.append(1)
        return {"sum": gather_rows(np.array([process + 1.0])).sum(keepdims=True)}

    def read():
        return cached(disk, "source", {"name": "x"}, "weights", build)["sum"]

    read()
    assert read() == 3 and len(made) == 1
    if process:
        next(disk.iterdir()).unlink()
    assert read() == 3 and len(made) == 2
    assert read() == 3 and len(made) == 2
