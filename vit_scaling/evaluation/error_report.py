"""What a classifier gets wrong: by class, by confidence, and the worst images."""
# SPDX-License-Identifier: Apache-2.0

import base64
import dataclasses
import functools
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from vit_scaling.argument_types import ValueRange
from vit_scaling.evaluation.images import Batch, Compute, Images, make_pass
from vit_scaling.io_files import write_text

BINS = 15  # Of confidence, as in Guo et al. 2017, "On Calibration".
MAX_MATRIX_CLASSES = 40  # More are unreadable: only the most frequent confusions.
MAX_CONFUSIONS = 30
MAX_MISTAKES = 48
_TEMPLATE = pathlib.Path(__file__).with_name("error_report.html")


class Bin(NamedTuple):
    """Images of similar confidence."""

    images: int
    confidence: float
    accuracy: float


@dataclasses.dataclass(frozen=True, eq=False)
class Guesses:
    """A model's best guess for each image of a set that has exactly one label.

    Attributes:
        names: Of the classes, in the order of the logits.
        labels: Class of each image (N,).
        guesses: Most probable class of each image (N,).
        confidence: Probability of the guess (N,), in [0, 1].
        positions: Place of each image in the set (N,).
        left_out: Number of images of the set with no label or several.
    """

    names: Sequence[str]
    labels: np.ndarray
    guesses: np.ndarray
    confidence: np.ndarray
    positions: np.ndarray
    left_out: int = 0

    @property
    def right(self) -> np.ndarray:
        """Whether each guess is right (N,)."""
        return self.guesses == self.labels

    @functools.cached_property
    def confusion(self) -> np.ndarray:
        """Number of images by class (row) and guess (column), (classes, classes)."""
        matrix = np.zeros([len(self.names)] * 2, np.int64)
        np.add.at(matrix, (self.labels, self.guesses), 1)
        return matrix

    def calibration(self) -> list[Bin]:
        """Return the images in `BINS` equal ranges of confidence, the empty left out.

        A confidence on the border of two ranges belongs to the lower one.
        """
        numbers = np.ceil(self.confidence * BINS).astype(int) - 1
        numbers = np.clip(numbers, 0, BINS - 1)
        chosen = [numbers == number for number in range(BINS)]
        return [
            Bin(
                int(members.sum()),
                float(self.confidence[members].mean()),
                float(self.right[members].mean()),
            )
            for members in chosen
            if members.any()
        ]

    def calibration_error(self) -> float:
        """Return the expected calibration error (ECE), in [0, 1] (Guo et al. 2017)."""
        gaps = [b.images * abs(b.accuracy - b.confidence) for b in self.calibration()]
        return sum(gaps) / len(self.labels)

    def confusions(self) -> list[tuple[str, str, int]]:
        """Return (class, guess, images) of the wrong guesses, most frequent first."""
        wrong = self.confusion - np.diag(np.diag(self.confusion))
        order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_CONFUSIONS]
        rows, columns = np.unravel_index(order, wrong.shape)
        return [
            (self.names[row], self.names[column], int(wrong[row, column]))
            for row, column in zip(rows, columns, strict=True)
            if wrong[row, column]
        ]

    def worst(self) -> np.ndarray:
        """Return indices of the wrong guesses, the most confident first."""
        wrong = np.flatnonzero(~self.right)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")][:MAX_MISTAKES]


