"""This package's own .npz: weights by variable path, and the arguments of `vit`."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_scaling.applications.formats.conversion import reconvert
from vit_scaling.applications.formats.vit_weights import ReadOptions, ViTWeights
from vit_scaling.applications.formats.weights_format import WeightsFormat
from vit_scaling.array_files import Arrays
from vit_scaling.io_files import json_text
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.modeling.variables import vit_variables

# Arrays of bytes, JSON text in UTF-8: the arguments, and the record of the weights.
ARGUMENTS, RECORD_KEY = "vit_scaling_arguments", "vit_scaling_record"


def read_native(
    arrays: Arrays, options: ReadOptions, config: Mapping[str, Any] | None = None
) -> ViTWeights:
    """Read the arrays of an .npz that `write_native` made.

    Args:
        arrays: The file's arrays.
        options: The caller's options.
        config: Not used; the file holds everything.

    Raises:
        ValueError: The variables are not exactly those that the arguments imply, or do
            not have the requested shape or head.
    """
    others = (ARGUMENTS, RECORD_KEY)
    variables = {name: arrays[name] for name in arrays if name not in others}
    arguments = arguments_from_text(arrays[ARGUMENTS].tobytes().decode())
    expected = vit_variables(**arguments)
    found = {path: value.shape for path, value in variables.items()}
    if found != expected:
        wrong = sorted({path for path, _ in found.items() ^ expected.items()})
        raise ValueError(
            f"The file's variables do not match its own arguments {arguments}: "
            f"{', '.join(wrong[:5])}. It was changed after it was written."
        )
    return reconvert(ViTWeights("vit_scaling", arguments, variables), options)


def write_native(weights: ViTWeights) -> Arrays:
    """Return the arrays of this package's own .npz."""
    texts = {ARGUMENTS: arguments_as_text(weights.arguments)} | record_text(weights)
    stored = {name: np.frombuffer(texts[name].encode(), np.uint8) for name in texts}
    return {**stored, **weights.variables}


def record_text(weights: ViTWeights) -> dict[str, str]:
    """Return the record of the weights as JSON, under its key in files."""
    if weights.record is None:
        return {}
    return {RECORD_KEY: json_text(weights.record.as_dict())}


def arguments_as_text(arguments: Mapping[str, Any]) -> str:
    """Return `vit`'s arguments as JSON."""
    shape = dataclasses.asdict(arguments["shape"])
    return json.dumps({**arguments, "shape": shape}, sort_keys=True)


def arguments_from_text(text: str) -> dict[str, Any]:
    """Return `vit`'s arguments from JSON.

    Raises:
        ValueError: The text is not that of arguments.
    """
    try:
        arguments = json.loads(text)
        size = arguments["image_size"]
        arguments["image_size"] = tuple(size) if isinstance(size, list) else size
        arguments["shape"] = ViTShape(**arguments["shape"])
        vit_variables(**arguments)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"The arguments of the model in the file are damaged ({error!r}). Write "
            "the file again from its source."
        ) from error
    return arguments


FORMAT = WeightsFormat(
    layouts=("vit_scaling",),
    description="this package's own .npz, .keras or run folder",
    markers=(ARGUMENTS,),
    read=read_native,
)
