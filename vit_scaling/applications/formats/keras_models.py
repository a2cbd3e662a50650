"""Read the arguments and weights of a Keras model that `vit` built."""
# SPDX-License-Identifier: Apache-2.0

import re
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from vit_scaling.adapters import merge
from vit_scaling.applications.formats.vit_weights import (
    ViTWeights,
    arguments_from_variables,
)
from vit_scaling.array_files import Arrays
from vit_scaling.modeling.blocks import EncoderBlock
from vit_scaling.modeling.head_specs import HEADS, POOLING_HEADS, head_layer_name
from vit_scaling.modeling.heads import PoolingHead
from vit_scaling.modeling.layers import PatchEmbedding
from vit_scaling.modeling.noise import Dropout, MaskSeed
from vit_scaling.modeling.positions import Positions
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.modeling.tokens import ClassToken, DropRegisters, RegisterTokens
from vit_scaling.modeling.variables import vit_variables
from vit_scaling.naming import list_some

REQUIRED = {"patch_embedding", "position_embedding", "block_00", "encoder_norm"}
# All layers of `vit`, by a pattern of their names.
VIT_LAYERS: dict[str, Any] = {
    "patch_embedding": PatchEmbedding,
    "position_embedding": Positions,
    "class_token": ClassToken,
    "register_tokens": RegisterTokens,
    "embedding_norm": keras.layers.LayerNormalization,
    "mask_seed": MaskSeed,
    "dropout": Dropout,
    r"block_\d+": EncoderBlock,
    "drop_registers": DropRegisters,
    "encoder_norm": keras.layers.LayerNormalization,
    f"({'|'.join(map(head_layer_name, POOLING_HEADS))})": PoolingHead,
    "pre_logits": (keras.layers.Identity, keras.layers.Dense),
    "head": keras.layers.Dense,
    # Forms of the output that applications add; weights do not depend on them.
    "predictions": (keras.layers.Activation, keras.layers.Softmax),
    "patches_only": keras.layers.Cropping1D,
    "feature_grid": keras.layers.Reshape,
    "avg_pool": keras.layers.GlobalAveragePooling2D,
    "max_pool": keras.layers.GlobalMaxPooling2D,
}


def weights_of_model(model: Any) -> ViTWeights:
    """Return the weights of a model that `vit_scaling.modeling.vit.vit` built.

    Low-rank adapters are merged into the kernels.

    The arguments are derived from the model's layers, so copies work as well: loaded
    from a `.keras`, cloned, or with a softmax after the classifier.

    Raises:
        ValueError: The model is not such a ViT, or has other layers as well.
    """
    layers = {layer.name: layer for layer in model.layers}
    if missing := REQUIRED - layers.keys():
        raise ValueError(
            f"Model {model.name!r} is not a Vision Transformer of this package: it "
            f"lacks the layers {', '.join(map(repr, sorted(missing)))} and has "
            f"{describe_layers(model.layers)}. Take a ViT inside it by "
            "model.get_layer(NAME)."
        )
    variables = merge({v.path: np.asarray(v) for v in model.variables})
    arguments = _arguments(model, layers, variables)
    expected = vit_variables(**arguments)
    others = variables.keys() - expected.keys()
    _check_layers(model, others)
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
        "image_size": tuple(model.input.shape[1:3]),
        "position": "learned" if learned else "sincos",
        **arguments_from_variables(variables),
        "layer_scale": block.options.layer_scale,
        "approximate_gelu": block.options.approximate_gelu,
        "norm_epsilon": norm.epsilon,
        "norm_after_pooling": len(norm.output.shape) == 2,
    }


def layers_before(model: Any, name: str = "patch_embedding") -> list[Any]:
    """Return the layers and other operations that come before a layer of a model."""
    before: list[Any] = []
    for operation in _operations(model):
        if operation.name == name:
            return before
        before.append(operation)
    return []


def preprocessing_layers(model: Any) -> list[Any]:
    """Return the layers in front of a model's first trained one, such as Rescaling."""
    front: list[Any] = []
    for operation in _operations(model):
        if isinstance(operation, keras.Model):
            front += preprocessing_layers(operation)
        is_fixed = isinstance(operation, keras.layers.Normalization)
        if getattr(operation, "weights", ()) and not is_fixed:
            break
        if not isinstance(operation, keras.Model):
            front.append(operation)
    return front


def describe_layers(layers: Any) -> str:
    """Return names and classes of layers for a message: "'a' (Rescaling), …"."""
    texts = [f"{layer.name!r} ({type(layer).__name__})" for layer in layers]
    return list_some(texts, 6)


def _operations(model: Any) -> list[Any]:
    """Return a model's layers and `keras.ops` in order, without inputs and masks."""
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs)
    skipped = keras.layers.InputLayer | MaskSeed
    return [o for o in model.operations if not isinstance(o, skipped)]


def _check_layers(model: Any, unknown: Iterable[str]) -> None:
    """Raise if the model has other layers than `vit` makes, or a custom head.

    Args:
        model: Has at least the layers `REQUIRED`.
        unknown: Paths of variables that `vit` would not create.
    """
    layers = _operations(model)
    others = [layer for layer in layers if not _is_of_vit(layer)]
    before = [layer for layer in layers_before(model) if layer in others]
    after = [layer for layer in others if layer not in before]
    names = {layer.name: layer for layer in layers}
    pooled = "pre_logits" in names and len(names["pre_logits"].output.shape) == 2
    is_named = any(head_layer_name(head) in names for head in POOLING_HEADS)
    unknown = sorted(path for path in unknown if "seed" not in path)
    if not before and ((pooled and not is_named) or (unknown and not after)):
        raise ValueError(
            f"Model {model.name!r} has a custom head, which no other layout can store: "
            f"{describe_layers(after) or list_some(unknown)}. Supported heads: "
            f"{', '.join(HEADS)}."
        )
    if others:
        parts = [(before, "before"), (after, "in or after")]
        listed = [f"{describe_layers(part)} {where}" for part, where in parts if part]
        last = [layer.name for layer in layers if layer not in others][-1]
        raise ValueError(
            f"Model {model.name!r} is more than a ViT: it has {' and '.join(listed)} "
            "it, which would be lost. Take the ViT alone by keras.Model(model.get_layer"
            f"('patch_embedding').input, model.get_layer({last!r}).output)."
        )


def _is_of_vit(layer: Any) -> bool:
    """Whether `vit`, or an application around it, makes such a layer."""
    return any(
        re.fullmatch(pattern, layer.name) and isinstance(layer, kind)
        for pattern, kind in VIT_LAYERS.items()
    )
