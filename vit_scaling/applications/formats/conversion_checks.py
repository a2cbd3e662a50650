"""Checks that a file's converted arrays are exactly a ViT's variables."""
# SPDX-License-Identifier: Apache-2.0

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from vit_scaling.applications.formats.source_arrays import SourceArrays
from vit_scaling.applications.formats.vit_weights import fitting_shapes
from vit_scaling.modeling.shapes import ViTShape, as_shape
from vit_scaling.modeling.variables import vit_variables
from vit_scaling.naming import list_some

# Projections that some models have without a bias, which is the same as a zero bias.
MAY_BE_ZERO = re.compile(
    r"patch_embedding/bias|(block_\d+|map_head)/attention/(query|key|value)/bias"
)


def check_heads(requested: int | None, heads: int | None, owner: str) -> None:
    """Raise if the caller's number of heads contradicts that of `owner`."""
    if requested and heads and requested != heads:
        raise ValueError(
            f"`heads` (--heads) is {requested}, but {owner} has {heads}. Leave `heads` "
            "out: no comparison of outputs would show that it is wrong."
        )


def check_values(source: SourceArrays) -> None:
    """Raise if an array does not hold finite floating-point numbers."""
    for path, array in source.arrays.items():
        name = source.name_in_file(path)
        if array.dtype.kind != "f":
            raise ValueError(
                f"Array {name!r} holds {array.dtype}, but weights are floating-point "
                "numbers. Give the weights before they were quantised."
            )
        if not np.isfinite(array).all():
            raise ValueError(
                f"Array {name!r} holds NaN or infinite values. The file is damaged, or "
                "its training diverged: give another one or an earlier checkpoint."
            )


def check_requested_shape(
    source: SourceArrays,
    arguments: Mapping[str, Any],
    requested: str | ViTShape | None,
) -> None:
    """Raise unless the file has the requested shape; name an array that differs."""
    found: ViTShape = arguments["shape"]
    wanted = found if requested is None else as_shape(requested)
    if wanted == found:
        return
    needed = vit_variables(**{**arguments, "shape": wanted, "image_size": 1024})
    needed.pop("position_embedding/embedding", None)
    difference = f"it has {found.depth} blocks, not {wanted.depth}"
    for path, shape in needed.items():
        if path in source.arrays and source.arrays[path].shape != shape:
            difference = (
                f"array {source.name_in_file(path)!r} gives {path!r} the shape "
                f"{source.arrays[path].shape} instead of {shape}"
            )
            break
    raise ValueError(
        f"The file does not have `shape` {requested!r}: {difference}. Its shape is "
        f"{found}; named variants that fit: {fitting_shapes(found)}."
    )


def fill_zeros(source: SourceArrays, arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Add the biases that no block of the file has, as zeros; return their paths."""
    present = {re.sub(r"block_\d+", "block", path) for path in source.arrays}
    filled = tuple(
        path
        for path in vit_variables(**arguments)
        if MAY_BE_ZERO.fullmatch(path)
        and re.sub(r"block_\d+", "block", path) not in present
    )
    shapes = vit_variables(**arguments)
    source.arrays |= {path: np.zeros(shapes[path], np.float32) for path in filled}
    return filled


def check_complete(source: SourceArrays, arguments: Mapping[str, Any]) -> None:
    """Raise unless every variable is present and has the shape that others imply."""
    expected = vit_variables(**arguments)
    missing = [path for path in expected if path not in source.arrays]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(expected)} variables are missing: "
            f"{list_some(missing)}. The file is incomplete, or its head is not "
            f"{arguments['head']!r}."
        )
    for path, shape in expected.items():
        if source.arrays[path].shape != shape:
            raise ValueError(
                f"Array {source.name_in_file(path)!r} gives {path!r} the shape "
                f"{source.arrays[path].shape}; the file's other arrays require {shape} "
                f"({arguments['shape']})."
            )


def check_all_used(
    source: SourceArrays, arguments: Mapping[str, Any], unused: Iterable[str]
) -> None:
    """Raise if an array of the file has no counterpart in our model.

    Args:
        source: Arrays under our paths.
        arguments: Arguments of `vit`.
        unused: Names in the file of arrays that have no path.
    """
    surplus = source.arrays.keys() - vit_variables(**arguments).keys()
    names = [*unused, *(source.name_in_file(path) for path in sorted(surplus))]
    if names:
        raise ValueError(
            f"{len(names)} arrays have no counterpart in this package's ViT, so its "
            f"outputs would differ: {list_some(names, 6)}. If they do not matter, "
            "leave them out with `ignore` (a regular expression)."
        )
