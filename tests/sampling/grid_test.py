import numpy as np
import pytest

from ganjax.sampling import grid


def pictures(n, size=(64, 64), channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *size, channels), np.uint8)


def test_images_lie_in_reading_order():
    images = pictures(6)
    drawn = grid.draw(images, 3)
    step = 64 + grid.GAP
    assert drawn.shape == (grid.GAP + 2 * step, grid.GAP + 3 * step, 3)
    for i, image in enumerate(images):
        y, x = grid.GAP + i // 3 * step, grid.GAP + i % 3 * step
        np.testing.assert_array_equal(drawn[y : y + 64, x : x + 64], image)


def test_a_last_row_may_be_short():
    drawn = grid.draw(pictures(4), 3)
    assert drawn.shape[0] == grid.GAP + 2 * (64 + grid.GAP)
    assert (drawn[-60:, -60:] == grid.PAPER).all()


@pytest.mark.parametrize(("height", "scale"), [(8, 8), (28, 3), (32, 2), (64, 1), (256, 1)])
def test_small_images_are_enlarged_and_stay_crisp(height, scale):
    images = pictures(1, (height, 10), channels=1)
    drawn = grid.draw(images, 1)
    inner = drawn[grid.GAP :, grid.GAP :][: height * scale, : 10 * scale]
    for y, x in ((0, 0), (height - 1, 9)):
        square = inner[y * scale : (y + 1) * scale, x * scale : (x + 1) * scale]
        assert (square == images[0, y, x, 0]).all()


def test_titles_take_room_beside_the_images_and_cover_none():
    images = pictures(4)
    plain = grid.draw(images, 2)
    titled = grid.draw(images, 2, column_titles=("a", "b"), row_titles=("0.5", ""))
    top, left = (titled.shape[i] - plain.shape[i] for i in (0, 1))
    assert top >= grid.TITLE and left > 0
    np.testing.assert_array_equal(titled[top + grid.GAP :, left + grid.GAP :], plain[2:, 2:])
    for column in range(2):
        start = left + grid.GAP + column * 66
        assert (titled[:top, start : start + 64] < 128).any()
    assert (titled[: top + 64, :left] < 128).any()  # the first row's title
    assert (titled[top + 66 :, :left] == 255).all()  # the second has none


def test_long_titles_stay_over_their_columns():
    titled = grid.draw(pictures(2), 2, column_titles=("Tibetan mastiff and many words", ""))
    assert (titled[: grid.TITLE + grid.GAP, grid.GAP + 64 :] == 255).all()


@pytest.mark.parametrize(
    ("images", "columns", "titles", "words"),
    [
        (pictures(0), 1, {}, "0 images in 1 columns"),
        (pictures(1), 0, {}, "1 images in 0 columns"),
        (pictures(1, channels=4), 1, {}, "4 channels"),
        (pictures(2), 2, {"column_titles": ("a",)}, "1 column titles for 2 columns"),
        (pictures(2), 2, {"row_titles": ("a", "b")}, "2 row titles for 1 rows"),
    ],
)
def test_wrong_arguments(images, columns, titles, words):
    with pytest.raises(ValueError, match=words):
        grid.draw(images, columns, **titles)
