"""This package's own .npz of weights, keyed by variable path, with its model."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_scaling.applications.formats.layout import (
    Arrays,
    ViTWeights,
    expected_variables,
)
from vit_scaling.modeling.shapes import ViTShape

LAYERS = {"patch_embedding", "position_embedding", "block_00", "encoder_norm"}
ARGUMENTS = "vit_scaling_arguments"  # JSON text, held as an array of bytes.


def is_own(names: set[str]) -> bool:
    """Return whether an .npz was written by `write_own`."""
    return ARGUMENTS in names


def read_own(arrays: Arrays) -> ViTWeights:
    """Return the weights of an .npz that `write_own` made.

    Raises:
        ValueError: A variable is missing, too many, or of another shape than the
            model's arguments say.
    """
    variables = {name: arrays[name] for name in arrays if name != ARGUMENTS}
    arguments = arguments_from_text(arrays[ARGUMENTS].tobytes().decode())
    expected = expected_variables(arguments)
    found = {path: value.shape for path, value in variables.items()}
    if found != expected:
        wrong = sorted({path for path, _ in found.items() ^ expected.items()})
        raise ValueError(
            f"The file's variables are not those of its own model, {arguments}: "
            f"{', '.join(wrong[:5])}. It was changed after it was written."
        )
    return ViTWeights("vit_scaling", arguments, variables, {p: p for p in variables})


def write_own(weights: ViTWeights) -> Arrays:
    """Return the arrays of this package's own .npz."""
    text = np.frombuffer(arguments_as_text(weights.arguments).encode(), np.uint8)
    return {ARGUMENTS: text, **weights.variables}


def arguments_as_text(arguments: Mapping[str, Any]) -> str:
    """Return `vit`'s arguments as JSON."""
    shape = dataclasses.asdict(arguments["shape"])
    return json.dumps({**arguments, "shape": shape}, sort_keys=True)


def arguments_from_text(text: str) -> dict[str, Any]:
    """Return `vit`'s arguments from JSON."""
    arguments = json.loads(text)
    size = arguments["image_size"]
    arguments["image_size"] = tuple(size) if isinstance(size, list) else size
    return {**arguments, "shape": ViTShape(**arguments["shape"])}


def weights_of(model: Any) -> ViTWeights:
    """Return the weights of a model that `vit_scaling.modeling.vit.vit` built.

    The arguments are read off the model's layers, so any copy of it serves: loaded from
    a `.keras`, cloned, or with a softmax behind the classifier.

    Raises:
        ValueError: The model is no such ViT.
    """
    layers = {layer.name: layer for layer in model.layers}
    if missing := LAYERS - layers.keys():
        raise ValueError(
            f"Model {model.name!r} is no Vision Transformer of this package: it has no "
            f"layers {', '.join(map(repr, sorted(missing)))}."
        )
    variables = {v.path: np.asarray(v) for v in model.variables}
    block = layers["block_00"]
    blocks = sum(name.startswith("block_") for name in layers)
    patches, _, channels, width = variables["patch_embedding/kernel"].shape
    if channels != 3:
        raise ValueError(f"The model's images must have 3 channels; it has {channels}.")
    registers = variables.get("register_tokens/tokens")
    heads = [name for name in ("token", "gap", "map") if f"{name}_head" in layers]
    arguments = {
        "shape": ViTShape(patches, width, blocks, block.mlp_width, block.heads),
        "head": heads[0] if heads else "none",
        "image_size": _image_size(model, layers["position_embedding"].grid, patches),
        "position": "learned"
        if "position_embedding/embedding" in variables
        else "sincos",
        "classes": _width(variables, "head/bias"),
        "representation_width": _width(variables, "pre_logits/bias"),
        "layer_scale": block.layer_scale,
        "qk_norm": block.qk_norm,
        "register_tokens": 0 if registers is None else registers.shape[1],
        "approximate_gelu": block.approximate_gelu,
        "norm_epsilon": layers["encoder_norm"].epsilon,
        "norm_after_pooling": len(layers["encoder_norm"].output.shape) == 2,
    }
    expected = expected_variables(arguments)
    _check_head(model, layers, variables.keys() - expected.keys())
    for path, shape in expected.items():
        found = variables[path].shape if path in variables else "missing"
        if found != shape:
            raise ValueError(
                f"Model {model.name!r} is no Vision Transformer of this package: its "
                f"{path!r} is {found}, where its other layers make it {shape}."
            )
    return ViTWeights(
        "vit_scaling",
        arguments,
        {path: variables[path] for path in expected},
        {path: path for path in expected},
        {path: "no part of the model" for path in variables.keys() - expected.keys()},
    )


def _image_size(model: Any, grid: tuple[int, int], patch: int) -> tuple[int, int]:
    """Return the pixels of what is cut into patches, not of layers in front of it."""
    height, width = model.input.shape[1:3]
    if height and width and (height // patch, width // patch) == tuple(grid):
        return height, width
    return grid[0] * patch, grid[1] * patch


def _check_head(model: Any, layers: dict[str, Any], rest: set[str]) -> None:
    """Raise if a head that has no name stands between tokens and features."""
    rest = {path for path in rest if "seed" not in path}
    pooled = "pre_logits" in layers and len(layers["pre_logits"].output.shape) == 2
    named = any(f"{name}_head" in layers for name in ("token", "gap", "map"))
    if rest or (pooled and not named):
        raise ValueError(
            f"Model {model.name!r} has a head of its own, which no other layout can "
            f"hold{': ' + ', '.join(sorted(rest)[:3]) if rest else ''}. Only 'token', "
            "'gap', 'map' and 'none' can be written."
        )


def _width(variables: Arrays, path: str) -> int | None:
    return variables[path].shape[0] if path in variables else None
