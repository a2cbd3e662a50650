"""Predict from frozen features: a linear probe and nearest neighbours."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np

from vit_scaling.checks import check_above, check_at_least
from vit_scaling.evaluation.fewshot import FeatureSet
from vit_scaling.evaluation.regression import DEVIATION_FLOOR

MAX_ITERATIONS = 500  # Of L-BFGS.


def linear_probe(
    data: FeatureSet, *, strength: float = 1e-3
) -> tuple[np.ndarray, bool]:
    """Predict by multinomial logistic regression, fitted by L-BFGS.

    Minimises the mean cross-entropy plus strength/2 times the squared weights (not the
    biases), over features whitened by the training part.

    Args:
        data: Features of both parts.
        strength: Strength of the L2 regularisation.

    Returns:
        (N',) predicted classes, and whether L-BFGS converged within 500 iterations.

    Raises:
        ValueError: `strength` is not positive.
    """
    from sklearn.linear_model import LogisticRegression  # Slow to import.

    check_above(0, strength=strength)
    mean = data.train_features.mean(axis=0, dtype=np.float64)
    deviation = data.train_features.std(axis=0, dtype=np.float64) + DEVIATION_FLOOR
    # Of two classes scikit-learn fits the difference of both weights, whose squares
    # then count half.
    scale = 2 if data.classes == 2 else 1
    images = len(data.train_labels)
    model = LogisticRegression(
        C=scale / (strength * images), tol=1e-6, max_iter=MAX_ITERATIONS
    )
    model.fit((data.train_features - mean) / deviation, data.train_labels)
    predicted = model.predict((data.test_features - mean) / deviation)
    return predicted, bool(model.n_iter_.max() < MAX_ITERATIONS)


def nearest_neighbours(
    data: FeatureSet, *, neighbours: int = 20, temperature: float = 0.07
) -> np.ndarray:
    """Predict by a vote of the nearest training images, weighted by similarity.

    The weight of a neighbour is exp(cosine / temperature) (Wu et al. 2018, with its
    temperature; 20 neighbours as in Caron et al. 2021). Of equal votes the class of the
    lower number wins.

    Args:
        data: Features of both parts.
        neighbours: Number of training images that vote, at most all.
        temperature: Smaller makes the nearest count for more.

    Returns:
        (N',) predicted classes.

    Raises:
        ValueError: `neighbours` or `temperature` is not positive.
    """
    from sklearn.neighbors import KNeighborsClassifier  # Slow to import.

    check_at_least(1, neighbours=neighbours)
    check_above(0, temperature=temperature)
    model = KNeighborsClassifier(
        min(neighbours, len(data.train_labels)),
        weights=lambda distances: np.exp(-distances / temperature),
        algorithm="brute",
        metric="cosine",
    )
    model.fit(data.train_features.astype(np.float64), data.train_labels)
    return model.predict(data.test_features.astype(np.float64))
