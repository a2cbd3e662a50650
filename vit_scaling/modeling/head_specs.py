"""The registry of pooling heads: name, variables and FLOPs of each; no TensorFlow.

Everything that depends on the head reads `HEADS`. The Keras layers are registered under
the same names in `heads.py`.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Callable
from typing import Literal

from vit_scaling.modeling.layer_variables import (
    VariableShapes,
    attention_variables,
    mlp_variables,
    norm_variables,
)
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.naming import check_known


@dataclasses.dataclass(frozen=True)
class HeadSpec:
    """A way from tokens to one vector.

    Attributes:
        description: What the head computes, for messages.
        uses_class_token: Whether a class token is put before the patches.
        variables: From (path of the head's layer, shape) to the layer's variables.
        flops: From (shape, tokens) to the forward operations on one image.
    """

    description: str
    uses_class_token: bool = False
    variables: Callable[[str, ViTShape], VariableShapes] = lambda path, shape: {}
    flops: Callable[[ViTShape, int], float] = lambda shape, tokens: 0.0


def _map_variables(path: str, shape: ViTShape) -> VariableShapes:
    return {
        f"{path}/probe": (1, 1, shape.width),
        **attention_variables(f"{path}/attention", shape),
        **norm_variables(f"{path}/norm", shape.width),
        **mlp_variables(f"{path}/mlp", shape),
    }


def _map_flops(shape: ViTShape, tokens: int) -> float:
    """Count one query: keys and values of all tokens, its projections, its MLP."""
    d, m = shape.width, shape.mlp_width
    return 4.0 * tokens * d * d + 4.0 * d * d + 4.0 * tokens * d + 4.0 * d * m


HeadName = Literal["map", "gap", "token", "none"]  # The keys of `HEADS`.
HEADS: dict[str, HeadSpec] = {
    "map": HeadSpec("MAP head", variables=_map_variables, flops=_map_flops),
    "gap": HeadSpec(
        "average of tokens", flops=lambda shape, tokens: float(tokens * shape.width)
    ),
    "token": HeadSpec("class token", uses_class_token=True),
    "none": HeadSpec("tokens"),  # No layer: the model's output is the tokens.
}
POOLING_HEADS = tuple(name for name in HEADS if name != "none")


def head_named(name: str) -> HeadSpec:
    """Return the head of a name.

    Raises:
        ValueError: No head has this name.
    """
    check_known("head", name, HEADS)
    return HEADS[name]


def head_layer_name(name: str) -> str:
    """Return the name of a head's layer in a model: "map_head" for "map"."""
    return f"{name}_head"
