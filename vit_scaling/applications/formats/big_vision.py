"""The authors' .npz files: big_vision's layout and vision_transformer's older one."""
# SPDX-License-Identifier: Apache-2.0

import re
from typing import Any

import numpy as np

from vit_scaling.applications.formats.assembly import assemble
from vit_scaling.applications.formats.checks import check_functions
from vit_scaling.applications.formats.layout import (
    Arrays,
    Row,
    ViTWeights,
    count_blocks,
    from_ours,
    rows_for,
    square,
)
from vit_scaling.applications.formats.positions import fold_positions, patch_shape
from vit_scaling.applications.formats.source import Request, Source, check_heads
from vit_scaling.modeling.shapes import ViTShape

# Where a file may keep the image model: first match wins.
PREFIXES = ("params/img/", "opt/target/img/", "params/", "opt/target/", "img/", "")
BLOCK = "Transformer/encoderblock_"


def _attention_rows(there: str, here: str) -> tuple[Row, ...]:
    return tuple(
        Row(f"{there}/{part}/{kind}", f"{here}/{part}/{kind}")
        for part in ("query", "key", "value", "out")
        for kind in ("kernel", "bias")
    )


def _norm_rows(there: str, here: str) -> tuple[Row, ...]:
    return Row(f"{there}/scale", f"{here}/gamma"), Row(f"{there}/bias", f"{here}/beta")


def _mlp_rows(there: str, here: str) -> tuple[Row, ...]:
    return tuple(
        Row(f"{there}/Dense_{number}/{kind}", f"{here}/dense_{number}/{kind}")
        for number in (0, 1)
        for kind in ("kernel", "bias")
    )


# Flax and Keras store the same shapes: every row is a copy.
TABLE = (
    Row("embedding/kernel", "patch_embedding/kernel"),
    Row("embedding/bias", "patch_embedding/bias"),
    Row("pos_embedding", "position_embedding/embedding"),
    Row("cls", "class_token/token"),
    *_norm_rows(BLOCK + "{block}/LayerNorm_0", "block_{block:02d}/attention_norm"),
    *_attention_rows(
        BLOCK + "{block}/MultiHeadDotProductAttention_0", "block_{block:02d}/attention"
    ),
    *_norm_rows(BLOCK + "{block}/LayerNorm_1", "block_{block:02d}/mlp_norm"),
    *_mlp_rows(BLOCK + "{block}/MlpBlock_0", "block_{block:02d}/mlp"),
    *_norm_rows("Transformer/encoder_norm", "encoder_norm"),
    Row("map/probe", "map_head/probe"),
    *_attention_rows("map/MultiHeadDotProductAttention_0", "map_head/attention"),
    *_norm_rows("map/LayerNorm_0", "map_head/norm"),
    *_mlp_rows("map/MlpBlock_0", "map_head/mlp"),
    Row("pre_logits/kernel", "pre_logits/kernel"),
    Row("pre_logits/bias", "pre_logits/bias"),
    Row("head/kernel", "head/kernel"),
    Row("head/bias", "head/bias"),
)


def is_big_vision(names: set[str]) -> bool:
    """Return whether these are the names of a file of either repository."""
    return any(prefix + "embedding/kernel" in names for prefix in PREFIXES)


def read_big_vision(arrays: Arrays, request: Request) -> ViTWeights:
    """Return weights from a file's arrays, of either generation.

    Raises:
        ValueError: The file holds another model, is incomplete, or is not of the shape
            asked for.
    """
    source = _tidy(arrays)
    if request.ignore:
        source.leave_out(request.ignore, "ignored, as asked")
    held = source.arrays
    for name in ("embedding/kernel", BLOCK + "0/MlpBlock_0/Dense_0/kernel"):
        if name not in held:
            raise ValueError(f"The file lacks the array {name!r}: it is incomplete.")
    patch, _, _, width = patch_shape(source, "embedding/kernel")
    query = held[BLOCK + "0/MultiHeadDotProductAttention_0/query/kernel"]
    check_heads(request, query.shape[1], "the file")
    shape = ViTShape(
        patch=patch,
        width=width,
        depth=count_blocks(held, BLOCK + r"(\d+)/"),
        mlp_width=held[BLOCK + "0/MlpBlock_0/Dense_0/kernel"].shape[1],
        heads=query.shape[1],
    )
    arguments = {"shape": shape, **_positions(source, patch, request)}
    arguments["head"] = "gap"
    if "map/probe" in held:
        arguments["head"] = "map"
    elif "cls" in held:
        arguments["head"] = "token"
    arguments["classes"] = _width_of(held, "head/kernel")
    arguments["representation_width"] = _width_of(held, "pre_logits/kernel")
    return assemble(source, TABLE, arguments, request)


