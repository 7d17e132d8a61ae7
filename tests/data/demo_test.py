import numpy as np
import pytest

from ganjax.data.demo import SHAPES, Digits, Shapes, ShapeVideos, WarpedDigits, render


@pytest.fixture(scope="module")
def digits():
    return Digits((32, 32))


def test_digits_are_the_1797_of_scikit_learn(digits):
    from sklearn.datasets import load_digits

    assert len(digits) == 1797
    assert digits.classes == tuple("0123456789")
    labels = [int(digits[i]["label"]) for i in range(len(digits))]
    np.testing.assert_array_equal(labels, load_digits().target)


def test_digits_still_show_their_originals(digits):
    from sklearn.datasets import load_digits

    originals = load_digits().images.reshape(1797, -1)
    images = np.stack([digits[i]["image"] for i in range(1797)])[..., 0].astype(float)
    # The middle 26 of 32 pixels hold the 8x8 grid; average it back.
    inner = images[:, 3:29, 3:29]
    back = np.add.reduceat(inner, np.linspace(0, 26, 9)[:-1].round().astype(int), axis=1)
    back = np.add.reduceat(back, np.linspace(0, 26, 9)[:-1].round().astype(int), axis=2)
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(originals, back.reshape(1797, -1))]
    assert min(correlations) > 0.8, min(correlations)


def test_digits_use_the_whole_range_and_leave_a_margin(digits):
    images = np.stack([digits[i]["image"] for i in range(len(digits))])
    assert images.dtype == np.uint8 and images.shape[1:] == (32, 32, 1)
    assert images.min() == 0 and (images.max(axis=(1, 2, 3)) >= 250).mean() > 0.99
    assert images[:, [0, -1]].max() == 0 and images[:, :, [0, -1]].max() == 0


def test_digits_fill_any_format_without_distortion():
    wide = Digits((32, 64))[0]["image"]
    assert wide.shape == (32, 64, 1)
    np.testing.assert_array_equal(wide[:, 16:48], Digits((32, 32))[0]["image"])
    assert wide[:, :16].max() == 0
    assert Digits((512, 256))[0]["image"].shape == (128, 64, 1)


def test_shapes_are_a_pure_function_of_seed_and_index():
    a, b = Shapes(), Shapes()
    for i in (7, 3, 49_999):
        np.testing.assert_array_equal(a[i]["image"], b[i]["image"])
    assert (a[7]["image"] != Shapes(seed=1)[7]["image"]).any()
    # Growing the set keeps the items that it had.
    np.testing.assert_array_equal(a[7]["image"], Shapes(count=10)[7]["image"])


def test_a_scene_is_pinned():
    """Runs resume and measure on these pictures: the draws of a scene never change."""
    scene = Shapes().scene(3)
    assert (SHAPES[scene.shape], scene.color) == PINNED[:2]
    np.testing.assert_allclose([scene.x, scene.y, scene.size, scene.rotation], PINNED[2], rtol=1e-9)


PINNED = (
    "star",
    "cyan",
    [0.08376322092898722, -0.3491857424628541, 0.5165745699158761, 0.28562306246651004],
)


def test_shapes_label_is_the_shape_and_all_occur_evenly():
    shapes = Shapes()
    labels = [shapes.scene(i).shape for i in range(2000)]
    assert shapes[5]["label"] == labels[5]
    assert np.bincount(labels, minlength=len(SHAPES)).min() > 150


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_each_shape_is_drawn_inside_the_picture_and_scales(shape):
    shapes = Shapes()
    index = next(i for i in range(1000) if shapes.scene(i).shape == shape)
    scene = shapes.scene(index)
    small, large = render(scene, (32, 32)), render(scene, (128, 128))
    pooled = large.reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
    assert np.abs(pooled - small).mean() < 4, "the same picture at each size"
    bare = render(Shapes().scene(index).__class__(**{**vars(scene), "size": 1e-3}), (128, 128))
    covered = np.abs(large.astype(int) - bare).max(axis=2) > 20
    share = covered.mean() * 4 / (np.pi * scene.size**2)
    assert 0.3 < share < 0.95, f"covers {share:.2f} of its circle"
    assert not covered[[0, -1]].any() and not covered[:, [0, -1]].any()


