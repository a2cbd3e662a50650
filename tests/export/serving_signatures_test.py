"""A served model answers every output in float32, best classes by name."""
# SPDX-License-Identifier: Apache-2.0

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.export import runs
from vit_scaling.export import serving_signatures
from vit_scaling.run_record import RunRecord

RECORD = RunRecord(runs.CLASS_NAMES, runs.IMAGE_SIZE)


def images(number=3):
    shape = (number, *runs.IMAGE_SIZE, 3)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def answer_of(model, images, record, *, top_k):
    numbers = serving_signatures.make_numeric_function(
        serving_signatures.make_output_model(model), record
    )
    return serving_signatures.compute_outputs(numbers, images, record, top_k=top_k)


def test_answers_hold_together():
    found = answer_of(runs.small_model(), images(), RECORD, top_k=2)
    logits = found["logits"].numpy()
    odds = np.exp(logits - logits.max(1, keepdims=True))
    wanted = odds / odds.sum(1, keepdims=True)
    np.testing.assert_allclose(found["probabilities"], wanted, atol=1e-6)
    best = np.argsort(-logits, axis=1)[:, :2]
    np.testing.assert_array_equal(found["top_indices"], best)
    names = [[name.decode() for name in row] for row in found["top_classes"].numpy()]
    assert names == [[runs.CLASS_NAMES[n] for n in row] for row in best]
    floats = ("logits", "probabilities", "features", "tokens", "top_probabilities")
    assert all(found[name].dtype == tf.float32 for name in floats)


def test_more_classes_than_there_are_is_all_of_them():
    found = answer_of(runs.small_model(), images(1), RECORD, top_k=50)
    assert found["top_indices"].shape == (1, len(runs.CLASS_NAMES))


def test_sigmoid_loss_gives_sigmoids():
    logits = tf.constant([[-2.0, 0.0, 3.0]])
    sigmoid = serving_signatures.compute_probabilities(logits, "sigmoid_cross_entropy")
    np.testing.assert_allclose(sigmoid, 1 / (1 + np.exp(-logits)), rtol=1e-6)


def test_model_that_norms_the_average_answers_no_tokens():
    model = runs.small_model(head="gap", norm_after_pooling=True)
    found = answer_of(model, images(), RECORD, top_k=1)
    assert "tokens" not in found and found["features"].shape == (3, 32)


def test_model_of_two_inputs_is_refused():
    inputs = [keras.Input((4,)), keras.Input((4,))]
    model = keras.Model(inputs, keras.layers.Add()(inputs))
    with pytest.raises(ValueError, match=r"functional keras\.Model of one input"):
        serving_signatures.make_output_model(model)


@pytest.mark.parametrize(
    "activation",
    [keras.layers.Activation("sigmoid"), keras.layers.Softmax()],
    ids=["sigmoid", "softmax"],
)
def test_activation_behind_the_classifier_is_not_applied_twice(activation):
    plain = runs.small_model()
    ended = keras.Model(plain.input, activation(plain.output))
    found = answer_of(ended, images(), RECORD, top_k=1)
    wanted = answer_of(plain, images(), RECORD, top_k=1)
    for key in ("logits", "probabilities", "features"):
        np.testing.assert_array_equal(found[key], wanted[key])


def test_model_whose_classifier_computes_probabilities_itself_is_refused():
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(3, activation="softmax", name="classes")(inputs)
    with pytest.raises(ValueError, match="last layer 'classes' has an activation"):
        serving_signatures.make_output_model(keras.Model(inputs, outputs))


@pytest.mark.parametrize("top_k", [0, -1])
def test_best_classes_are_at_least_one(top_k):
    record = RunRecord(runs.CLASS_NAMES, runs.IMAGE_SIZE)
    with pytest.raises(ValueError, match=r"`top_k` \(--top_k\) must be at least 1"):
        serving_signatures.make_signatures(runs.small_model(), record, top_k=top_k)
