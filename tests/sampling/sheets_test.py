import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ganjax.sampling import interpolation, sheets, truncation

KEY = jax.random.key(1)
CLASSES, DIM = 4, 6


def labelled_latents(z, labels):
    """A "picture" that shows what it was asked for: its latent, then its class weights."""
    if jnp.issubdtype(labels.dtype, jnp.integer):
        labels = jax.nn.one_hot(labels, CLASSES)
    return jnp.concatenate([z, labels], axis=1)[:, None, :, None]


def read(sheet):
    """(latents [rows, columns, d], class weights [rows, columns, classes]) of a sheet."""
    cells = sheet.images.reshape(sheet.rows, sheet.columns, DIM + CLASSES)
    return cells[..., :DIM], cells[..., DIM:]


@pytest.mark.parametrize("n", [1, 4, 5, 9])
def test_chunks_have_one_size_and_padding_never_shows(n):
    sizes = []

    def sample(z, labels):
        sizes.append((len(z), len(labels)))
        return labelled_latents(z, labels)

    z = np.arange(n * DIM, dtype=np.float32).reshape(n, DIM)
    labels = np.arange(n, dtype=np.int32) % CLASSES
    images = sheets.in_chunks(sample, z, labels, chunk=4)
    assert set(sizes) == {(4, 4)}
    np.testing.assert_array_equal(images[:, 0, :DIM, 0], z)
    np.testing.assert_array_equal(images[:, 0, DIM:, 0].argmax(axis=1), labels)


def test_a_chunk_of_nothing_is_refused():
    with pytest.raises(ValueError, match="chunk is 0"):
        sheets.in_chunks(labelled_latents, np.zeros((3, DIM)), np.zeros(3, np.int32), chunk=0)


@pytest.mark.parametrize("shared", [True, False])
def test_class_grid_has_one_class_a_column(shared):
    sheet = sheets.class_grid(
        labelled_latents, KEY, [2, 0, 3], 2, DIM, shared=shared, names="abcd", chunk=4
    )
    z, classes = read(sheet)
    assert sheet.column_titles == ("c", "a", "d")
    np.testing.assert_array_equal(classes.argmax(axis=-1), [[2, 0, 3]] * 2)
    assert len(np.unique(z[..., 0])) == (2 if shared else 6)
    assert (z[:, 0] == z[:, 1]).all() == shared


def test_truncation_sheet_squeezes_the_same_items_block_by_block():
    sheet = sheets.truncation_sheet(
        lambda threshold: labelled_latents, KEY, [1, 3], 2, DIM, chunk=8
    )
    z, classes = read(sheet)
    assert sheet.row_titles == ("2", "", "1.5", "", "1", "", "0.5", "", "0.04", "")
    assert sheet.column_titles == ("1", "3")
    assert (classes.argmax(axis=-1) == [1, 3]).all()
    blocks = z.reshape(5, 2, 2, DIM)
    for block, threshold in zip(blocks, sheets.PAPER_THRESHOLDS):
        assert np.abs(block).max() <= threshold
    assert (np.diff(np.abs(blocks), axis=0) < 0).all()
    assert (np.sign(blocks) == np.sign(blocks[0])).all()
    np.testing.assert_array_equal(
        blocks[4].reshape(4, DIM), truncation.latents(KEY, 0, 4, DIM, 0.04)
    )


def test_latent_interpolation_moves_z_and_keeps_the_class():
    sheet = sheets.latent_interpolation(labelled_latents, KEY, [3, 1], 5, DIM, names="abcd")
    z, classes = read(sheet)
    assert sheet.row_titles == ("d", "b")
    assert (classes.argmax(axis=-1) == [[3], [1]]).all()
    ends = truncation.latents(KEY, 0, 4, DIM)
    np.testing.assert_allclose(z[:, [0, -1]], ends.reshape(2, 2, DIM), atol=1e-6)
    np.testing.assert_allclose(
        z[:, 2], interpolation.spherical(ends[::2], ends[1::2], jnp.full(2, 0.5)), atol=1e-6
    )


def test_class_interpolation_moves_the_class_and_keeps_z():
    sheet = sheets.class_interpolation(
        labelled_latents, KEY, [(0, 2), (3, 1)], 3, DIM, CLASSES, names="abcd"
    )
    z, weights = read(sheet)
    assert sheet.row_titles == ("a to c", "d to b")
    assert (z == z[:, :1]).all() and (z[0, 0] != z[1, 0]).all()
    np.testing.assert_allclose(weights[0], [[1, 0, 0, 0], [0.5, 0, 0.5, 0], [0, 0, 1, 0]])
    np.testing.assert_allclose(weights[1], [[0, 0, 0, 1], [0, 0.5, 0, 0.5], [0, 1, 0, 0]])


def test_a_latent_cycle_turns_every_image_through_its_anchors_with_its_class():
    video = sheets.latent_cycle(
        labelled_latents, KEY, [2, 0], 2, DIM, frames=12, anchors=3, column_titles="ca"
    )
    frames = [read(video.sheet(i)) for i in range(13)]
    assert video.frames == 12 and video.sheet(5).column_titles == ("c", "a")
    anchors = truncation.latents(KEY, 0, 12, DIM).reshape(2, 2, 3, DIM)
    for k in range(3):
        np.testing.assert_allclose(frames[4 * k][0], anchors[:, :, k], atol=1e-5)
    np.testing.assert_allclose(frames[12][0], frames[0][0], atol=1e-6)
    assert all((labels.argmax(axis=-1) == [[2, 0]] * 2).all() for _, labels in frames)
    z = np.stack([z for z, _ in frames])
    assert (np.linalg.norm(np.diff(z, axis=0), axis=-1) > 0.01).all()  # never stands still