def guess_classes(
    compute: Compute,
    images: Images,
    names: Sequence[str],
    *,
    strategy: tf.distribute.Strategy,
    batch_size: int,
    softmax: bool,
) -> Guesses:
    """Run a model over a set.

    Args:
        compute: From images to logits (batch, classes).
        images: The set.
        names: Of the classes, in the order of the logits.
        strategy: Under which the model runs, on one host.
        batch_size: Images of all replicas together.
        softmax: Whether probabilities are the logits' softmax, not their sigmoids.

    Raises:
        ValueError: No image has exactly one label.
    """

    def apply(batch: Batch) -> dict[str, tf.Tensor]:
        logits = tf.cast(compute(batch["images"]), tf.float32)
        probabilities = tf.nn.softmax(logits) if softmax else tf.sigmoid(logits)
        labels = batch["labels"] > 0
        return {
            "guess": tf.argmax(logits, axis=1),
            "confidence": tf.reduce_max(probabilities, axis=1),
            "label": tf.argmax(labels, axis=1),
            "labels": tf.math.count_nonzero(labels, axis=1),
        }

    rows = make_pass(apply, strategy, batch_size=batch_size)(images)
    positions = np.flatnonzero(rows["labels"] == 1)
    if not len(positions):
        raise ValueError(
            "A report needs images of exactly one label; the set has none."
        )
    return Guesses(
        names=tuple(names),
        labels=rows["label"][positions].astype(np.int64),
        guesses=rows["guess"][positions].astype(np.int64),
        confidence=rows["confidence"][positions],
        positions=positions,
        left_out=len(rows["labels"]) - len(positions),
    )


def write_report(
    path: str,
    sets: Mapping[str, tuple[Guesses, Images]],
    *,
    title: str,
    value_range: ValueRange,
    batch_size: int,
) -> None:
    """Write one HTML page: accuracy by class, confusions, calibration, worst mistakes.

    Args:
        path: Of the page.
        sets: Guesses and images by the set's name.
        title: What was evaluated.
        value_range: Of the images' pixels.
        batch_size: Images read at once.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    shown = [
        _describe_set(name, guesses, images, value_range, batch_size)
        for name, (guesses, images) in sets.items()
    ]
    write_text(path, template.render(title=title, sets=shown))


def _describe_set(
    name: str,
    guesses: Guesses,
    images: Images,
    value_range: ValueRange,
    batch_size: int,
) -> dict[str, Any]:
    worst = guesses.worst()
    pixels = _read_images(images, guesses.positions[worst], batch_size)
    small = len(guesses.names) <= MAX_MATRIX_CLASSES
    return {
        "name": name,
        "guesses": guesses,
        "images": len(guesses.labels),
        "accuracy": float(guesses.right.mean()),
        "classes": _describe_classes(guesses),
        "matrix": guesses.confusion.tolist() if small else None,
        "mistakes": [
            {
                "image": _encode(pixels[int(guesses.positions[row])], value_range),
                "label": guesses.names[guesses.labels[row]],
                "guess": guesses.names[guesses.guesses[row]],
                "confidence": float(guesses.confidence[row]),
            }
            for row in worst
        ],
    }


def _describe_classes(guesses: Guesses) -> list[dict[str, Any]]:
    """Return the classes of the set, the least accurate first."""
    images = guesses.confusion.sum(axis=1)
    right = np.diag(guesses.confusion)
    present = np.flatnonzero(images)
    order = present[np.argsort(right[present] / images[present], kind="stable")]
    return [
        {
            "name": guesses.names[one],
            "images": int(images[one]),
            "accuracy": float(right[one] / images[one]),
            "interval": _interval(int(right[one]), int(images[one])),
        }
        for one in order
    ]


def _interval(right: int, images: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a fraction."""
    from scipy.stats import binomtest

    found = binomtest(right, images).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def _read_images(
    images: Images, positions: np.ndarray, batch_size: int
) -> dict[int, np.ndarray]:
    """Return the pixels of some images of a set, by place."""
    wanted, found, first = set(map(int, positions)), {}, 0
    for batch in images.dataset(batch_size=batch_size):
        real = np.flatnonzero(batch["mask"].numpy() > 0)
        for place, row in enumerate(real, start=first):
            if place in wanted:
                found[place] = batch["images"][row].numpy()
        first += len(real)
        if len(found) == len(wanted):
            break
    return found


def _encode(pixels: np.ndarray, value_range: ValueRange) -> str:
    """Return pixels as base64 PNG."""
    low, high = (np.asarray(value, np.float32) for value in value_range)
    scaled = np.clip((pixels.astype(np.float32) - low) / (high - low), 0, 1)
    buffer = io.BytesIO()
    Image.fromarray(np.round(255 * scaled).astype(np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
