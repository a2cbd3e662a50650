"""Images and names are converted as by Keras' own functions."""
# SPDX-License-Identifier: Apache-2.0

import keras
import numpy as np
import PIL.Image
import pytest
import skimage.data

from tests.applications.published_folders import MEAN, STD, VALUE_RANGE
from vit_scaling.applications import (
    decode_predictions,
    prepare_images,
    preprocess_input,
)
from vit_scaling.run_record import RunRecord


def test_images_are_scaled_as_keras_scales_for_its_tf_models():
    levels = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3)).astype("float32")
    wanted = keras.applications.mobilenet_v2.preprocess_input(levels.copy())
    np.testing.assert_array_equal(preprocess_input(levels.copy()), wanted)
    assert preprocess_input(np.full((1, 1, 3), 255, np.uint8)).max() == 1.0
    symbolic = preprocess_input(keras.Input((4, 4, 3)))
    assert symbolic.shape == (None, 4, 4, 3)


def test_pixels_are_scaled_to_the_range_of_the_weights():
    levels = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3)).astype("float32")
    scaled = preprocess_input(levels, value_range=VALUE_RANGE)
    np.testing.assert_allclose(scaled, (levels / 255 - MEAN) / STD, atol=1e-5)


def test_images_are_prepared_as_the_record_says(tmp_path):
    photo = skimage.data.coffee()
    PIL.Image.fromarray(photo).save(tmp_path / "a.png")
    record = RunRecord(
        (),
        (64, 64),
        value_range=VALUE_RANGE,
        preprocess="resize",
        interpolation="bilinear",
    )
    got = prepare_images([photo, tmp_path / "a.png"], record)
    small = PIL.Image.fromarray(photo).resize((64, 64), PIL.Image.Resampling.BILINEAR)
    expected = (np.asarray(small) / 255 - MEAN) / STD
    assert np.abs((got[0] - expected) * 255 * STD).max() < 1.01  # Grey levels.
    np.testing.assert_array_equal(got[0], got[1])


def test_unknown_data_format_is_rejected():
    with pytest.raises(ValueError, match="data_format"):
        preprocess_input(np.zeros((1, 4, 4, 3), "f"), data_format="channels_middle")


def test_predictions_are_decoded_best_first_with_the_sets_own_names():
    scores = np.array([[0.1, 0.6, 0.3], [0.5, 0.5, 0.0]])
    first, second = decode_predictions(scores, top=2, class_names=["a", "b", "c"])
    assert first == [("1", "b", 0.6), ("2", "c", 0.3)]
    assert second == [("0", "a", 0.5), ("1", "b", 0.5)]  # Equal: in order.
    assert len(decode_predictions(scores, class_names=["a", "b", "c"])[0]) == 3


def test_scores_of_another_width_are_rejected():
    with pytest.raises(ValueError, match=r"shape \(batch, 2\).*received \(1, 3\)"):
        decode_predictions(np.zeros((1, 3)), class_names=["a", "b"])
    with pytest.raises(ValueError, match=r"\(samples, 1000\)"):
        decode_predictions(np.zeros((1, 3)))


def test_imagenet_names_are_those_of_keras(tmp_path, monkeypatch):
    index = tmp_path / "imagenet_class_index.json"
    entries = ",".join(f'"{i}": ["n{i:08d}", "name {i}"]' for i in range(1000))
    index.write_text("{" + entries + "}")
    utils = keras.src.applications.imagenet_utils
    monkeypatch.setattr(utils, "CLASS_INDEX", None)
    monkeypatch.setattr(utils.file_utils, "get_file", lambda *_, **__: str(index))
    scores = np.zeros((1, 1000))
    scores[0, 7] = 0.9
    (best,) = decode_predictions(scores, top=1)
    assert best == [("n00000007", "name 7", 0.9)]
