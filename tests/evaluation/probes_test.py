"""The linear probe reaches the optimum of its objective; neighbours vote correctly."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from scipy import optimize, special

from tests.evaluation import sets
from vit_scaling.evaluation import probes


def fit_and_predict(data, strength):
    """Minimise the probe's objective with SciPy, and predict the test part."""
    mean = data.train_features.mean(axis=0)
    deviation = data.train_features.std(axis=0) + 1e-5
    x = (data.train_features - mean) / deviation
    shape = x.shape[1] + 1, data.classes
    targets = np.eye(data.classes)[data.train_labels]

    def objective(flat):
        weights = flat.reshape(shape)
        logs = special.log_softmax(x @ weights[:-1] + weights[-1], axis=1)
        errors = (np.exp(logs) - targets) / len(x)
        value = -(logs * targets).sum() / len(x)
        gradient = np.concatenate([x.T @ errors, errors.sum(axis=0, keepdims=True)])
        gradient[:-1] += strength * weights[:-1]
        return value + strength / 2 * (weights[:-1] ** 2).sum(), gradient.ravel()

    found = optimize.minimize(objective, np.zeros(np.prod(shape)), jac=True, tol=1e-9)
    weights = found.x.reshape(shape)
    scores = (data.test_features - mean) / deviation @ weights[:-1] + weights[-1]
    return np.argmax(scores, axis=1)


@pytest.mark.parametrize("strength", [1e-3, 1e-1])
@pytest.mark.parametrize("classes", [2, 5])
def test_the_probe_predicts_the_same_as_the_optimum_of_its_objective(classes, strength):
    data = sets.blobs(classes, 12, 30, 60, dtype=np.float64)
    predicted, converged = probes.linear_probe(data, strength=strength)
    assert converged
    expected = fit_and_predict(data, strength)
    assert np.mean(predicted == expected) > 0.99  # Both stop near the optimum.


def test_an_unfinished_fit_is_reported(monkeypatch):
    monkeypatch.setattr(probes, "MAX_ITERATIONS", 2)
    with pytest.warns(match="failed to converge"):
        assert not probes.linear_probe(sets.blobs())[1]


@pytest.mark.parametrize("neighbours", [1, 9])
def test_the_nearest_images_vote_weighted_by_similarity(neighbours):
    data = sets.blobs(4, 8, 15, 25, dtype=np.float64)
    train, test = (
        features / np.linalg.norm(features, axis=1, keepdims=True)
        for features in (data.train_features, data.test_features)
    )
    expected = []
    for similarities in test @ train.T:
        votes = np.zeros(4)
        for image in np.argsort(-similarities)[:neighbours]:
            votes[data.train_labels[image]] += np.exp(similarities[image] / 0.07)
        expected.append(votes.argmax())
    np.testing.assert_array_equal(
        probes.nearest_neighbours(data, neighbours=neighbours), expected
    )


def test_more_neighbours_than_images_all_vote():
    data = sets.blobs(3, 6, 2, 4)
    assert probes.nearest_neighbours(data, neighbours=100).shape == (12,)


def test_invalid_settings_are_rejected():
    data = sets.blobs(3, 6, 2, 4)
    with pytest.raises(ValueError, match="`neighbours` must be at least 1; received 0"):
        probes.nearest_neighbours(data, neighbours=0)
    with pytest.raises(ValueError, match="`temperature` must be above 0"):
        probes.nearest_neighbours(data, temperature=0)
    with pytest.raises(ValueError, match="`strength` must be above 0"):
        probes.linear_probe(data, strength=-1.0)
