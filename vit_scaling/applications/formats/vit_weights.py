"""Converted ViT weights, and the options of the function that reads them."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from typing import Any

from vit_scaling.array_files import Arrays
from vit_scaling.modeling.shapes import SHAPES, ViTShape
from vit_scaling.run_record import RunRecord


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """The caller's options for reading a file of weights; None: as the file says.

    Attributes:
        shape: Shape or its name ("B/16"); checked against the file.
        head: "token", "gap", "map" or "none". It may differ from the file's only where
            the file's arrays allow it: its pooling head can be left out.
        heads: Attention heads, if neither the file nor the shape's name gives them.
        source_image_size: Pixels (side, or height and width) that the file's positions
            are for; needed if the patches do not form a square.
        approximate_gelu: GELU by tanh (True) or by erf (False).
        norm_epsilon: Epsilon of all norms.
        ignore: Regular expression of arrays that may be left out.
        averages: A run's averaged weights (True) or its last ones (False); None: those
            that the run evaluates.
    """

    shape: str | ViTShape | None = None
    head: str | None = None
    heads: int | None = None
    source_image_size: int | tuple[int, int] | None = None
    approximate_gelu: bool | None = None
    norm_epsilon: float | None = None
    ignore: str | None = None
    averages: bool | None = None


@dataclasses.dataclass(frozen=True)
class ViTWeights:
    """Converted ViT weights and their source.

    Attributes:
        layout: "big_vision", "timm", "huggingface_vit", "huggingface_siglip",
            "huggingface_clip" or "vit_scaling".
        arguments: Keyword arguments of `vit_scaling.modeling.vit.vit`.
        variables: From variable path to float32 array.
        used: From each array of the source that was used to our variables, as text.
        left_out: From each array that was not used to the reason.
        filled: Variables that the source does not store because they are zero.
        assumed: Facts that neither the file nor the caller states, as sentences.
        record: Class names and preprocessing; None: of a model in memory.
        preprocessing_assumed: Whether the source does not say how images are prepared.
    """

    layout: str
    arguments: dict[str, Any]
    variables: Arrays
    used: dict[str, str] = dataclasses.field(default_factory=dict)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    filled: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    record: RunRecord | None = None
    preprocessing_assumed: bool = False

    @property
    def shape(self) -> ViTShape:
        """The transformer's shape."""
        return self.arguments["shape"]


def variants_with_sizes(width: int, depth: int, mlp_width: int) -> list[str]:
    """Return the names of the variants with these sizes, such as ["B"]."""
    variants = {
        name.partition("/")[0]: None
        for name, shape in SHAPES.items()
        if (shape.width, shape.depth, shape.mlp_width) == (width, depth, mlp_width)
    }
    return list(variants)


def fitting_shapes(shape: ViTShape) -> str:
    """Return the named shapes with these sizes, for messages: "B/16", or "none"."""
    variants = variants_with_sizes(shape.width, shape.depth, shape.mlp_width)
    return ", ".join(f"{variant}/{shape.patch}" for variant in variants) or "none"


def arguments_from_variables(variables: Arrays) -> dict[str, Any]:
    """Return the arguments of `vit` that the presence and size of variables show."""
    widths = {path: len(array) for path, array in variables.items() if array.ndim}
    registers = variables.get("register_tokens/tokens")
    return {
        "classes": widths.get("head/bias"),
        "representation_width": widths.get("pre_logits/bias"),
        "qk_norm": "block_00/attention/query_norm/gamma" in variables,
        "norm_before_blocks": "embedding_norm/gamma" in variables,
        "register_tokens": 0 if registers is None else registers.shape[1],
    }
