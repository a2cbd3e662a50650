"""The linear probe reaches the optimum that sklearn finds; neighbours vote rightly."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from scipy import optimize
from sklearn import linear_model, neighbors

from tests.evaluation import sets
from vit_scaling.evaluation import probes


def test_gradient_of_cross_entropy_is_right():
    generator = np.random.default_rng(0)
    x, labels = generator.normal(size=(9, 4)), generator.integers(0, 3, 9)
    point = generator.normal(size=15)
    error = optimize.check_grad(
        lambda flat: probes.cross_entropy(x, labels, flat.reshape(5, 3))[0],
        lambda flat: probes.cross_entropy(x, labels, flat.reshape(5, 3))[1].ravel(),
        point,
    )
    assert error < 1e-6  # finite differences in float64


@pytest.mark.parametrize("strength", [1e-3, 1e-1])
def test_probe_predicts_what_sklearns_logistic_regression_does(strength):
    data = sets.blobs(5, 12, 30, 60, dtype=np.float64)
    predicted, converged = probes.linear_probe(data, strength=strength)
    assert converged
    mean = data.train_features.mean(axis=0)
    deviation = data.train_features.std(axis=0) + 1e-5
    peer = linear_model.LogisticRegression(
        C=1 / (strength * len(data.train_labels)), tol=1e-8, max_iter=5000
    )
    peer.fit((data.train_features - mean) / deviation, data.train_labels)
    expected = peer.predict((data.test_features - mean) / deviation)
    assert np.mean(predicted == expected) > 0.99  # Both stop near the optimum.


def test_one_neighbour_is_sklearns_nearest_by_cosine():
    data = sets.blobs(6, 15, 10, 20, dtype=np.float64)
    peer = neighbors.KNeighborsClassifier(n_neighbors=1, metric="cosine")
    peer.fit(data.train_features, data.train_labels)
    np.testing.assert_array_equal(
        probes.nearest_neighbours(data, neighbours=1), peer.predict(data.test_features)
    )


def test_votes_are_weighted_by_similarity(monkeypatch):
    data = sets.blobs(4, 8, 15, 25, dtype=np.float64)
    peer = neighbors.KNeighborsClassifier(
        n_neighbors=9,
        metric="cosine",
        weights=lambda distance: np.exp(-distance / 0.07),
        algorithm="brute",
    )
    peer.fit(data.train_features, data.train_labels)
    expected = peer.predict(data.test_features)
    monkeypatch.setattr(probes, "SIMILARITIES", 11 * len(data.train_labels))
    np.testing.assert_array_equal(
        probes.nearest_neighbours(data, neighbours=9), expected
    )


def test_fewer_test_images_are_compared_at_a_time_with_more_training_images(
    monkeypatch,
):
    data = sets.blobs(4, 8, 15, 25, dtype=np.float64)
    whole, sizes = probes.nearest_neighbours(data), []
    normalised = probes._normalize

    def recorded(features):
        sizes.append(len(features))
        return normalised(features)

    monkeypatch.setattr(probes, "_normalize", recorded)
    monkeypatch.setattr(probes, "SIMILARITIES", 500)
    np.testing.assert_array_equal(probes.nearest_neighbours(data), whole)
    train, *parts = sizes
    assert sum(parts) == len(data.test_labels)
    assert max(parts) * train <= 500


def test_more_neighbours_than_images_are_all_asked():
    data = sets.blobs(3, 6, 2, 4)
    assert probes.nearest_neighbours(data, neighbours=100).shape == (12,)


def test_wrong_settings_are_refused():
    data = sets.blobs(3, 6, 2, 4)
    with pytest.raises(ValueError, match="must be positive; received neighbours=0"):
        probes.nearest_neighbours(data, neighbours=0)
    with pytest.raises(ValueError, match="`strength` must not be negative"):
        probes.linear_probe(data, strength=-1.0)
