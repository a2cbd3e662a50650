"""Counts parameters and FLOPs of a shape, term by term (Table 2)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math

from vit_scaling.modeling.head_specs import head_named
from vit_scaling.modeling.rematerialization import recomputed_parts
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.modeling.variables import is_pooling_variable, vit_variables

# Element-wise operations per element, as they are written: a mean, a variance, a
# difference, a root and a scale with shift; x + 0.044715x³ into a tanh and out.
_LAYER_NORM, _SOFTMAX, _GELU = 8, 5, 8


def sequence_length(shape: ViTShape, image_size: int, head: str) -> int:
    """Return the number of tokens in the encoder, a class token included."""
    return shape.tokens(image_size) + head_named(head).uses_class_token


@dataclasses.dataclass(frozen=True)
class Parameters:
    """Number of a model's weights.

    Attributes:
        encoder: All but pooling head and classifier, as in Table 2.
        total: All weights.
        terms: Name to count; the terms add up to `total`.
    """

    encoder: int
    total: int
    terms: dict[str, int]


def parameters(
    shape: ViTShape,
    *,
    head: str = "map",
    image_size: int = 224,
    classes: int | None = 1000,
    representation_width: int | None = None,
) -> Parameters:
    """Count the weights exactly.

    Args:
        shape: Dimensions.
        head: "map", "gap", "token" or "none".
        image_size: Side of the images, in pixels.
        classes: Outputs of the classifier, if any.
        representation_width: Width of the tanh layer before it, if any (§3.2).

    Example:
        >>> from vit_scaling.modeling.shapes import shape_named
        >>> parameters(shape_named("G/14")).encoder
        1842772352
    """
    terms = dict.fromkeys(("embedding", "attention", "mlp", "norms"), 0)
    terms |= {"pooling_head": 0, "classifier": 0}
    variables = vit_variables(
        shape,
        head=head,
        image_size=image_size,
        classes=classes,
        representation_width=representation_width,
    )
    for path, dimensions in variables.items():
        terms[_term(path)] += math.prod(dimensions)
    outside = terms["pooling_head"] + terms["classifier"]
    total = sum(terms.values())
    return Parameters(total - outside, total, terms)


def _term(path: str) -> str:
    if is_pooling_variable(path):
        return "pooling_head"
    first, *rest = path.split("/")
    if first == "head":
        return "classifier"
    if first in ("patch_embedding", "position_embedding"):
        return "embedding"
    if first == "encoder_norm":
        return "norms"
    return {"attention": "attention", "mlp": "mlp"}.get(rest[0], "norms")


@dataclasses.dataclass(frozen=True)
class Flops:
    """Floating point operations for one image; a multiply-add counts as two.

    Attributes:
        encoder: Forward pass without pooling head and classifier, as in Table 2.
        forward: Forward pass of the whole model.
        training: Forward and backward pass, with recomputed parts.
        terms: Name to forward operations; they add up to `forward`.
    """

    encoder: float
    forward: float
    training: float
    terms: dict[str, float]


def flops(
    shape: ViTShape,
    *,
    head: str = "map",
    image_size: int = 224,
    classes: int | None = 1000,
    representation_width: int | None = None,
    rematerialize: str = "none",
) -> Flops:
    """Count the operations on one image.

    The backward pass takes two products for each of the forward pass. Without
    element-wise operations the count is 0.2 % (G/14) to 2.6 % (s/28) below Table 2.

    Args:
        shape: Dimensions.
        head: "map", "gap", "token" or "none".
        image_size: Side of the images, in pixels.
        classes: Outputs of the classifier, if any.
        representation_width: Width of the tanh layer before it, if any.
        rematerialize: Policy of `rematerialization.recomputed_parts`.
    """
    d, m, h = shape.width, shape.mlp_width, shape.heads
    n = sequence_length(shape, image_size, head)
    patches = shape.tokens(image_size)
    # Besides the products each branch has a norm, a sum and biases.
    attention = n * d * (_LAYER_NORM + 1 + 4) + _SOFTMAX * h * n * n
    mlp = n * d * (_LAYER_NORM + 1 + 1) + (_GELU + 1) * n * m
    block = {
        "projections": 8.0 * n * d * d,
        "scores_and_values": 4.0 * n * n * d,
        "mlp": 4.0 * n * d * m,
        "elementwise": attention + mlp,
    }
    terms = {name: shape.depth * count for name, count in block.items()}
    terms["elementwise"] += _LAYER_NORM * n * d + 2 * patches * d
    terms["embedding"] = 2.0 * patches * 3 * shape.patch**2 * d
    terms["pooling_head"] = head_named(head).flops(shape, n)
    width = representation_width or d
    if representation_width:
        terms["pooling_head"] += 2.0 * d * representation_width
    terms["classifier"] = 2.0 * width * classes if classes else 0.0
    forward = sum(terms.values())
    encoder = forward - terms["pooling_head"] - terms["classifier"]
    parts = {"none": 0.0, "all": sum(block.values()), "mlp": block["mlp"] + mlp}
    parts["attention"] = parts["all"] - parts["mlp"]
    recomputed = sum(parts[p] for p in recomputed_parts(rematerialize, shape.depth))
    return Flops(encoder, forward, 3 * forward + recomputed, terms)
