"""Adapt trained weights to another range of pixels, or another order of classes."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence

import numpy as np

from vit_scaling.argument_types import ValueRange
from vit_scaling.array_files import Arrays
from vit_scaling.class_names import map_by_name

KERNEL, BIAS = "patch_embedding/kernel", "patch_embedding/bias"
CLASSIFIER = ("head/kernel", "head/bias")


def adapt_to_range(values: Arrays, source: ValueRange, target: ValueRange) -> str:
    """Change the patch embedding, in place, so that it takes pixels of another range.

    A pixel x of the target is a x + b of the source, so that the kernel is multiplied
    by a, and the bias gets the kernel's sum over b. The outputs stay the same.

    Args:
        values: Variables of a ViT by path.
        source: Values of pixels 0 and 255 with which the weights were trained.
        target: The same for the new data.

    Returns:
        What was changed, as a sentence; "" if the ranges are equal.

    Raises:
        ValueError: The weights have no patch embedding with a bias.
    """
    source_low, source_high, low, high = (
        np.broadcast_to(np.asarray(value, np.float64), 3)
        for value in (*source, *target)
    )
    if np.allclose([source_low, source_high], [low, high], atol=1e-6):
        return ""
    if KERNEL not in values or BIAS not in values:
        raise ValueError(
            f"The weights were trained on pixels of range {source}, and the training "
            f"data has {target}. Bind TrainData.value_range and EvalData.value_range "
            "to the former."
        )
    factor = (source_high - source_low) / (high - low)
    offset = source_low - low * factor
    kernel = values[KERNEL].astype(np.float64)  # (patch, patch, channels, width)
    bias = values[BIAS] + np.einsum("ijcw,c->w", kernel, offset)
    values[KERNEL] = (kernel * factor[:, None]).astype(np.float32)
    values[BIAS] = bias.astype(np.float32)
    return f"patch_embedding takes pixels of range {target} instead of {source}"


def adapt_to_classes(
    values: Arrays, source: Sequence[str], target: Sequence[str]
) -> str:
    """Reorder a classifier, in place, for the classes of another set.

    Args:
        values: Variables by path.
        source: Class names of the classifier; may be empty.
        target: Class names of the new data; may be empty.

    Returns:
        What was changed, as a sentence; "" if names are equal or unknown.

    Raises:
        ValueError: The classifier lacks a class of the new data.
    """
    if not source or not target or tuple(source) == tuple(target):
        return ""
    order = map_by_name(
        target, source, source="The training data", reference="the classifier"
    )
    for path in CLASSIFIER:
        if path in values:
            values[path] = values[path][..., list(order)]
    return f"the classifier's {len(source)} classes mapped by name to {len(target)}"
