"""Predict from frozen features: a linear probe and nearest neighbours."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
from scipy import optimize, special

from vit_scaling.evaluation.fewshot import FeatureSet
from vit_scaling.evaluation.regression import DEVIATION_FLOOR

SIMILARITIES = 2**25  # Computed at a time: 256 MiB; their order takes twice that.


def linear_probe(
    data: FeatureSet, *, strength: float = 1e-3, iterations: int = 500
) -> tuple[np.ndarray, bool]:
    """Predict by multinomial logistic regression, fitted by L-BFGS.

    Minimises the mean cross-entropy plus strength/2 times the squared weights (not the
    biases), over features whitened by the training part.

    Args:
        data: Features of both parts.
        strength: Strength of the L2 regularisation.
        iterations: Maximum number of L-BFGS iterations.

    Returns:
        (N',) predicted classes, and whether L-BFGS converged within `iterations`.

    Raises:
        ValueError: `strength` is negative.
    """
    if strength < 0:
        raise ValueError(f"`strength` must not be negative; received {strength}.")
    mean = data.train_features.mean(axis=0, dtype=np.float64)
    deviation = data.train_features.std(axis=0, dtype=np.float64) + DEVIATION_FLOOR
    x = (data.train_features - mean) / deviation
    width, classes = x.shape[1], int(data.classes or 0)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(width + 1, classes)
        value, gradient = cross_entropy(x, data.train_labels, weights)
        value += strength / 2 * float(np.sum(weights[:-1] ** 2))
        gradient[:-1] += strength * weights[:-1]
        return value, gradient.ravel()

    found = optimize.minimize(
        objective,
        np.zeros((width + 1) * classes),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": iterations, "gtol": 1e-6, "ftol": 1e-12},
    )
    weights = found.x.reshape(width + 1, classes)
    scores = (data.test_features - mean) / deviation @ weights[:-1] + weights[-1]
    return np.argmax(scores, axis=1), bool(found.success)


def cross_entropy(
    x: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the mean cross-entropy of softmax(x W + b) and its gradient.

    Args:
        x: (N, width).
        labels: (N,) integers.
        weights: (width + 1, classes): W, and b in the last row.
    """
    rows = np.arange(len(x))
    logits = x @ weights[:-1] + weights[-1]  # (N, classes)
    logs = special.log_softmax(logits, axis=1)
    errors = np.exp(logs)
    errors[rows, labels] -= 1.0
    errors /= len(x)  # (N, classes): the gradient with respect to the logits
    gradient = np.concatenate([x.T @ errors, errors.sum(axis=0, keepdims=True)])
    return -float(logs[rows, labels].mean()), gradient


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
    if neighbours < 1 or temperature <= 0:
        raise ValueError(
            "`neighbours` and `temperature` must be positive; received "
            f"neighbours={neighbours}, temperature={temperature}."
        )
    train = _normalize(data.train_features)
    number = min(neighbours, len(train))
    predicted = []
    rows_at_a_time = max(1, SIMILARITIES // len(train))
    parts = -(-len(data.test_features) // rows_at_a_time)
    for part in np.array_split(data.test_features, parts):
        similarity = _normalize(part) @ train.T  # (rows, N)
        nearest = np.argpartition(-similarity, number - 1, axis=1)[:, :number]
        closeness = np.take_along_axis(similarity, nearest, axis=1)
        votes = np.zeros((len(part), int(data.classes or 0)))
        rows = np.repeat(np.arange(len(part)), number)
        weights = np.exp((closeness - 1.0) / temperature)
        np.add.at(votes, (rows, data.train_labels[nearest].ravel()), weights.ravel())
        predicted.append(np.argmax(votes, axis=1))
    return np.concatenate(predicted)


def _normalize(features: np.ndarray) -> np.ndarray:
    features = features.astype(np.float64)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(length, 1e-12)
