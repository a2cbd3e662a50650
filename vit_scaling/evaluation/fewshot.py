"""Closed-form linear few-shot transfer: accuracy over shots and seeds (§2, App. A)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from etils import epath
from scipy import special  # scipy.stats takes half a second to import.

from vit_scaling import array_files
from vit_scaling.evaluation import regression

SHOTS = (1, 5, 10, 25)  # Paper, §2.
STRENGTH = 1024.0  # 2¹⁰, the authors' configuration; the paper does not say.
SEEDS = (0, 1, 2)  # The authors' configuration.
CONFIDENCE = 0.95
ARRAYS = ("train_features", "train_labels", "test_features", "test_labels")


@dataclasses.dataclass(frozen=True)
class FeatureSet:
    """Features and labels of a training and a test part.

    Attributes:
        train_features: (N, width) float.
        train_labels: (N,) integers.
        test_features: (N', width) float.
        test_labels: (N',) integers.
        classes: Number of classes; None takes the largest label plus one.

    Raises:
        ValueError: Shapes or types disagree, a value is not finite, or a class is
            missing on one side.
    """

    train_features: np.ndarray
    train_labels: np.ndarray
    test_features: np.ndarray
    test_labels: np.ndarray
    classes: int | None = None

    def __post_init__(self) -> None:
        """Check the arrays and fill in `classes`."""
        for side in ("train", "test"):
            features = np.asarray(getattr(self, f"{side}_features"))
            labels = np.asarray(getattr(self, f"{side}_labels"))
            _check_arrays(side, features, labels)
            object.__setattr__(self, f"{side}_features", features)
            object.__setattr__(self, f"{side}_labels", labels.astype(np.int64))
        widths = self.train_features.shape[1], self.test_features.shape[1]
        if widths[0] != widths[1]:
            raise ValueError(
                "Both sides' features must come from one layer; received widths "
                f"{widths[0]} (train_features) and {widths[1]} (test_features)."
            )
        largest = max(self.train_labels.max(), self.test_labels.max())
        classes = int(largest) + 1 if self.classes is None else self.classes
        object.__setattr__(self, "classes", classes)
        if largest >= classes:
            raise ValueError(
                f"Labels must be below `classes`={classes}; received {largest}."
            )
        for side in ("train", "test"):
            labels = getattr(self, f"{side}_labels")
            missing = np.setdiff1d(np.arange(classes), labels)
            if len(missing):
                raise ValueError(
                    f"Every class must be in both parts; {side}_labels has no image of "
                    f"{_list_classes(missing)}. Leave those classes out of both parts "
                    "and renumber the rest."
                )

    @classmethod
    def from_file(cls, path: str) -> "FeatureSet":
        """Read the four arrays of an .npz file (pickles are not read).

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: The file is not .npz, is damaged or lacks an array.
        """
        arrays: dict[str, Any] = dict(array_files.read_npz(path))
        missing = [name for name in ARRAYS if name not in arrays]
        if missing:
            raise ValueError(
                f"{path} must hold the arrays {', '.join(ARRAYS)}; it has no "
                f"{', '.join(missing)}."
            )
        return cls(**{name: arrays[name] for name in ARRAYS})

    def to_file(self, path: str) -> None:
        """Write the four arrays as an .npz file, atomically.

        Raises:
            FileNotFoundError: The file's folder does not exist.
        """
        check_parent_folder(path)
        array_files.write_npz(path, {name: getattr(self, name) for name in ARRAYS})


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Accuracies of several seeds, their mean and its confidence interval.

    Attributes:
        per_seed: One accuracy in [0, 1] per seed.
    """

    per_seed: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.per_seed))

    @property
    def half_width(self) -> float:
        """Half of the interval: Student's t times the mean's standard error.

        Not a number (NaN) with a single seed, which has no spread.
        """
        number = len(self.per_seed)
        if number < 2:
            return math.nan
        error = float(np.std(self.per_seed, ddof=1)) / math.sqrt(number)
        return float(special.stdtrit(number - 1, (1 + CONFIDENCE) / 2)) * error

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high) of the mean."""
        return self.mean - self.half_width, self.mean + self.half_width

    def as_dict(self) -> dict[str, Any]:
        """Return `mean`, `interval` and `per_seed` as JSON's own types."""
        interval, per_seed = list(self.interval), list(self.per_seed)
        return {"mean": self.mean, "interval": interval, "per_seed": per_seed}


