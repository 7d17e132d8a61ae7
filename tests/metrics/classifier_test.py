"""A classifier that learns digits, and that one seed makes twice."""

import numpy as np
import pytest

from ganjax.data.demo import Digits
from ganjax.metrics.classifier import CHUNK, train_classifier


@pytest.fixture(scope="module")
def digits():
    source = Digits((16, 16))
    items = [source[index] for index in range(len(source))]
    return np.stack([i["image"] for i in items]), np.array([i["label"] for i in items])


@pytest.fixture(scope="module")
def classifier(digits):
    return train_classifier(*digits, classes=10, steps=120)


def test_it_knows_digits_that_it_has_not_seen(classifier):
    assert classifier.held_out == 1797 // 5
    assert classifier.accuracy > 0.93


def test_predictions_are_of_the_labels_and_do_not_depend_on_the_batch(classifier, digits):
    images, labels = digits
    predicted = classifier.predict(images[: CHUNK + 5])
    assert (predicted == labels[: CHUNK + 5]).mean() > 0.93
    np.testing.assert_array_equal(classifier.predict(images[CHUNK : CHUNK + 5]), predicted[CHUNK:])


def test_features_are_64_and_tell_images_apart(classifier, digits):
    features = classifier.features(digits[0][:20])
    assert features.shape == (20, 64) and features.dtype == np.float32
    assert len(np.unique(features, axis=0)) == 20
    assert classifier.features(digits[0][:0]).shape == (0, 64)


def test_a_seed_gives_one_classifier(digits):
    images, labels = (part[:200] for part in digits)
    one, same, other = (train_classifier(images, labels, 10, seed, steps=5) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.features(images), same.features(images))
    assert one.accuracy == same.accuracy
    assert not np.array_equal(one.features(images), other.features(images))


def test_colour_and_odd_sides_and_borders_of_the_labels():
    images = np.random.default_rng(0).integers(0, 256, (12, 9, 14, 3), np.uint8)
    labels = np.arange(12) % 2
    classifier = train_classifier(images, labels, 2, steps=2)
    assert set(classifier.predict(images)) <= {0, 1}
    with pytest.raises(ValueError, match="bring them to its resolution"):
        classifier.predict(images[:, :8])
    with pytest.raises(ValueError, match="labels from 0 to 1 for 1 classes"):
        train_classifier(images, labels, 1)
    with pytest.raises(ValueError, match="12 images and 11 labels"):
        train_classifier(images, labels[:-1], 2)