def write_big_vision(weights: ViTWeights) -> Arrays:
    """Return the arrays of big_vision's own file, parameters only.

    Raises:
        ValueError: The model has parts that big_vision's ViT does not have, or
            computes with another GELU or epsilon.
    """
    rows = rows_for(TABLE, weights.shape.depth)
    arrays, held = from_ours(rows, weights.variables, weights.shape.heads)
    rest = [path for path in weights.variables if path not in held]
    if weights.arguments.get("norm_after_pooling"):
        raise ValueError(
            "big_vision's ViT norms the tokens, this model their average "
            "(`norm_after_pooling`). Write timm's layout."
        )
    if rest:
        raise ValueError(
            "big_vision's ViT has no place for "
            f"{', '.join(rest[:4])}{' …' if len(rest) > 4 else ''}: no LayerScale, "
            "query-key norm or registers. Write timm's layout."
        )
    check_functions(weights.arguments, "big_vision's ViT")
    return {re.sub("^map/", "MAPHead_0/", name): arrays[name] for name in arrays}


def _width_of(arrays: Arrays, name: str) -> int | None:
    return arrays[name].shape[1] if name in arrays else None


def _tidy(arrays: Arrays) -> Source:
    """Return the arrays under the newest names, whatever the file's generation."""
    source = Source("big_vision", dict(arrays))
    prefix = next(p for p in PREFIXES if p + "embedding/kernel" in arrays)
    source.keep_only(prefix, f"not part of the image model ({prefix!r})")
    if any(re.match("conv_root/|block1/", name) for name in source.arrays):
        raise ValueError(
            "The file holds a hybrid with a ResNet before the transformer (R26+S/32 "
            "and the like). This package's ViT starts with a patch embedding."
        )
    source.rename(
        lambda name: re.sub(
            "^Transformer/(posembed_input/)?pos_embedding$", "pos_embedding", name
        )
    )
    source.rename(_numbered_per_class(source.arrays))
    inlined = "probe" in source.arrays  # MAP runs during ViT-G's development.
    parts = "probe|LayerNorm_0|MultiHeadDotProductAttention_0|MlpBlock_0"
    source.rename(
        lambda name: re.sub(
            f"^(?=({parts})(/|$))" if inlined else "^MAPHead_0/", "map/", name
        )
    )
    _unstack(source)
    return source


def _numbered_per_class(arrays: Arrays) -> Any:
    """Return a renaming of a block's parts to numbers per class, from 0.

    Flax before linen counted all parts of a block together: LayerNorm_0,
    MultiHeadDotProductAttention_1, LayerNorm_2, MlpBlock_3.
    """
    found: dict[tuple[str, str], set[int]] = {}
    pattern = re.compile(r"(Transformer/encoderblock(?:_\d+)?)/([A-Za-z]+)_(\d+)/")
    for name in arrays:
        if match := pattern.match(name):
            found.setdefault((match[1], match[2]), set()).add(int(match[3]))

    def renumber(match: re.Match[str]) -> str:
        number = sorted(found[match[1], match[2]]).index(int(match[3]))
        return f"{match[1]}/{match[2]}_{number}/"

    return lambda name: pattern.sub(renumber, name)


def _unstack(source: Source) -> None:
    """Split arrays with a leading axis of blocks (the authors' `scan=True`)."""
    stacked = "Transformer/encoderblock/"
    for name in [name for name in source.arrays if name.startswith(stacked)]:
        array, origin = source.arrays.pop(name), source.origin.pop(name, name)
        for block, part in enumerate(array):
            new = f"{BLOCK}{block}/{name.removeprefix(stacked)}"
            source.arrays[new] = part
            source.origin[new] = origin


def _positions(source: Source, patch: int, request: Request) -> dict[str, Any]:
    """Return `position` and `image_size`, the class token's position folded in."""
    if "pos_embedding" not in source.arrays:
        size = request.source_image_size or 224  # The authors' pre-training size.
        if request.source_image_size is None:
            source.assumed.append(
                "images of 224 pixels: sin-cos positions have no array that tells. "
                "`source_image_size` (--source_image_size) says otherwise."
            )
        return {"position": "sincos", "image_size": size}
    embedding = source.arrays["pos_embedding"]
    prefix = ["cls"] if "cls" in source.arrays else []
    count = embedding.shape[1] if embedding.ndim == 3 else 0
    if not prefix and not square(count) and square(count - 1):
        source.arrays["pos_embedding"] = embedding[:, 1:]
        source.left_out["the first position"] = "the file has no class token"
    size = fold_positions(source, "pos_embedding", prefix, patch, request)
    return {"position": "learned", "image_size": size}


def stacked_blocks(arrays: Arrays) -> Arrays:
    """Return a file's arrays with its blocks stacked, as `scan=True` stores them."""
    depth = count_blocks(arrays, BLOCK + r"(\d+)/")
    first = [name for name in arrays if name.startswith(BLOCK + "0/")]
    stacked = {name: arrays[name] for name in arrays if not name.startswith(BLOCK)}
    for name in first:
        leaf = name.removeprefix(BLOCK + "0/")
        several = [arrays[f"{BLOCK}{block}/{leaf}"] for block in range(depth)]
        stacked[f"Transformer/encoderblock/{leaf}"] = np.stack(several)
    return stacked
