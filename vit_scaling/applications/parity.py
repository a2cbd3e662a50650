"""Compare an imported model with its source's own forward pass, and say how it went."""
# SPDX-License-Identifier: Apache-2.0

import json
from typing import Any

import keras
import numpy as np

from vit_scaling import array_files as files
from vit_scaling.applications import weights as weights_module
from vit_scaling.applications.addresses import local_path
from vit_scaling.applications.formats.layout import ViTWeights
from vit_scaling.applications.formats.reference import FORWARDS, reference_outputs
from vit_scaling.applications.formats.source import Request

TOLERANCE = 1e-5  # Of float32 against float64, relative to the largest output.
# What the reference takes as it was read: were it wrong, both sides would agree.
TAKEN_AS_READ = ("heads", "kind of head", "order in a block", "GELU", "epsilon")


def parity(
    source: str, weights: ViTWeights, *, images: int = 2, seed: int = 0
) -> dict[str, Any]:
    """Return how far our model's outputs are from the source's, on random images.

    The reference computes in float64 on the file's own arrays and shares nothing with
    the tables that renamed them.

    Args:
        source: The file that the weights were read from.
        weights: What `read_weights` made of it.
        images: Number of images, uniform in [-1, 1], of the file's own size.
        seed: Seed of the images.

    Returns:
        `images`, `largest_difference`, `largest_output`, `relative_difference`,
        `tolerance`, `within_tolerance`, and `taken_as_read`: of what the comparison
        says nothing.
    """
    model = weights_module.build_model(weights)
    height, width = model.input.shape[1:3]
    shown = np.random.default_rng(seed).uniform(-1, 1, (images, height, width, 3))
    shown = shown.astype(np.float32)
    answer = keras.ops.convert_to_numpy(model(shown, training=False))
    path = local_path(source)
    if path.endswith(".safetensors"):
        arrays, _ = files.read_safetensors(path)
    else:
        arrays = files.read_npz(path)
    wanted = reference_outputs(arrays, weights, shown)
    difference = float(np.abs(answer - wanted).max())
    largest = float(np.abs(wanted).max())
    return {
        "images": images,
        "largest_difference": difference,
        "largest_output": largest,
        "relative_difference": difference / max(largest, 1e-30),
        "tolerance": TOLERANCE,
        "within_tolerance": difference <= TOLERANCE * max(largest, 1.0),
        "taken_as_read": list(TAKEN_AS_READ),
    }


def import_weights(
    source: str,
    output: str,
    *,
    request: Request | None = None,
    image_size: int | tuple[int, int] | None = None,
    parity_images: int = 2,
) -> dict[str, Any]:
    """Turn a file of any known layout into `.keras` or our `.npz`; report everything.

    Args:
        source: See `read_weights`.
        output: A name that ends in `.keras` or `.npz`; written whole or not at all,
            and not at all when the outputs differ from the source's.
        request: What is known of the file or wanted of it; None: as the file says.
        image_size: Pixels of the model written (`.keras` only); positions are
            resampled. None keeps the file's.
        parity_images: Images for the parity report; 0 leaves it out.

    Returns:
        `layout`, `model` (the arguments of `vit`), `used` and `left_out` (from array
        names to what became of them), `filled`, `assumed` (what neither file nor
        caller says), `parameters`, `parity`, `output`.

    Raises:
        ValueError: See `read_weights`; or the outputs differ by more than `TOLERANCE`.
    """
    weights = weights_module.read_weights(source, **vars(request or Request()))
    compared = None
    if parity_images and weights.layout in FORWARDS:
        compared = parity(source, weights, images=parity_images)
        if not compared["within_tolerance"]:
            raise ValueError(
                f"The outputs differ from the source's by "
                f"{compared['largest_difference']:.3g} where the largest is "
                f"{compared['largest_output']:.3g}. Nothing was written; please report "
                "this file's layout."
            )
    weights_module.save_weights(weights, output, image_size=image_size)
    return {
        "source": source,
        "output": output,
        "layout": weights.layout,
        "model": json.loads(weights_module.own.arguments_as_text(weights.arguments)),
        "parameters": sum(value.size for value in weights.variables.values()),
        "used": weights.used,
        "left_out": weights.left_out,
        "filled": list(weights.filled),
        "assumed": list(weights.assumed),
        "parity": compared,
    }
