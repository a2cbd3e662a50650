"""L2-regularised linear regression to ±1 targets, in closed form (few-shot, §2)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import numpy as np

BIAS = 100.0  # A constant feature this large is almost unregularised.
DEVIATION_FLOOR = 1e-5  # Added to the deviation, as in the authors' evaluator.
ROWS = 8192  # Test features scored at a time: memory stays bounded.


@dataclasses.dataclass(frozen=True)
class Decomposition:
    """The regression's normal equations, solved for every strength at once.

    With X the whitened features and their bias (N, D), Y the targets (N, K) and λ the
    strength, the weights are

        (XᵀX + λ)⁻¹ XᵀY = q (e + λ)⁻¹ (qᵀXᵀY)      with XᵀX = q e qᵀ, where N ≥ D
        Xᵀ(XXᵀ + λ)⁻¹ Y = (Xᵀq) (e + λ)⁻¹ (qᵀY)    with XXᵀ = q e qᵀ, where N < D

    Both are `left · (eigenvalues + λ)⁻¹ · right`, on the smaller of the two sides.

    Attributes:
        left: (D, min(N, D)) float64.
        eigenvalues: (min(N, D),) float64.
        right: (min(N, D), K) float64.
        mean: (D - 1,) of the training features.
        deviation: (D - 1,) of the training features, plus 1e-5.
    """

    left: np.ndarray
    eigenvalues: np.ndarray
    right: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    def weights(self, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Return (D - 1, K) weights and (K,) biases for features that are not whitened.

        Args:
            strength: λ; 1024 in the authors' configuration.

        Raises:
            ValueError: `strength` is not positive.
        """
        if not strength > 0:
            raise ValueError(f"`strength` must be positive; received {strength}.")
        scaled = self.left / (self.eigenvalues + strength)  # (D, min(N, D))
        weights = scaled @ self.right  # (D, K)
        # Whitening is linear: it is folded into the weights, which saves memory.
        inner = weights[:-1] / self.deviation[:, None]  # (D - 1, K)
        return inner, BIAS * weights[-1] - self.mean @ inner

    def predict(self, features: np.ndarray, strength: float) -> np.ndarray:
        """Return (N',) classes of the highest score for (N', D - 1) features."""
        weights, biases = self.weights(strength)
        parts = [
            np.argmax(part.astype(np.float64) @ weights + biases, axis=1)
            for part in np.array_split(features, -(-len(features) // ROWS))
        ]
        return np.concatenate(parts)


def decompose(features: np.ndarray, labels: np.ndarray, classes: int) -> Decomposition:
    """Return the decomposed regression of labels on features.

    It is done in float64: the bias feature makes the largest eigenvalue 10⁴ N, next to
    which a strength of 1024 is lost in float32's rounding.

    Args:
        features: (N, D - 1), of any float type.
        labels: (N,) integers in [0, classes).
        classes: K, number of classes.

    References: Zhai et al. 2022, §2 and App. A; the strength, the whitening and the
        bias are those of the authors' evaluator.
    """
    features = features.astype(np.float64)
    mean = features.mean(axis=0)
    deviation = features.std(axis=0) + DEVIATION_FLOOR
    number, width = features.shape
    x = np.empty((number, width + 1))
    np.divide(features - mean, deviation, out=x[:, :-1])
    x[:, -1] = BIAS  # (N, D)
    if number >= width + 1:
        eigenvalues, q = np.linalg.eigh(x.T @ x)  # (D,), (D, D)
        right = q.T @ _multiply_by_targets(x, labels, classes)
        left = q
    else:
        eigenvalues, q = np.linalg.eigh(x @ x.T)  # (N,), (N, N)
        right = _multiply_by_targets(q, labels, classes)
        left = x.T @ q
    return Decomposition(left, eigenvalues, right, mean, deviation)


def _multiply_by_targets(
    rows: np.ndarray, labels: np.ndarray, classes: int
) -> np.ndarray:
    """Return rowsᵀ Y for Y = 2 onehot(labels) - 1, (width, classes).

    Y has one +1 a row, so the product is sums over classes: (N, K) is never made.
    """
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    sums = np.zeros((classes, rows.shape[1]))
    sums[present] = np.add.reduceat(rows[order], starts, axis=0)
    return (2.0 * sums - rows.sum(axis=0)).T
