"""Variables of the layers that models and heads are built from; no TensorFlow."""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.modeling.shapes import ViTShape

VariableShapes = dict[str, tuple[int, ...]]  # Path of a variable -> its shape.


def norm_variables(path: str, width: int) -> VariableShapes:
    """Return the variables of the layer normalisation at `path`."""
    return {f"{path}/gamma": (width,), f"{path}/beta": (width,)}


def dense_variables(path: str, inputs: int, outputs: int) -> VariableShapes:
    """Return the variables of the dense layer at `path`."""
    return {f"{path}/kernel": (inputs, outputs), f"{path}/bias": (outputs,)}


def mlp_variables(path: str, shape: ViTShape) -> VariableShapes:
    """Return the variables of the MLP at `path`."""
    return {
        **dense_variables(f"{path}/dense_0", shape.width, shape.mlp_width),
        **dense_variables(f"{path}/dense_1", shape.mlp_width, shape.width),
    }


def attention_variables(
    path: str, shape: ViTShape, *, qk_norm: bool = False
) -> VariableShapes:
    """Return the variables of the attention layer at `path`."""
    width, heads, head_dim = shape.width, shape.heads, shape.head_dim
    variables: VariableShapes = {}
    for part in ("query", "key", "value"):
        variables[f"{path}/{part}/kernel"] = (width, heads, head_dim)
        variables[f"{path}/{part}/bias"] = (heads, head_dim)
    variables[f"{path}/out/kernel"] = (heads, head_dim, width)
    variables[f"{path}/out/bias"] = (width,)
    for part in ("query_norm", "key_norm") if qk_norm else ():
        variables |= norm_variables(f"{path}/{part}", head_dim)
    return variables
