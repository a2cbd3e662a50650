"""Parameters and FLOPs of a shape, counted term by term (Table 2)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math

from vit_scaling.modeling.rematerialization import recomputed_parts
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.naming import unknown_name_message

HEADS = ("map", "gap", "token", "none")

# Element-wise operations per element, as they are written: a mean, a variance, a
# difference, a root and a scale with shift; x + 0.044715x³ into a tanh and out.
_LAYER_NORM, _SOFTMAX, _GELU = 8, 5, 8


def check_head(head: str) -> None:
    """Raise unless `head` is one of `HEADS`."""
    if head not in HEADS:
        raise ValueError(unknown_name_message("head", head, HEADS))


def sequence_length(shape: ViTShape, image_size: int, head: str) -> int:
    """Return the tokens in the encoder: the patches, and a class token with "token"."""
    check_head(head)
    return shape.tokens(image_size) + (head == "token")


@dataclasses.dataclass(frozen=True)
class Parameters:
    """Weights of a model, by part.

    Attributes:
        encoder: What Table 2 counts: everything but pooling head and classifier.
        total: Everything.
        terms: Name to count; the terms add up to `total`.
    """

    encoder: int
    total: int
    terms: dict[str, int]


def weight_shapes(
    shape: ViTShape,
    *,
    head: str = "map",
    image_size: int = 224,
    classes: int | None = 1000,
    representation_width: int | None = None,
) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight by its path in the model.

    Args:
        shape: Dimensions.
        head: "map", "gap", "token" or "none".
        image_size: Side of the images, in pixels; sets the position embedding.
        classes: Outputs of the classifier; None has none.
        representation_width: Width of the tanh layer before it; None has none (§3.2).
    """
    check_head(head)
    d, m, h, p = shape.width, shape.mlp_width, shape.heads, shape.patch
    made: dict[str, tuple[int, ...]] = {
        "patch_embedding/kernel": (p, p, 3, d),
        "patch_embedding/bias": (d,),
        "position_embedding/embedding": (1, shape.tokens(image_size), d),
    }
    if head == "token":
        made["class_token/token"] = (1, 1, d)
    for number in range(shape.depth):
        block = f"block_{number:02d}"
        made |= _norm_shapes(f"{block}/attention_norm", d)
        made |= _attention_shapes(f"{block}/attention", d, h)
        made |= _norm_shapes(f"{block}/mlp_norm", d)
        made |= _mlp_shapes(f"{block}/mlp", d, m)
    made |= _norm_shapes("encoder_norm", d)
    if head == "map":
        made["map_head/probe"] = (1, 1, d)
        made |= _attention_shapes("map_head/attention", d, h)
        made |= _norm_shapes("map_head/norm", d)
        made |= _mlp_shapes("map_head/mlp", d, m)
    width = representation_width or d
    if representation_width:
        made["pre_logits/kernel"], made["pre_logits/bias"] = (d, width), (width,)
    if classes:
        made["head/kernel"], made["head/bias"] = (width, classes), (classes,)
    return made


def _norm_shapes(name: str, d: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/gamma": (d,), f"{name}/beta": (d,)}


def _attention_shapes(name: str, d: int, h: int) -> dict[str, tuple[int, ...]]:
    made: dict[str, tuple[int, ...]] = {}
    for part in ("query", "key", "value"):
        made[f"{name}/{part}/kernel"] = (d, h, d // h)
        made[f"{name}/{part}/bias"] = (h, d // h)
    return {**made, f"{name}/out/kernel": (h, d // h, d), f"{name}/out/bias": (d,)}


def _mlp_shapes(name: str, d: int, m: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}/dense_0/kernel": (d, m),
        f"{name}/dense_0/bias": (m,),
        f"{name}/dense_1/kernel": (m, d),
        f"{name}/dense_1/bias": (d,),
    }


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
        classes: Outputs of the classifier; None has none.
        representation_width: See `weight_shapes`.

    Example:
        >>> from vit_scaling.modeling.shapes import shape_named
        >>> parameters(shape_named("G/14")).encoder
        1842772352
    """
    terms = dict.fromkeys(("embedding", "attention", "mlp", "norms"), 0)
    terms |= {"pooling_head": 0, "classifier": 0}
    shapes = weight_shapes(
        shape,
        head=head,
        image_size=image_size,
        classes=classes,
        representation_width=representation_width,
    )
    for path, dimensions in shapes.items():
        terms[_term(path)] += math.prod(dimensions)
    outside = terms["pooling_head"] + terms["classifier"]
    total = sum(terms.values())
    return Parameters(total - outside, total, terms)


def _term(path: str) -> str:
    first, *rest = path.split("/")
    if first in ("class_token", "map_head", "pre_logits"):
        return "pooling_head"
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
        encoder: Forward, what Table 2 counts: no pooling head, no classifier.
        forward: Forward, everything.
        training: Forward and backward of everything, with what rematerialisation
            computes again.
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
        classes: Outputs of the classifier; None has none.
        representation_width: See `weight_shapes`.
        rematerialize: What is computed again in the backward pass, see
            `rematerialization.recomputed_parts`.
    """
    d, m, h = shape.width, shape.mlp_width, shape.heads
    n = sequence_length(shape, image_size, head)
    patches = shape.tokens(image_size)
    # Beside the products each branch has a norm, a sum and biases.
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
    terms["pooling_head"] = _head_flops(shape, n, head)
    width = representation_width or d
    if representation_width:
        terms["pooling_head"] += 2.0 * d * representation_width
    terms["classifier"] = 2.0 * width * classes if classes else 0.0
    forward = sum(terms.values())
    encoder = forward - terms["pooling_head"] - terms["classifier"]
    parts = {"none": 0.0, "all": sum(block.values()), "mlp": block["mlp"] + mlp}
    parts["attention"] = parts["all"] - parts["mlp"]
    again = sum(parts[part] for part in recomputed_parts(rematerialize, shape.depth))
    return Flops(encoder, forward, 3 * forward + again, terms)


def _head_flops(shape: ViTShape, tokens: int, head: str) -> float:
    d, m = shape.width, shape.mlp_width
    if head == "map":
        # One query: keys and values of every token, its own query and output, its MLP.
        return 4.0 * tokens * d * d + 4.0 * d * d + 4.0 * tokens * d + 4.0 * d * m
    return float(tokens * d) if head == "gap" else 0.0