def test_a_moving_shape_is_a_function_of_time():
    """The same at any rate, whatever was drawn before, also between frames and before the start."""
    slow, fast = (ShapeVideos((16, 16), rate=rate).video(7) for rate in (25.0, 100.0))
    assert (slow.rate, fast.rate) == (25, 100)
    frames = slow.read(np.array([3, 200]))
    assert frames.shape == (2, 16, 16, 3) and frames.dtype == np.uint8
    np.testing.assert_array_equal(fast.read(np.array([800, 12])), frames[::-1])
    np.testing.assert_array_equal(fast.read(np.array([12.0])), slow.read(np.array([3.0])))
    assert slow.read(np.array([-10.5, 1e6])).shape == (2, 16, 16, 3)
    assert (ShapeVideos(seed=1).video(7).read(np.array([3])) != frames[:1].mean()).any()


def test_lengths_and_labels_of_videos():
    source = ShapeVideos(count=500)
    lengths = [len(source[i]["video"]) for i in range(500)]
    assert min(lengths) >= 128 and max(lengths) <= 512 and 300 < np.mean(lengths) < 340
    assert len(set(lengths)) > 200
    labels = [int(source[i]["label"]) for i in range(500)]
    assert labels == [source.scene(i, 9.0).shape for i in range(500)] and set(labels) == set(
        range(10)
    )
    assert ShapeVideos(seed=1).fingerprint() != source.fingerprint()


def test_everything_of_a_shape_moves_smoothly_and_nothing_comes_again():
    source = ShapeVideos()
    for index in range(5):
        scenes = [source.scene(index, time / 25) for time in range(25 * 120)]  # two minutes
        path = np.array([[s.x, s.y, s.size, s.rotation, s.blend, s.glow] for s in scenes])
        assert (np.abs(path[:, :2]).max(-1) + path[:, 2]).max() <= 0.96, "it stays in the picture"
        assert (path.std(0) > [0.05, 0.05, 0.03, 0.5, 0.1, 0.3]).all()
        steps = np.abs(np.diff(path, axis=0))
        assert (steps.max(0) < [0.08, 0.08, 0.02, 0.8, 0.06, 0.4]).all()
        # Of what is seen at half a second and later, nothing is quite as at the start.
        near = np.abs((path[12:] - path[0]) / path.std(0)).max(-1)
        assert near.min() > 0.02


def test_warped_digits_are_a_pure_function_of_seed_and_index(digits):
    a, b = WarpedDigits(), WarpedDigits(count=10)
    np.testing.assert_array_equal(a[7]["image"], b[7]["image"])
    assert (a[7]["image"] != WarpedDigits(seed=1)[7]["image"]).any()
    # Going round the originals, another warp each time.
    assert a[3]["label"] == a[3 + 1797]["label"] == digits[3]["label"]
    assert (a[3]["image"] != a[3 + 1797]["image"]).any()


def test_a_warp_is_pinned():
    """As a scene: runs resume and measure on these pictures."""
    corners = np.array([[-1.0, 1.0, 0.0], [-1.0, 1.0, 0.0]])
    np.testing.assert_allclose(WarpedDigits()._warp(3, corners), WARPED, rtol=1e-9)


WARPED = [
    [-1.056057226847735, 1.554765715476447, 0.36478157306162656],
    [-1.096240773930535, 1.6889292036346237, 0.4130247498222471],
]


def test_without_a_warp_it_is_the_digit(digits, monkeypatch):
    monkeypatch.setattr(WarpedDigits, "_warp", lambda self, index, place: place)
    np.testing.assert_array_equal(WarpedDigits()[5]["image"], digits[5]["image"])


def test_warped_digits_stay_in_the_picture_and_spread_over_it():
    warped = WarpedDigits()
    ink = np.stack([warped[i]["image"] for i in range(300)])[..., 0] / 255
    border = np.concatenate([ink[:, [0, -1]].ravel(), ink[:, :, [0, -1]].ravel()])
    assert ink.shape == (300, 32, 32) and border.mean() < 0.01
    centre = np.einsum("nhw,h->n", ink, np.arange(32)) / ink.sum(axis=(1, 2))
    assert np.std(centre) > 1.5
    assert WarpedDigits((32, 64))[0]["image"].shape == (32, 64, 1)
