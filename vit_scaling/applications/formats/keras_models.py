"""Read the arguments and weights of a Keras model that `vit` built."""
# SPDX-License-Identifier: Apache-2.0

from typing import Any

import numpy as np

from vit_scaling.applications.formats.vit_weights import (
    ViTWeights,
    arguments_from_variables,
)
from vit_scaling.array_files import Arrays
from vit_scaling.modeling.head_specs import HEADS, POOLING_HEADS, head_layer_name
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.modeling.variables import vit_variables

LAYERS = {"patch_embedding", "position_embedding", "block_00", "encoder_norm"}


def weights_of_model(model: Any) -> ViTWeights:
    """Return the weights of a model that `vit_scaling.modeling.vit.vit` built.

    The arguments are derived from the model's layers, so copies work as well: loaded
    from a `.keras`, cloned, or with a softmax after the classifier.

    Raises:
        ValueError: The model is not such a ViT.
    """
    layers = {layer.name: layer for layer in model.layers}
    if missing := LAYERS - layers.keys():
        raise ValueError(
            f"Model {model.name!r} is not a Vision Transformer of this package: it "
            f"lacks the layers {', '.join(map(repr, sorted(missing)))}."
        )
    variables = {v.path: np.asarray(v) for v in model.variables}
    arguments = _arguments(model, layers, variables)
    expected = vit_variables(**arguments)
    others = variables.keys() - expected.keys()
    _check_head(model, layers, others)
    for path, shape in expected.items():
        found = variables[path].shape if path in variables else "missing"
        if found != shape:
            raise ValueError(
                f"Model {model.name!r} is not a Vision Transformer of this package: "
                f"its {path!r} is {found}, but its other layers imply {shape}."
            )
    return ViTWeights(
        layout="vit_scaling",
        arguments=arguments,
        variables={path: variables[path] for path in expected},
        used={path: path for path in expected},
        left_out=dict.fromkeys(others, "not part of the model"),
    )


def _arguments(model: Any, layers: dict[str, Any], variables: Arrays) -> dict[str, Any]:
    """Return the arguments of `vit` that give the model's layers and variables."""
    block, norm = layers["block_00"], layers["encoder_norm"]
    depth = sum(name.startswith("block_") for name in layers)
    patch, _, channels, width = variables["patch_embedding/kernel"].shape
    if channels != 3:
        raise ValueError(f"The model's images must have 3 channels; it has {channels}.")
    learned = "position_embedding/embedding" in variables
    return {
        "shape": ViTShape(patch, width, depth, block.mlp_width, block.heads),
        "head": next(
            (h for h in POOLING_HEADS if head_layer_name(h) in layers), "none"
        ),
        "image_size": _image_size(model, layers["position_embedding"].grid, patch),
        "position": "learned" if learned else "sincos",
        **arguments_from_variables(variables),
        "layer_scale": block.options.layer_scale,
        "approximate_gelu": block.options.approximate_gelu,
        "norm_epsilon": norm.epsilon,
        "norm_after_pooling": len(norm.output.shape) == 2,
    }


def _image_size(model: Any, grid: tuple[int, int], patch: int) -> tuple[int, int]:
    """Return the size of the images that are split into patches.

    Layers before the patch embedding may change the size of the model's input.
    """
    height, width = model.input.shape[1:3]
    if height and width and (height // patch, width // patch) == tuple(grid):
        return height, width
    return grid[0] * patch, grid[1] * patch


def _check_head(model: Any, layers: dict[str, Any], others: set[str]) -> None:
    """Raise if the model pools its tokens by a head that has no name."""
    others = {path for path in others if "seed" not in path}
    pooled = "pre_logits" in layers and len(layers["pre_logits"].output.shape) == 2
    named = any(head_layer_name(head) in layers for head in POOLING_HEADS)
    if others or (pooled and not named):
        listed = f": {', '.join(sorted(others)[:3])}" if others else ""
        raise ValueError(
            f"Model {model.name!r} has a custom head, which no other layout can store"
            f"{listed}. Supported heads: {', '.join(HEADS)}."
        )
