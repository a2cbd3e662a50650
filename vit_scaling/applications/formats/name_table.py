"""Tables of names: which array of a source file is which variable of our ViT."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from vit_scaling.array_files import Arrays


@dataclasses.dataclass(frozen=True)
class Transform:
    """How an array is stored in a source, as functions to and from Keras' order.

    Attributes:
        to_keras: From (source array, attention heads) to the Keras variable's value.
        to_source: The inverse. Both only move values, so a round trip is exact.
    """

    to_keras: Callable[[np.ndarray, int], np.ndarray]
    to_source: Callable[[np.ndarray, int], np.ndarray]


COPY = Transform(lambda a, heads: a, lambda a, heads: a)
# PyTorch's Linear stores (out, in), Keras and Flax (in, out).
TRANSPOSE = Transform(lambda a, heads: a.T, lambda a, heads: a.T)
# PyTorch's convolution stores (out, in, rows, columns), Keras (rows, columns, in, out).
CONVOLUTION = Transform(
    lambda a, heads: a.transpose(2, 3, 1, 0), lambda a, heads: a.transpose(3, 2, 0, 1)
)
# To heads: PyTorch (heads * head_dim, width), Keras (width, heads, head_dim).
TO_HEADS = Transform(
    lambda a, heads: a.T.reshape(a.shape[1], heads, -1),
    lambda a, heads: a.reshape(a.shape[0], -1).T,
)
HEADS_BIAS = Transform(
    lambda a, heads: a.reshape(heads, -1), lambda a, heads: a.reshape(-1)
)
# From heads: PyTorch (width, heads * head_dim), Keras (heads, head_dim, width).
FROM_HEADS = Transform(
    lambda a, heads: a.T.reshape(heads, -1, a.shape[0]),
    lambda a, heads: a.reshape(-1, a.shape[-1]).T,
)
# SigLIP's Hugging Face files store positions without a leading axis of 1.
ADD_BATCH_AXIS = Transform(lambda a, heads: a[None], lambda a, heads: a[0])
# CLIP's Hugging Face files store the class token as a vector.
ADD_TWO_AXES = Transform(lambda a, heads: a[None, None], lambda a, heads: a[0, 0])


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a name table.

    Attributes:
        source: Name of the source's array; "{block}" is replaced by a block's number.
        path: Path of our variable; "{block:02d}" is replaced by a block's number.
        transform: How the source stores the array.
        part: (index, count) where the source stacks `count` of our variables on the
            array's first axis, such as a fused query-key-value kernel.
    """

    source: str
    path: str
    transform: Transform = COPY
    part: tuple[int, int] = (0, 1)

    def for_block(self, block: int) -> "Row":
        """Return the row with the block's number filled in."""
        source, path = (text.format(block=block) for text in (self.source, self.path))
        return dataclasses.replace(self, source=source, path=path)


# A layer's kind: a row per array, whose names are suffixes of the layer's names.
LayerKind = tuple[Row, ...]


def _torch_layer(weight: Transform, bias: Transform = COPY) -> LayerKind:
    return Row(".weight", "/kernel", weight), Row(".bias", "/bias", bias)


def _fused(layer: LayerKind, *parts: str, separator: str = ".") -> LayerKind:
    """Return the kind of a layer that stacks several of ours, with these names."""
    return tuple(
        dataclasses.replace(
            row,
            source=row.source.replace(".", separator),
            path=f"/{part}{row.path}",
            part=(index, len(parts)),
        )
        for row in layer
        for index, part in enumerate(parts)
    )


_TO_HEADS = _torch_layer(TO_HEADS, HEADS_BIAS)
TORCH_LAYERS: dict[str, LayerKind] = {
    "array": (Row("", ""),),  # A single array, not a layer.
    "positions": (Row("", "", ADD_BATCH_AXIS),),
    "token": (Row("", "", ADD_TWO_AXES),),
    "norm": (Row(".weight", "/gamma"), Row(".bias", "/beta")),
    "linear": _torch_layer(TRANSPOSE),
    "patches": _torch_layer(CONVOLUTION),
    "out": _torch_layer(FROM_HEADS),
    "to_heads": _TO_HEADS,
    "q": _fused(_TO_HEADS, "query"),
    "kv": _fused(_TO_HEADS, "key", "value"),
    "qkv": _fused(_TO_HEADS, "query", "key", "value"),
    "in_proj": _fused(_TO_HEADS, "query", "key", "value", separator="_"),
}


def make_table(
    kinds: Mapping[str, LayerKind], *layers: tuple[str, str, str]
) -> tuple[Row, ...]:
    """Return the rows of a layout.

    Args:
        kinds: From the names of kinds of layers to their rows.
        layers: (name in the source, our path, name of the kind); "{block}" in both
            names stands for a block's number.
    """
    return tuple(
        dataclasses.replace(
            row,
            source=source + row.source,
            path=path.replace("{block}", "block_{block:02d}") + row.path,
        )
        for source, path, kind in layers
        for row in kinds[kind]
    )


def rows_for_depth(table: Iterable[Row], depth: int) -> list[Row]:
    """Return the table with a block's rows repeated for each of `depth` blocks."""
    return [
        row.for_block(block)
        for row in table
        for block in (range(depth) if "{block" in row.path else (0,))
    ]


def convert_to_keras(
    rows: Iterable[Row], arrays: Mapping[str, np.ndarray], heads: int
) -> tuple[Arrays, dict[str, str]]:
    """Convert a source's arrays to our variables.

    Returns:
        Variables by path, and from each path to the name of the source's array.

    Raises:
        ValueError: An array's size does not divide as the table needs it.
    """
    variables: Arrays = {}
    sources: dict[str, str] = {}
    for row in rows:
        if row.source not in arrays:
            continue
        array = arrays[row.source]
        index, count = row.part
        try:
            part = np.split(array, count)[index] if count > 1 else array
            variables[row.path] = row.transform.to_keras(part, heads)
        except (ValueError, IndexError) as error:
            raise ValueError(
                f"Array {row.source!r} of shape {array.shape} cannot be converted to "
                f"{row.path!r} with {heads} heads: {error}. Check `shape` and `heads`."
            ) from error
        sources[row.path] = row.source
    return variables, sources


def convert_to_source(
    rows: Iterable[Row], variables: Mapping[str, np.ndarray], heads: int
) -> tuple[Arrays, list[str]]:
    """Convert our variables to a source's arrays.

    Returns:
        Arrays by the source's names, and the paths for which the table has no row.
    """
    parts: dict[str, list[np.ndarray]] = {}
    missing = dict.fromkeys(variables)
    for row in rows:  # A table lists an array's parts in their order.
        if row.path in variables:
            part = row.transform.to_source(np.asarray(variables[row.path]), heads)
            parts.setdefault(row.source, []).append(part)
            del missing[row.path]
    return {
        name: np.concatenate(several) if len(several) > 1 else several[0]
        for name, several in parts.items()
    }, list(missing)
