"""L2-regularised linear regression to ±1 targets, in closed form (few-shot, §2)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import numpy as np
from scipy import sparse

BIAS = 100.0  # A constant feature this large is almost unregularised.
DEVIATION_FLOOR = 1e-5  # Added to the deviation, as in the authors' evaluator.
ROWS = 8192  # Test features scored at a time: memory stays bounded.
FLOAT32_ROUNDING = 2.0**-24


@dataclasses.dataclass(frozen=True)
class NormalEquations:
    """The regression's normal equations, which each strength solves.

    With X the whitened features (N, D), Y the ±1 targets (N, K) and λ the strength, the
    weights are the first of these where N ≥ D, else the second, which is the smaller:

        (XᵀX + λ)⁻¹ XᵀY
        Xᵀ(XXᵀ + λ)⁻¹ Y

    The bias feature is orthogonal to X, whose columns have the mean 0: its weight
    follows from the sums of the targets alone.

    Attributes:
        gram: XᵀX or XXᵀ, float64.
        right: XᵀY (D, K) or Y (N, K), float64.
        left: None, or Xᵀ (D, N), which multiplies the solution.
        target_sums: (K,) of the targets over the training images.
        images: N.
        mean: (D,) of the training features.
        deviation: (D,) of the training features, plus 1e-5.
    """

    gram: np.ndarray
    right: np.ndarray
    left: np.ndarray | None
    target_sums: np.ndarray
    images: int
    mean: np.ndarray
    deviation: np.ndarray

    def weights(self, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Return (D, K) weights and (K,) biases for features that are not whitened.

        Args:
            strength: λ; 1024 in the authors' configuration.

        Raises:
            ValueError: `strength` is not positive.
        """
        if not strength > 0:
            raise ValueError(f"`strength` must be positive; received {strength}.")
        regularised = self.gram.copy()
        np.einsum("ii->i", regularised)[:] += strength
        weights = np.linalg.solve(regularised, self.right)
        if self.left is not None:
            weights = self.left @ weights
        # Whitening is linear: it is folded into the weights, which saves memory.
        weights /= self.deviation[:, None]
        bias = BIAS**2 * self.target_sums / (BIAS**2 * self.images + strength)
        return weights, bias - self.mean @ weights

    def predict(self, features: np.ndarray, strength: float) -> np.ndarray:
        """Return (N',) classes of the highest score for (N', D) features."""
        weights, biases = self.weights(strength)
        parts = np.array_split(features, -(-len(features) // ROWS))
        return np.concatenate([_best_classes(part, weights, biases) for part in parts])


def normal_equations(
    features: np.ndarray, labels: np.ndarray, classes: int
) -> NormalEquations:
    """Return the normal equations of labels on features, in float64.

    Args:
        features: (N, D), of any float type.
        labels: (N,) integers in [0, classes).
        classes: K, number of classes.

    References: Zhai et al. 2022, §2 and App. A; the strength, the whitening and the
        bias are those of the authors' evaluator.
    """
    number, width = features.shape
    x = features.astype(np.float64)
    mean = x.mean(axis=0)
    x -= mean
    deviation = np.sqrt(np.einsum("nd,nd->d", x, x) / number) + DEVIATION_FLOOR
    x /= deviation
    members = sparse.csr_array(
        (np.ones(number), (labels, np.arange(number))), shape=(classes, number)
    )
    target_sums = 2.0 * members.sum(axis=1) - number
    if number >= width:
        sums = members @ x  # (K, D); the (N, K) targets are never made.
        gram, left = x.T @ x, None
        right = (2.0 * sums - sums.sum(axis=0)).T
    else:
        gram, left = x @ x.T, x.T
        right = 2.0 * members.T.toarray() - 1.0
    return NormalEquations(gram, right, left, target_sums, number, mean, deviation)


def _best_classes(
    features: np.ndarray, weights: np.ndarray, biases: np.ndarray
) -> np.ndarray:
    """Return the classes of the highest float64 scores, mostly found in float32.

    A float32 product takes half the time. Where its best score leads by more than the
    rounding of two scores can be, it is the best in float64 as well; the scores of the
    other images are computed again.
    """
    scores = features.astype(np.float32) @ weights.astype(np.float32)
    scores += biases.astype(np.float32)
    best = scores.argmax(axis=1)
    largest = np.linalg.norm(weights, axis=0).max(), np.abs(biases).max()
    size = np.linalg.norm(features.astype(np.float32), axis=1) * largest[0] + largest[1]
    # The bound of a sum of `len(weights)` rounded products of rounded numbers.
    margin = 2 * (len(weights) + 8) * FLOAT32_ROUNDING * size
    limits = (scores.max(axis=1) - margin).astype(np.float32)
    # No score of an image is above the limit if one has overflowed.
    unclear = np.count_nonzero(scores >= limits[:, None], axis=1) != 1
    again = features[unclear].astype(np.float64) @ weights + biases
    best[unclear] = again.argmax(axis=1)
    return best
