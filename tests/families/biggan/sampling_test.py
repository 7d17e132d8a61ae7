import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.families.biggan.networks import Generator
from ganjax.families.biggan.sampling import Sampling
from ganjax.family import Request


def sheet(classes, names=()):
    """The grid of a generator that shows each latent as a pixel, and the labels it was given."""
    generator = Generator(resolution=32, channels=2, latent_dim=3, classes=classes, shared_dim=2)
    asked = []

    def sample(draws):
        asked.append(np.asarray(draws["label"]))
        return draws["z"][:, None, None, :]

    sampling = Sampling(generator, standing_batch=4, standing=0)
    grid = sampling.sheets()["grid"](
        lambda truncation: sample, jax.random.key(0), Request(names=names, rows=3)
    )
    return grid, np.concatenate(asked)


def test_grid_shows_a_class_in_each_column():
    grid, labels = sheet(4, ("a", "b", "c", "d"))
    assert (grid.columns, grid.rows) == (4, 3) and grid.column_titles == ("a", "b", "c", "d")
    assert labels[:12].tolist() == [0, 1, 2, 3] * 3


@pytest.mark.parametrize("names", [(), ("all",)])
def test_grid_of_data_without_classes_is_as_wide_as_others(names):
    grid, labels = sheet(1, names)
    assert (grid.columns, grid.rows) == (10, 3) and not any(grid.column_titles)
    assert not labels.any()
    assert len(jnp.unique(jnp.asarray(grid.images), axis=0)) == 30, "each one another sample"


def test_each_threshold_has_a_sampler_of_its_own():
    generator = Generator(resolution=32, channels=2, latent_dim=3, classes=2, shared_dim=2)
    sampling = Sampling(generator, standing_batch=4, standing=0)

    def bind(truncation):
        return lambda draws: jnp.full((len(draws["z"]), 1, 1, 1), truncation)

    sheet = sampling.sheets()["truncation"](bind, jax.random.key(0), Request(rows=1))
    assert sheet.images.reshape(5, 2).tolist() == [
        [np.float32(t)] * 2 for t in (2.0, 1.5, 1.0, 0.5, 0.04)
    ]
