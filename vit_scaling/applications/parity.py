"""Import weights, and compare the model's outputs with its source's forward pass."""
# SPDX-License-Identifier: Apache-2.0

import json
from typing import Any

import keras
import numpy as np

from vit_scaling.applications.addresses import local_path
from vit_scaling.applications.formats.native_npz import arguments_as_text
from vit_scaling.applications.formats.registry import REFERENCES, make_reference
from vit_scaling.applications.formats.sidecar_files import find_configuration
from vit_scaling.applications.formats.vit_weights import ReadOptions, ViTWeights
from vit_scaling.applications.sources import SAFETENSORS, find_source
from vit_scaling.applications.weights import build_model, read_weights, save_weights
from vit_scaling.modeling.shapes import shape_name

TOLERANCE = 1e-5  # Of float32 against float64, relative to the largest output.


def measure_parity(
    source: str,
    weights: ViTWeights,
    *,
    options: ReadOptions | None = None,
    images: int = 2,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure how far our model's outputs are from the source's, on random images.

    The reference computes in float64 on the file's own arrays, as its configuration
    says; it shares nothing with the tables that rename them nor with the reader.

    Args:
        source: The file that the weights were read from.
        weights: Weights that `read_weights` read from it.
        options: The options that they were read with.
        images: Number of images, uniform in [-1, 1], of the file's own size.
        seed: Seed of the images.

    Returns:
        `images`, `largest_difference`, `largest_output`, `relative_difference`,
        `tolerance`, `within_tolerance`, and `not_compared`: facts that the source does
        not state, which the reference takes from the reader or the caller.
    """
    model = build_model(weights)
    shape = (images, *model.input.shape[1:])
    inputs = np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
    outputs = keras.ops.convert_to_numpy(model(inputs, training=False))
    options = options or ReadOptions()
    found = find_source(local_path(source, shape=shape_name(weights.shape)))
    arrays, metadata = found.read_arrays()
    path = found.path if found.kind == SAFETENSORS else None
    options, config = find_configuration(path, metadata, options)
    reference = make_reference(arrays, weights, config, options)
    expected = reference.outputs(inputs)
    difference = float(np.abs(outputs - expected).max())
    largest = float(np.abs(expected).max())
    return {
        "images": images,
        "largest_difference": difference,
        "largest_output": largest,
        "relative_difference": difference / max(largest, 1e-30),
        "tolerance": TOLERANCE,
        "within_tolerance": difference <= TOLERANCE * max(largest, 1.0),
        "not_compared": reference.taken_from_reader,
    }


def import_weights(
    source: str,
    output: str,
    *,
    options: ReadOptions | None = None,
    image_size: int | tuple[int, int] | None = None,
    parity_images: int = 2,
) -> dict[str, Any]:
    """Convert a file of any known layout to `.keras` or our `.npz`, with a report.

    Args:
        source: See `read_weights`.
        output: A name that ends in `.keras` or `.npz`; written atomically, and only if
            the outputs equal the source's.
        options: Options of `read_weights`; None: everything as the file says.
        image_size: Pixels of the model written (`.keras` only); positions are
            resampled. None keeps the file's.
        parity_images: Images for the parity report; 0 leaves it out.

    Returns:
        `layout`, `model` (the arguments of `vit`), `used` and `left_out` (from array
        names to their use or the reason), `filled`, `assumed` (facts that neither file
        nor caller states), `parameters`, `parity`, `output`.

    Raises:
        ValueError: See `read_weights`; or the outputs differ by more than `TOLERANCE`.
    """
    weights = read_weights(source, **vars(options or ReadOptions()))
    parity = None
    if parity_images and weights.layout in REFERENCES:
        parity = measure_parity(source, weights, options=options, images=parity_images)
        if not parity["within_tolerance"]:
            raise ValueError(
                f"The outputs differ from the source's by "
                f"{parity['largest_difference']:.3g} where the largest is "
                f"{parity['largest_output']:.3g}. Nothing was written; please report "
                "this file's layout."
            )
    save_weights(weights, output, image_size=image_size)
    return {
        "source": source,
        "output": output,
        "layout": weights.layout,
        "model": json.loads(arguments_as_text(weights.arguments)),
        "parameters": sum(value.size for value in weights.variables.values()),
        "used": weights.used,
        "left_out": weights.left_out,
        "filled": list(weights.filled),
        "assumed": list(weights.assumed),
        "parity": parity,
    }
