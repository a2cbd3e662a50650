"""Preprocess images for applications, and decode their predictions into names."""
# SPDX-License-Identifier: Apache-2.0

import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vit_scaling.argument_types import ValueRange
from vit_scaling.image_preprocessing import (
    decode,
    preprocessing_from_record,
    scale_pixels,
)
from vit_scaling.run_record import RunRecord


def preprocess_input(
    x: Any,
    data_format: str | None = None,
    *,
    value_range: ValueRange = (-1.0, 1.0),
) -> Any:
    """Scale images in [0, 255] to the range that a model expects, [-1, 1] by default.

    Args:
        x: Array or tensor of 3 or 4 dimensions. A floating-point array is scaled in
            place to [-1, 1], as by Keras' own function.
        data_format: None, "channels_last" or "channels_first".
        value_range: Values of pixels 0 and 255. Weights of other projects may have
            another one: `model.record.value_range`, for channels that come last.

    Example:
        >>> preprocess_input(np.array([[[0, 127.5, 255]]])).tolist()
        [[[-1.0, 0.0, 1.0]]]
    """
    if tuple(value_range) != (-1.0, 1.0):
        low, high = (np.asarray(value, np.float32) for value in value_range)
        return low + x * ((high - low) / np.float32(255))
    return keras.applications.imagenet_utils.preprocess_input(
        x, data_format=data_format, mode="tf"
    )


def prepare_images(
    images: Sequence[str | os.PathLike[str] | np.ndarray], record: RunRecord
) -> np.ndarray:
    """Return a model's input: images resized, cropped and scaled as it was trained.

    Args:
        images: Paths of files, or uint8 arrays (height, width, 3).
        record: The model's `record`, which weights come with.

    Returns:
        (images, height, width, 3) float32.

    Raises:
        ValueError: The weights' own preprocessing is not supported.
    """
    preprocessing = preprocessing_from_record(record)
    pixels = [
        preprocessing.apply(
            tf.constant(image)
            if isinstance(image, np.ndarray)
            else decode(tf.io.read_file(os.fspath(image))),
            record.image_size,
        )
        for image in images
    ]
    return scale_pixels(tf.stack(pixels), *record.value_range).numpy()


def decode_predictions(
    preds: Any, top: int = 5, class_names: Sequence[str] | None = None
) -> list[list[tuple[str, str, float]]]:
    """Return the most likely classes of each example, best first.

    Args:
        preds: Scores, (batch, classes).
        top: Number of classes to return.
        class_names: Name of each class. None takes ImageNet's 1,000, whose list Keras
            fetches once; give names for any other set.

    Returns:
        Per example (identifier, name, score); the identifier is ImageNet's, or the
        class' number where `class_names` are given.

    Raises:
        ValueError: The scores are not of shape (batch, number of names).

    Example:
        >>> decode_predictions(np.array([[0.1, 0.7, 0.2]]), 2, ["cat", "dog", "fox"])
        [[('1', 'dog', 0.7), ('2', 'fox', 0.2)]]
    """
    if class_names is None:
        return keras.applications.imagenet_utils.decode_predictions(preds, top=top)
    scores = keras.ops.convert_to_numpy(preds)
    if scores.ndim != 2 or scores.shape[1] != len(class_names):
        raise ValueError(
            f"`preds` must be of shape (batch, {len(class_names)}), one score for each "
            f"of `class_names`; received {scores.shape}."
        )
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        [(str(i), class_names[i], float(row[i])) for i in chosen]
        for row, chosen in zip(scores, best, strict=True)
    ]
