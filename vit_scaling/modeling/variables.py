"""The variables of a Vision Transformer, path by path; no TensorFlow."""
# SPDX-License-Identifier: Apache-2.0

from typing import Any

from vit_scaling.modeling.head_specs import (
    POOLING_HEADS,
    head_layer_name,
    head_named,
)
from vit_scaling.modeling.layer_variables import (
    VariableShapes,
    attention_variables,
    dense_variables,
    mlp_variables,
    norm_variables,
)
from vit_scaling.modeling.shapes import ViTShape

# Layers between the encoder and the classifier: they depend on how tokens are pooled.
POOLING_LAYERS = ("class_token", "pre_logits", *map(head_layer_name, POOLING_HEADS))


def vit_variables(
    shape: ViTShape,
    head: str = "map",
    *,
    image_size: int | tuple[int, int] = 224,
    classes: int | None = 1000,
    position: str = "learned",
    representation_width: int | None = None,
    layer_scale: float | None = None,
    qk_norm: bool = False,
    register_tokens: int = 0,
    norm_before_blocks: bool = False,
    **_: Any,
) -> VariableShapes:
    """Return path and shape of every weight of `vit` called with the same arguments.

    Images have 3 channels. Other arguments of `vit` change no weight and are ignored.

    Example:
        >>> from vit_scaling.modeling.shapes import shape_named
        >>> vit_variables(shape_named("Ti/16"), "gap")["head/kernel"]
        (192, 1000)

    Raises:
        ValueError: No head has the given name, or the images are smaller than a patch.
    """
    width, spec = shape.width, head_named(head)
    positions = shape.tokens(image_size) if position == "learned" else 0
    variables = _token_variables(
        shape, positions, int(spec.uses_class_token), register_tokens
    )
    if norm_before_blocks:
        variables |= norm_variables("embedding_norm", width)
    for number in range(shape.depth):
        block = f"block_{number:02d}"
        variables |= norm_variables(f"{block}/attention_norm", width)
        variables |= attention_variables(f"{block}/attention", shape, qk_norm=qk_norm)
        variables |= norm_variables(f"{block}/mlp_norm", width)
        variables |= mlp_variables(f"{block}/mlp", shape)
        if layer_scale is not None:
            variables[f"{block}/attention_scale/gamma"] = (width,)
            variables[f"{block}/mlp_scale/gamma"] = (width,)
    variables |= norm_variables("encoder_norm", width)
    variables |= spec.variables(head_layer_name(head), shape)
    if representation_width:
        variables |= dense_variables("pre_logits", width, representation_width)
    if classes:
        variables |= dense_variables("head", representation_width or width, classes)
    return variables


def _token_variables(
    shape: ViTShape, positions: int, class_tokens: int, registers: int
) -> VariableShapes:
    """Return path and shape of the weights that make the tokens."""
    patch, width = shape.patch, shape.width
    tokens = {
        "position_embedding/embedding": positions,
        "class_token/token": class_tokens,
        "register_tokens/tokens": registers,
    }
    return {
        "patch_embedding/kernel": (patch, patch, 3, width),
        "patch_embedding/bias": (width,),
        **{path: (1, count, width) for path, count in tokens.items() if count},
    }


def is_matrix(path: str) -> bool:
    """Return whether a variable is the kernel of a matrix product."""
    return path.endswith("/kernel")


def is_pooling_variable(path: str) -> bool:
    """Return whether a variable is between the encoder and the classifier."""
    return path.partition("/")[0] in POOLING_LAYERS
