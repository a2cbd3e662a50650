"""One table per source: which of its arrays is which variable of ours, both ways."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from vit_scaling.modeling.shapes import SHAPES, ViTShape

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Form:
    """How an array is stored elsewhere: functions to and from our form.

    Attributes:
        to_ours: From (array, heads) to the array as our variable holds it.
        from_ours: The inverse; copies values, computes nothing.
    """

    to_ours: Callable[[np.ndarray, int], np.ndarray]
    from_ours: Callable[[np.ndarray, int], np.ndarray]


SAME = Form(lambda a, heads: a, lambda a, heads: a)
# PyTorch's Linear holds (out, in), Keras and Flax (in, out).
LINEAR = Form(lambda a, heads: a.T, lambda a, heads: a.T)
# PyTorch's convolution holds (out, in, rows, columns), ours (rows, columns, in, out).
PATCHES = Form(
    lambda a, heads: a.transpose(2, 3, 1, 0), lambda a, heads: a.transpose(3, 2, 0, 1)
)
# Projections to heads: (heads * head_dim, width) there, (width, heads, head_dim) here.
TO_HEADS = Form(
    lambda a, heads: a.T.reshape(a.shape[1], heads, -1),
    lambda a, heads: a.reshape(a.shape[0], -1).T,
)
HEADS_BIAS = Form(lambda a, heads: a.reshape(heads, -1), lambda a, heads: a.reshape(-1))
# From heads: (width, heads * head_dim) there, (heads, head_dim, width) here.
FROM_HEADS = Form(
    lambda a, heads: a.T.reshape(heads, -1, a.shape[0]),
    lambda a, heads: a.reshape(-1, a.shape[-1]).T,
)
# SigLIP's Hugging Face files hold the positions without a leading axis of 1.
NO_BATCH = Form(lambda a, heads: a[None], lambda a, heads: a[0])


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a layout's table.

    Attributes:
        source: Name of the array there; "{block}" stands for the block's number.
        path: Path of our variable; "{block:02d}" stands for the block's number.
        form: How the array is stored there.
        part: (index, count) where the source holds `count` of ours stacked on its
            first axis, such as a fused query-key-value kernel.
    """

    source: str
    path: str
    form: Form = SAME
    part: tuple[int, int] = (0, 1)

    def of_block(self, block: int) -> "Row":
        """Return the row with the block's number filled in."""
        source, path = (text.format(block=block) for text in (self.source, self.path))
        return dataclasses.replace(self, source=source, path=path)


@dataclasses.dataclass(frozen=True)
class ViTWeights:
    """A Vision Transformer's weights under our names, and how they were come by.

    Attributes:
        layout: "big_vision", "timm", "huggingface_vit", "huggingface_siglip",
            "vit_scaling".
        arguments: Keyword arguments of `vit_scaling.modeling.vit.vit`.
        variables: From variable path to float32 array.
        used: From each array of the source that was used to what it became.
        left_out: From each array that was not used to the reason.
        filled: Variables the source does not hold and that are zero by its definition.
        assumed: What neither file nor caller says, in sentences.
    """

    layout: str
    arguments: dict[str, Any]
    variables: Arrays
    used: dict[str, str] = dataclasses.field(default_factory=dict)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    filled: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    @property
    def shape(self) -> ViTShape:
        """The transformer's shape."""
        return self.arguments["shape"]


def rows_for(table: Iterable[Row], depth: int) -> list[Row]:
    """Return the table with a block's rows repeated for each of `depth` blocks."""
    rows: list[Row] = []
    for row in table:
        blocks = range(depth) if "{block" in row.path else (0,)
        rows += [row.of_block(block) for block in blocks]
    return rows


def to_ours(
    rows: Iterable[Row], arrays: Mapping[str, np.ndarray], heads: int
) -> tuple[Arrays, dict[str, list[str]]]:
    """Return our variables, and which of them each array became.

    Raises:
        ValueError: An array's size does not divide as the layout says.
    """
    variables: Arrays = {}
    became: dict[str, list[str]] = {}
    for row in rows:
        if row.source not in arrays:
            continue
        array = arrays[row.source]
        index, count = row.part
        try:
            part = np.split(array, count)[index] if count > 1 else array
            variables[row.path] = row.form.to_ours(part, heads)
        except (ValueError, IndexError) as error:
            raise ValueError(
                f"Array {row.source!r} of shape {array.shape} can't become "
                f"{row.path!r} with {heads} heads: {error}. Give the right shape."
            ) from error
        became.setdefault(row.source, []).append(row.path)
    return variables, became


