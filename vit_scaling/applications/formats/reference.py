"""What a file's own model answers: the forward pass of its layout, in NumPy."""
# SPDX-License-Identifier: Apache-2.0

# Nothing here is shared with the tables that rename arrays: an error there shows up as
# a difference in outputs.

import numpy as np

from vit_scaling.applications.formats.forward_flax import FlaxForward
from vit_scaling.applications.formats.forward_torch import (
    HuggingFaceForward,
    TimmForward,
)
from vit_scaling.applications.formats.layout import Arrays, ViTWeights

FORWARDS = {
    "big_vision": FlaxForward,
    "timm": TimmForward,
    "huggingface_vit": HuggingFaceForward,
    "huggingface_siglip": HuggingFaceForward,
}


def reference_outputs(
    arrays: Arrays, weights: ViTWeights, images: np.ndarray
) -> np.ndarray:
    """Return what the source's model answers, computed in float64.

    Args:
        arrays: The file's arrays as they were read.
        weights: What was made of them: layout, heads, epsilon and GELU are read.
        images: (batch, height, width, 3) in [-1, 1], of the file's own size.

    Returns:
        Logits, or features where the model has no classifier.

    Raises:
        ValueError: The layout is this package's own, and its model the reference.
    """
    if weights.layout not in FORWARDS:
        raise ValueError(
            f"There is no reference for layout {weights.layout!r}; known: "
            f"{', '.join(FORWARDS)}."
        )
    return FORWARDS[weights.layout](arrays, weights).outputs(images)
