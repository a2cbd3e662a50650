"""Convert a source's arrays to `ViTWeights`, accounting for every array."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_scaling.applications.formats import conversion_checks, name_table
from vit_scaling.applications.formats.source_arrays import SourceArrays, count_blocks
from vit_scaling.applications.formats.token_positions import (
    CLASS_TOKEN,
    POSITIONS,
    REGISTERS,
    TOKENS,
    fold_token_positions,
)
from vit_scaling.applications.formats.vit_weights import (
    ReadOptions,
    ViTWeights,
    arguments_from_variables,
    variants_with_sizes,
)
from vit_scaling.modeling.head_specs import HEADS, head_layer_name
from vit_scaling.modeling.shapes import ViTShape, as_shape

# Options of `vit` that no array shows, as the paper's authors set them.
DEFAULTS = {
    "position": "learned",
    "approximate_gelu": True,
    "norm_epsilon": 1e-6,
    "layer_scale": None,
    "norm_after_pooling": False,
}
# Heads without variables, which can replace another head of the file.
REPLACEMENTS = ("gap", "none")
PATCH_KERNEL = "patch_embedding/kernel"
MLP_KERNEL = "block_{block:02d}/mlp/dense_0/kernel"


def convert(
    source: SourceArrays,
    table: Sequence[name_table.Row],
    arguments: Mapping[str, Any],
    options: ReadOptions,
    *,
    heads: int | None = None,
    tokens_with_position: Sequence[str] = TOKENS,
) -> ViTWeights:
    """Map the file's arrays to our variables; raise ValueError on every mismatch.

    Args:
        source: Arrays under the table's names, without ignored ones.
        table: The layout's rows.
        arguments: Arguments of `vit` that the layout or its configuration defines, if
            they differ from `DEFAULTS`. `head` is derived from the arrays by default.
        options: The caller's options.
        heads: Attention heads, if the file or its configuration gives them.
        tokens_with_position: Those of `TOKENS` that the file's positions may include.

    Raises:
        ValueError: An array is missing, not of the requested shape, or has no
            counterpart in our model.
    """
    shape = _read_shape(source, table, options, heads)
    rows = name_table.rows_for_depth(table, shape.depth)
    variables, names = name_table.convert_to_keras(rows, source.arrays, shape.heads)
    unused = [
        source.name_in_file(name) for name in source.arrays.keys() - set(names.values())
    ]
    source.origin = {path: source.name_in_file(name) for path, name in names.items()}
    source.arrays = variables
    arguments = {"shape": shape, **arguments}
    if arguments.get("position") != "sincos":
        if POSITIONS not in variables:
            raise ValueError(_missing(*(r.source for r in rows if r.path == POSITIONS)))
        arguments["image_size"] = fold_token_positions(
            source, shape.patch, options.source_image_size, tokens_with_position
        )
        if any(side % shape.patch for side in arguments["image_size"]):
            arguments["crop_to_patches"] = True  # As the source's convolution does.
    return _finish(source, arguments, options, unused)


def reconvert(weights: ViTWeights, options: ReadOptions) -> ViTWeights:
    """Apply the caller's options to weights that are under our names already.

    Raises:
        ValueError: The weights do not have the requested shape or head.
    """
    source = SourceArrays(
        weights.layout,
        dict(weights.variables),
        left_out=dict(weights.left_out),
        assumed=list(weights.assumed),
    )
    source.leave_out_ignored(options.ignore)
    return _finish(source, weights.arguments, options, unused=[])


def _missing(name: str) -> str:
    return f"Array {name!r} is missing. The file is incomplete or is not a plain ViT."


def _read_shape(
    source: SourceArrays,
    table: Sequence[name_table.Row],
    options: ReadOptions,
    config_heads: int | None,
) -> ViTShape:
    """Return the shape that the sizes of the arrays define.

    Raises:
        ValueError: An array that defines it is missing, or the heads are unknown.
    """
    by_path = {row.path: row for row in table}
    block_row = by_path[MLP_KERNEL]
    patch_row, mlp_row = by_path[PATCH_KERNEL], block_row.for_block(0)
    for row in (patch_row, mlp_row):
        if row.source not in source.arrays:
            raise ValueError(_missing(source.name_in_file(row.source)))
    kernel = source.arrays[patch_row.source]
    if kernel.ndim != 4:
        raise ValueError(
            f"Array {source.name_in_file(patch_row.source)!r} must be a convolution's "
            f"kernel with 4 axes; received shape {kernel.shape}. Patches stored as "
            "rows of numbers (NaFlex) are not supported."
        )
    patch, _, _, width = patch_row.transform.to_keras(kernel, 0).shape
    mlp_kernel = mlp_row.transform.to_keras(source.arrays[mlp_row.source], 0)
    sizes = (width, count_blocks(source.arrays, block_row.source), mlp_kernel.shape[1])
    return ViTShape(patch, *sizes, find_heads(options, config_heads, sizes))


def find_heads(
    options: ReadOptions,
    config_heads: int | None,
    sizes: tuple[int, int, int],
) -> int:
    """Return the number of attention heads that the file or the caller states.

    Nothing is guessed from the width: timm's vit_base_patch16_gap_224 has the sizes of
    ViT-B and 16 heads, and no comparison of outputs with a wrong guess would show it.

    Args:
        options: `heads` and `shape` are read.
        config_heads: Number in the file or its configuration, or None.
        sizes: Width, depth and MLP width, for the message.

    Raises:
        ValueError: The number is unknown, or `heads` contradicts another source.
    """
    shape_heads = as_shape(options.shape).heads if options.shape else None
    conversion_checks.check_heads(
        options.heads, config_heads, "the file or its config.json"
    )
    conversion_checks.check_heads(
        options.heads, shape_heads, f"`shape` {options.shape!r}"
    )
    if heads := config_heads or options.heads or shape_heads:
        return heads
    width, depth, mlp_width = sizes
    usual = [str(as_shape(name).heads) for name in variants_with_sizes(*sizes)]
    hint = f"; the ViT of these sizes in the paper has {usual[0]}" if usual else ""
    raise ValueError(
        f"The number of attention heads of this ViT (width {width}, depth {depth}, MLP "
        f"{mlp_width}) is not in the file or its config.json. Give `heads` (--heads "
        f"of `vit-scaling weights import`) or `shape`{hint}."
    )


def _finish(
    source: SourceArrays,
    arguments: Mapping[str, Any],
    options: ReadOptions,
    unused: Sequence[str],
) -> ViTWeights:
    """Apply the requested head, check all variables and return the weights.

    Args:
        source: Arrays under our paths.
        arguments: Known arguments of `vit`, `shape` and `image_size` included.
        options: The caller's options.
        unused: Names in the file of arrays without a row in the table.
    """
    arguments = {**DEFAULTS, **arguments, **arguments_from_variables(source.arrays)}
    arguments.setdefault("head", _head_of_arrays(source))
    if arguments["layer_scale"] is None and "block_00/mlp_scale/gamma" in source.arrays:
        arguments["layer_scale"] = 1.0  # Only whether it exists matters after training.
    arguments["head"] = _select_head(source, arguments, options)
    if arguments["head"] != "token":
        _turn_class_token_into_register(source)
        arguments |= arguments_from_variables(source.arrays)
    for name in ("approximate_gelu", "norm_epsilon"):
        if getattr(options, name) is not None:
            arguments[name] = getattr(options, name)
    conversion_checks.check_values(source)
    conversion_checks.check_requested_shape(source, arguments, options.shape)
    filled = conversion_checks.fill_zeros(source, arguments)
    conversion_checks.check_complete(source, arguments)
    conversion_checks.check_all_used(source, arguments, unused)
    used: dict[str, list[str]] = {}  # One array may hold several variables.
    for path in source.arrays:
        if path not in filled:
            used.setdefault(source.name_in_file(path), []).append(path)
    return ViTWeights(
        layout=source.layout,
        arguments=arguments,
        variables=source.arrays,
        used={name: ", ".join(paths) for name, paths in used.items()},
        left_out=source.left_out,
        filled=filled,
        assumed=tuple(source.assumed),
    )


def _head_of_arrays(source: SourceArrays) -> str:
    if "map_head/probe" in source.arrays:
        return "map"
    return "token" if CLASS_TOKEN in source.arrays else "gap"


def _select_head(
    source: SourceArrays, arguments: Mapping[str, Any], options: ReadOptions
) -> str:
    """Return the requested head; leave out the variables of another head.

    Raises:
        ValueError: The file's arrays do not define that head, or the file's classifier
            was trained on another head.
    """
    found = arguments["head"]
    requested = options.head or found
    possible = dict.fromkeys((found, *REPLACEMENTS))
    if requested not in possible:
        raise ValueError(
            f"`head` is {requested!r}, but the file holds the arrays of a {found!r} "
            f"head. Use {' or '.join(map(repr, possible))}."
        )
    if requested != found and (
        arguments["classes"] or arguments["representation_width"]
    ):
        hugging_face = source.layout.startswith("huggingface")
        layers = "(classifier|pooler)" if hugging_face else "(head|pre_logits)"
        raise ValueError(
            f"`head` is {requested!r}, but the file's classifier was trained on its "
            f"{HEADS[found].description}. Use head={found!r}, or "
            f"ignore='{layers}.*' to leave it out."
        )
    if requested != found:
        pattern = f"{head_layer_name(found)}/.*"
        source.leave_out(pattern, f"the requested head is {requested!r}")
    return requested


def _turn_class_token_into_register(source: SourceArrays) -> None:
    """Keep a class token that no head reads: it is the first of the registers."""
    if CLASS_TOKEN not in source.arrays:
        return
    names = [name for name in TOKENS if name in source.arrays]
    origin = ", ".join(source.name_in_file(name) for name in names)
    tokens = [source.arrays.pop(name) for name in names]
    source.arrays[REGISTERS] = np.concatenate(tokens, axis=1)
    source.origin[REGISTERS] = origin