def compute_accuracies(
    data: FeatureSet,
    *,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = SEEDS,
    strengths: Sequence[float] = (STRENGTH,),
) -> Mapping[float, Mapping[int, Accuracy]]:
    """Compute few-shot accuracies, by strength and number of shots.

        for each seed:
            permute every class's training images
            for each number of shots k:
                fit on the first k images of every class   (a subset of more shots)
                for each strength: predict the test images

    Args:
        data: Features of both parts.
        shots: Training images per class.
        seeds: Seeds of the permutations.
        strengths: Strengths of the L2 regularisation; they share the normal equations.

    Raises:
        ValueError: A class has fewer training images than the most shots, or an
            argument is empty, not positive or contains a number twice.

    References: Zhai et al. 2022, §2; the authors' evaluator for what §2 leaves open.
    """
    check_shots(data.train_labels, shots)
    check_numbers(seeds=seeds, strengths=strengths)
    found: dict[float, dict[int, list[float]]] = {
        strength: {number: [] for number in shots} for strength in strengths
    }
    classes = cast(int, data.classes)  # Set in __post_init__.
    for seed in seeds:
        order = permute_classes(data.train_labels, classes, seed)
        for number in shots:
            selected = np.concatenate([indices[:number] for indices in order])
            fitted = regression.normal_equations(
                data.train_features[selected], data.train_labels[selected], classes
            )
            for strength in strengths:
                predicted = fitted.predict(data.test_features, strength)
                right = float(np.mean(predicted == data.test_labels))
                found[strength][number].append(right)
    return {
        strength: {number: Accuracy(tuple(values)) for number, values in rows.items()}
        for strength, rows in found.items()
    }


def check_parent_folder(path: str) -> None:
    """Raise unless the folder of a file to be written exists."""
    folder = os.path.dirname(path) or "."
    if not epath.Path(folder).is_dir():
        raise FileNotFoundError(
            f"The folder {folder!r} of {os.path.basename(path)!r} does not exist. "
            "Create it first."
        )


def permute_classes(labels: np.ndarray, classes: int, seed: int) -> list[np.ndarray]:
    """Return every class's indices in a random order: the first k are its k shots.

    The generator and its order of calls are the authors', so that the same seed takes
    the same images.
    """
    generator = np.random.default_rng(seed)
    order = np.argsort(labels, kind="stable")  # Ascending within every class.
    bounds = np.searchsorted(labels[order], np.arange(1, classes))
    return [generator.permutation(part) for part in np.split(order, bounds)]


def check_shots(train_labels: np.ndarray, shots: Sequence[int]) -> None:
    """Raise unless every class has enough training images for all shots."""
    check_numbers(shots=shots)
    counts = np.bincount(train_labels)
    short = np.flatnonzero(counts < max(shots))
    if len(short):
        raise ValueError(
            f"`shots`={max(shots)} needs that many training images of every class; "
            f"there are fewer of {_list_classes(short)} (minimum: "
            f"{counts[short].min()}). Take fewer shots or more images."
        )


def check_numbers(**numbers: Sequence[float]) -> None:
    """Raise unless shots, seeds or strengths, given by name, are valid."""
    for name, values in numbers.items():
        valid = [value >= 0 if name == "seeds" else value > 0 for value in values]
        if not valid or not all(valid) or len(set(values)) < len(values):
            sign = "not negative" if name == "seeds" else "positive"
            raise ValueError(
                f"`{name}` must be one or more different numbers, {sign}; received "
                f"{values}."
            )


def _check_arrays(side: str, features: np.ndarray, labels: np.ndarray) -> None:
    if features.ndim != 2 or features.dtype.kind != "f":
        raise ValueError(
            f"`{side}_features` must be floats of shape (images, width); received "
            f"{features.dtype} of shape {features.shape}."
        )
    if labels.shape != features.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"`{side}_labels` must be {len(features)} integers, one per row of "
            f"{side}_features; received {labels.dtype} of shape {labels.shape}."
        )
    if not len(labels) or labels.min() < 0:
        raise ValueError(f"`{side}_labels` must be one or more numbers of classes ≥ 0.")
    if not np.isfinite(features).all():
        raise ValueError(
            f"`{side}_features` has values that are not finite, in "
            f"{int((~np.isfinite(features)).any(axis=1).sum())} rows."
        )


def _list_classes(classes: np.ndarray) -> str:
    """Return "class 3", or "classes 0, 1, 2 and 7 more"."""
    shown = ", ".join(str(number) for number in classes[:5])
    more = f" and {len(classes) - 5} more" if len(classes) > 5 else ""
    return f"class{'es' if len(classes) > 1 else ''} {shown}{more}"