def from_ours(
    rows: Iterable[Row], variables: Mapping[str, np.ndarray], heads: int
) -> tuple[Arrays, set[str]]:
    """Return the source's arrays, and the paths of ours that they hold."""
    parts: dict[str, list[np.ndarray]] = {}
    held = set()
    for row in rows:  # A table lists an array's parts in their order.
        if row.path in variables:
            part = row.form.from_ours(np.asarray(variables[row.path]), heads)
            parts.setdefault(row.source, []).append(part)
            held.add(row.path)
    return {
        name: np.concatenate(several) if len(several) > 1 else several[0]
        for name, several in parts.items()
    }, held


def count_blocks(names: Iterable[str], pattern: str) -> int:
    """Return the number of blocks that `pattern` (one group: the number) finds.

    Raises:
        ValueError: None is found, or a number in between is missing.
    """
    found = {int(m[1]) for name in names if (m := re.match(pattern, name))}
    if not found or found != set(range(len(found))):
        raise ValueError(
            "The file must hold encoder blocks 0, 1, 2 … without a gap; found "
            f"{sorted(found)}. It is incomplete or no Vision Transformer."
        )
    return len(found)


def expected_variables(arguments: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return path and shape of every variable of `vit(**arguments)`, without Keras."""
    shape: ViTShape = arguments["shape"]
    width, patch = shape.width, shape.patch
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embedding/kernel": (patch, patch, 3, width),
        "patch_embedding/bias": (width,),
    }
    if arguments.get("position", "learned") == "learned":
        tokens = shape.tokens(arguments["image_size"])
        shapes["position_embedding/embedding"] = (1, tokens, width)
    if arguments["head"] == "token":
        shapes["class_token/token"] = (1, 1, width)
    if arguments.get("register_tokens"):
        shapes["register_tokens/tokens"] = (1, arguments["register_tokens"], width)
    for number in range(shape.depth):
        shapes |= _block_variables(f"block_{number:02d}", shape, arguments)
    shapes |= _norm("encoder_norm", width)
    if arguments["head"] == "map":
        shapes |= {"map_head/probe": (1, 1, width), **_norm("map_head/norm", width)}
        shapes |= _attention("map_head/attention", shape) | _mlp("map_head/mlp", shape)
    features = width
    if arguments.get("representation_width"):
        features = arguments["representation_width"]
        shapes |= _dense("pre_logits", width, features)
    if arguments.get("classes"):
        shapes |= _dense("head", features, arguments["classes"])
    return shapes


def _block_variables(
    block: str, shape: ViTShape, arguments: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    shapes = _norm(f"{block}/attention_norm", shape.width)
    shapes |= _attention(f"{block}/attention", shape)
    shapes |= _norm(f"{block}/mlp_norm", shape.width) | _mlp(f"{block}/mlp", shape)
    if arguments.get("qk_norm"):
        for part in ("query_norm", "key_norm"):
            shapes |= _norm(f"{block}/attention/{part}", shape.head_dim)
    if arguments.get("layer_scale") is not None:
        for part in ("attention_scale", "mlp_scale"):
            shapes[f"{block}/{part}/gamma"] = (shape.width,)
    return shapes


def _norm(path: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{path}/gamma": (width,), f"{path}/beta": (width,)}


def _dense(path: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{path}/kernel": (inputs, outputs), f"{path}/bias": (outputs,)}


def _mlp(path: str, shape: ViTShape) -> dict[str, tuple[int, ...]]:
    wide = _dense(f"{path}/dense_0", shape.width, shape.mlp_width)
    return wide | _dense(f"{path}/dense_1", shape.mlp_width, shape.width)


def _attention(path: str, shape: ViTShape) -> dict[str, tuple[int, ...]]:
    width, heads, size = shape.width, shape.heads, shape.head_dim
    shapes: dict[str, tuple[int, ...]] = {}
    for part in ("query", "key", "value"):
        shapes[f"{path}/{part}/kernel"] = (width, heads, size)
        shapes[f"{path}/{part}/bias"] = (heads, size)
    return shapes | {
        f"{path}/out/kernel": (heads, size, width),
        f"{path}/out/bias": (width,),
    }


def variants_like(width: int, depth: int, mlp_width: int) -> list[str]:
    """Return the names of the variants with these numbers, such as ["B"]."""
    fit = {
        name.partition("/")[0]: None
        for name, shape in SHAPES.items()
        if (shape.width, shape.depth, shape.mlp_width) == (width, depth, mlp_width)
    }
    return list(fit)


def square(count: int) -> int | None:
    """Return the side of a square of `count`, or None."""
    side = math.isqrt(count)
    return side if side and side * side == count else None
