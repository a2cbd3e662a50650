"""All formats of weights that can be read, in the order in which they are tried."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_scaling.applications.formats import (
    big_vision,
    huggingface,
    native_npz,
    timm,
    weights_format,
)
from vit_scaling.applications.formats.huggingface_config import check_model_type
from vit_scaling.applications.formats.numpy_reference import NumpyReference
from vit_scaling.applications.formats.vit_weights import ReadOptions, ViTWeights
from vit_scaling.array_files import Arrays

FORMATS = (native_npz.FORMAT, timm.FORMAT, huggingface.FORMAT, big_vision.FORMAT)
# Layouts whose outputs can be compared with those of their project's own model.
REFERENCES = {name: f for f in FORMATS if f.reference for name in f.layouts}


def read_arrays(
    arrays: Arrays, options: ReadOptions, config: Mapping[str, Any]
) -> ViTWeights | None:
    """Return the weights in a file's arrays; None if no format has such arrays.

    Args:
        arrays: The file's arrays.
        options: The caller's options.
        config: The publisher's config.json, or {}.

    Raises:
        ValueError: The file is incomplete or does not match the options.
    """
    for known in FORMATS:
        if known.find_prefix(arrays) is not None:
            return known.read(arrays, options, config)
    check_model_type(config)
    return None


def make_reference(
    arrays: Arrays,
    weights: ViTWeights,
    config: Mapping[str, Any] | None = None,
    options: ReadOptions | None = None,
) -> NumpyReference:
    """Return the source's own model in NumPy and float64; see `NumpyReference`.

    Shares nothing with the tables that rename arrays nor with the readers of
    configurations, so an error in them shows as a difference in outputs.

    Args:
        arrays: The file's arrays.
        weights: What was read from them.
        config: The publisher's config.json, or {}.
        options: What the caller asked for in place of the source's facts.

    Raises:
        ValueError: The layout is this package's own, and our model the reference.
    """
    source_format = REFERENCES.get(weights.layout)
    if source_format is None or source_format.reference is None:
        raise ValueError(
            f"There is no reference for layout {weights.layout!r}; known: "
            f"{', '.join(REFERENCES)}."
        )
    prefix = source_format.find_prefix(arrays) or ""
    return source_format.reference(
        arrays, weights, prefix, config=config, options=options
    )


def reference_outputs(
    arrays: Arrays,
    weights: ViTWeights,
    images: np.ndarray,
    config: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """Compute the outputs of the source's own model; see `make_reference`.

    Args:
        arrays: The file's arrays.
        weights: What was read from them.
        images: (batch, height, width, 3) in [-1, 1], of the file's own size.
        config: The publisher's config.json, or {}.

    Returns:
        Logits, or features if the model has no classifier.
    """
    return make_reference(arrays, weights, config).outputs(images)


def convert_for_export(
    weights: ViTWeights, path: str
) -> tuple[str, weights_format.ExportedWeights]:
    """Convert weights to the layout of other projects that has the path's suffix.

    Returns:
        The layout's name, and the weights in it.

    Raises:
        ValueError: The path has another suffix, or the layout cannot hold the model.
    """
    suffixes = []
    for known in FORMATS:
        if known.write is not None:
            if path.endswith(known.suffix):
                return known.layouts[0], known.write(weights)
            suffixes.append(f"{known.suffix!r} ({known.layouts[0]}'s layout)")
    raise ValueError(
        f"`output` must end in {' or '.join(suffixes)}; received {path!r}."
    )
