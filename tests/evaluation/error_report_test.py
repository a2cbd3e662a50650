"""Accuracy by class, confusions and calibration against independent computations."""
# SPDX-License-Identifier: Apache-2.0

import base64
import io
import re

import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf
from PIL import Image

from tests.evaluation import records
from vit_scaling.evaluation import error_report

NAMES = ["ant", "bee", "cat", "<dog>"]


def random_guesses(count=500, seed=3):
    generator = np.random.default_rng(seed)
    return error_report.Guesses(
        names=NAMES,
        labels=generator.integers(0, 3, count),  # No dog in the set.
        guesses=generator.integers(0, 4, count),
        confidence=generator.uniform(0, 1, count),
        positions=np.arange(count),
    )


def test_confusions_are_those_of_scikit_learn():
    guesses = random_guesses()
    expected = sklearn.metrics.confusion_matrix(
        guesses.labels, guesses.guesses, labels=range(4)
    )
    np.testing.assert_array_equal(guesses.confusion, expected)
    label, guess, count = guesses.confusions()[0]
    np.fill_diagonal(expected, 0)
    assert count == expected.max() == expected[NAMES.index(label), NAMES.index(guess)]


def test_calibration_error_is_that_of_its_definition():
    guesses = random_guesses()
    total = 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        members = [
            i for i, value in enumerate(guesses.confidence) if low < value <= high
        ]
        right = sum(guesses.labels[i] == guesses.guesses[i] for i in members)
        total += abs(right - sum(guesses.confidence[i] for i in members))
    assert guesses.calibration_error() == pytest.approx(total / 500)


def test_the_worst_mistakes_are_the_most_confident():
    guesses = random_guesses()
    worst = guesses.worst()
    wrong = guesses.confidence[guesses.labels != guesses.guesses]
    np.testing.assert_allclose(
        guesses.confidence[worst], np.sort(wrong)[::-1][: len(worst)]
    )


@pytest.mark.parametrize("softmax", [True, False])
def test_guesses_of_a_model_leave_out_images_without_one_label(softmax):
    data = records.in_memory([0, 1, 2, [0, 1], 2], 3)
    logits = np.float32([[2, 1, 0], [0, 3, 1], [1, 0, -1], [0, 0, 1], [0, 1, 5]])
    # The place of each image, from its pixels.
    keys = tf.constant(np.float32(data.pixels.reshape(5, -1)[:, :9]) / 127.5 - 1)

    def compute(images):
        found = tf.reshape(images, (tf.shape(images)[0], -1))[:, :9]
        match = tf.reduce_all(found[:, None] == keys, axis=-1)
        return tf.gather(logits, tf.argmax(tf.cast(match, tf.int32), axis=1))

    guesses = error_report.guess_classes(
        compute,
        data,
        "abc",
        strategy=tf.distribute.get_strategy(),
        batch_size=2,
        softmax=softmax,
    )
    assert guesses.left_out == 1
    assert guesses.positions.tolist() == [0, 1, 2, 4]
    assert guesses.labels.tolist() == [0, 1, 2, 2]
    assert guesses.guesses.tolist() == [0, 1, 0, 2]
    exponents = np.exp(logits.astype(np.float64))
    probability = exponents / (exponents.sum(1, keepdims=True) if softmax else 1)
    probability = probability if softmax else exponents / (1 + exponents)
    expected = probability.max(axis=1)[[0, 1, 2, 4]]
    np.testing.assert_allclose(guesses.confidence, expected, rtol=1e-6)


def test_the_page_shows_the_images_that_were_mistaken(tmp_path):
    labels = [0, 1, 2, 1, 0]
    data = records.in_memory(labels, 4)
    guesses = error_report.Guesses(
        names=NAMES,
        labels=np.array(labels),
        guesses=np.array([0, 1, 2, 3, 0]),
        confidence=np.array([0.9, 0.8, 0.7, 0.6, 0.5]),
        positions=np.arange(5),
    )
    path = tmp_path / "report.html"
    pixels = next(iter(data.dataset(batch_size=5)))["images"].numpy()
    low, high = float(pixels.min()), float(pixels.max())
    error_report.write_report(
        str(path),
        {"eval": (guesses, data)},
        title="run, step 7",
        value_range=(low, high),
        batch_size=2,
    )
    page = path.read_text()
    assert "80.00 % of 5 images right" in page and "run, step 7" in page
    assert "bee, taken for &lt;dog&gt; (60 %)" in page
    (encoded,) = re.findall(r"base64,([^\"]+)", page)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    expected = 255 * (pixels[3].astype(np.float64) - low) / (high - low)
    assert np.abs(shown - expected).max() <= 0.51


def test_a_set_without_single_labels_is_rejected():
    data = records.in_memory([[0, 1], [1, 2]], 3)
    with pytest.raises(ValueError, match="exactly one label"):
        error_report.guess_classes(
            lambda images: tf.zeros([tf.shape(images)[0], 3]),
            data,
            "abc",
            strategy=tf.distribute.get_strategy(),
            batch_size=2,
            softmax=True,
        )
