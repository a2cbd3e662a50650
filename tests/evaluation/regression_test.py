"""The closed form equals a float64 solution of the normal equations, and sklearn's."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from sklearn import linear_model

from tests.evaluation import sets
from tests.oracles import fewshot as oracle
from vit_scaling.evaluation import regression


# More images than features, fewer, exactly as many, and one image per class.
@pytest.mark.parametrize(
    ("classes", "width", "train"), [(5, 16, 20), (5, 64, 4), (5, 24, 5), (9, 12, 1)]
)
@pytest.mark.parametrize("strength", [1e-2, 1.0, 1024.0, 1e4])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_predictions_are_the_oracles(classes, width, train, strength, dtype):
    data = sets.blobs(classes, width, train, 40, dtype=dtype)
    fitted = regression.normal_equations(
        data.train_features, data.train_labels, classes
    )
    expected = oracle.scores(
        data.train_features, data.train_labels, data.test_features, classes, strength
    )
    clear = oracle.clear(expected)
    assert clear.mean() > 0.5  # The comparison below is of most images.
    predicted = fitted.predict(data.test_features, strength)
    np.testing.assert_array_equal(predicted[clear], expected.argmax(axis=1)[clear])


@pytest.mark.parametrize("train", [1, 2, 10])
def test_scores_are_the_oracles(train):
    data = sets.blobs(6, 18, train, 5)
    fitted = regression.normal_equations(data.train_features, data.train_labels, 6)
    weights, biases = fitted.weights(1024.0)
    expected = oracle.scores(
        data.train_features, data.train_labels, data.test_features, 6, 1024.0
    )
    # Both sides are float64 with condition numbers of about 1e6 at most.
    np.testing.assert_allclose(
        data.test_features.astype(np.float64) @ weights + biases,
        expected,
        rtol=1e-8,
        atol=1e-8,
    )


def test_predictions_are_those_of_sklearn_ridge():
    data = sets.blobs(8, 20, 10, 50, dtype=np.float64)
    mean = data.train_features.mean(axis=0)
    deviation = data.train_features.std(axis=0) + 1e-5

    def prepared(x):
        return np.column_stack([(x - mean) / deviation, np.full(len(x), 100.0)])

    ridge = linear_model.Ridge(alpha=1024.0, fit_intercept=False, solver="cholesky")
    ridge.fit(prepared(data.train_features), 2 * np.eye(8)[data.train_labels] - 1)
    expected = ridge.predict(prepared(data.test_features))
    fitted = regression.normal_equations(data.train_features, data.train_labels, 8)
    clear = oracle.clear(expected)
    np.testing.assert_array_equal(
        fitted.predict(data.test_features, 1024.0)[clear],
        expected.argmax(axis=1)[clear],
    )


def test_many_test_images_are_scored_in_parts(monkeypatch):
    data = sets.blobs(4, 10, 5, 30)
    fitted = regression.normal_equations(data.train_features, data.train_labels, 4)
    whole = fitted.predict(data.test_features, 1.0)
    monkeypatch.setattr(regression, "ROWS", 7)
    np.testing.assert_array_equal(fitted.predict(data.test_features, 1.0), whole)


def test_scores_too_close_for_float32_are_compared_in_float64(monkeypatch):
    data = sets.blobs(5, 16, 20, 40)
    train, far = (
        x + np.float32(1e5) for x in (data.train_features, data.test_features)
    )
    fitted = regression.normal_equations(train, data.train_labels, 5)
    weights, biases = fitted.weights(1024.0)
    expected = (far.astype(np.float64) @ weights + biases).argmax(axis=1)
    np.testing.assert_array_equal(fitted.predict(far, 1024.0), expected)
    monkeypatch.setattr(regression, "FLOAT32_ROUNDING", 0.0)
    assert np.any(fitted.predict(far, 1024.0) != expected)  # The check was needed.


def test_scores_that_overflow_float32_are_compared_in_float64():
    data = sets.blobs(5, 16, 20, 40, dtype=np.float64)
    fitted = regression.normal_equations(data.train_features, data.train_labels, 5)
    weights, biases = fitted.weights(1.0)
    huge = data.test_features * 1e150
    expected = (huge @ weights + biases).argmax(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(fitted.predict(huge, 1.0), expected)


@pytest.mark.parametrize("strength", [0.0, -1.0, float("nan")])
def test_strength_must_be_positive(strength):
    data = sets.blobs(3, 5, 2, 2)
    fitted = regression.normal_equations(data.train_features, data.train_labels, 3)
    with pytest.raises(ValueError, match="`strength` must be positive"):
        fitted.weights(strength)
