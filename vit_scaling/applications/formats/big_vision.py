"""The authors' .npz files: big_vision's layout and vision_transformer's older one."""
# SPDX-License-Identifier: Apache-2.0

import re
from collections.abc import Mapping
from typing import Any

from vit_scaling.applications.formats import name_table, weights_format
from vit_scaling.applications.formats.big_vision_reference import BigVisionReference
from vit_scaling.applications.formats.conversion import convert
from vit_scaling.applications.formats.source_arrays import SourceArrays
from vit_scaling.applications.formats.vit_weights import ReadOptions, ViTWeights
from vit_scaling.array_files import Arrays
from vit_scaling.naming import list_some

BLOCK_PREFIX = "Transformer/encoderblock_"

# Flax and Keras store the same shapes: every row is a copy.
_DENSE = (name_table.Row("/kernel", "/kernel"), name_table.Row("/bias", "/bias"))


def _dense_layers(**layers: str) -> name_table.LayerKind:
    """Return the kind of a layer that consists of dense layers, by their names."""
    return tuple(
        name_table.Row(f"/{source}{row.source}", f"/{path}{row.path}")
        for source, path in layers.items()
        for row in _DENSE
    )


FLAX_LAYERS: dict[str, name_table.LayerKind] = {
    "array": (name_table.Row("", ""),),
    "dense": _DENSE,
    "norm": (name_table.Row("/scale", "/gamma"), name_table.Row("/bias", "/beta")),
    "mlp": _dense_layers(Dense_0="dense_0", Dense_1="dense_1"),
    "attention": _dense_layers(query="query", key="key", value="value", out="out"),
}
_BLOCK, _ATTENTION = BLOCK_PREFIX + "{block}", "MultiHeadDotProductAttention_0"
TABLE = name_table.make_table(
    FLAX_LAYERS,
    ("embedding", "patch_embedding", "dense"),
    ("pos_embedding", "position_embedding/embedding", "array"),
    ("cls", "class_token/token", "array"),
    (f"{_BLOCK}/LayerNorm_0", "{block}/attention_norm", "norm"),
    (f"{_BLOCK}/{_ATTENTION}", "{block}/attention", "attention"),
    (f"{_BLOCK}/LayerNorm_1", "{block}/mlp_norm", "norm"),
    (f"{_BLOCK}/MlpBlock_0", "{block}/mlp", "mlp"),
    ("Transformer/encoder_norm", "encoder_norm", "norm"),
    ("MAPHead_0/probe", "map_head/probe", "array"),
    (f"MAPHead_0/{_ATTENTION}", "map_head/attention", "attention"),
    ("MAPHead_0/LayerNorm_0", "map_head/norm", "norm"),
    ("MAPHead_0/MlpBlock_0", "map_head/mlp", "mlp"),
    ("pre_logits", "pre_logits", "dense"),
    ("head", "head", "dense"),
)


def read_big_vision(
    arrays: Arrays, options: ReadOptions, config: Mapping[str, Any] | None = None
) -> ViTWeights:
    """Read the arrays of a file of either repository, of any generation.

    Args:
        arrays: The file's arrays.
        options: The caller's options.
        config: Not used; these projects publish no configuration.

    Raises:
        ValueError: The file holds another model, is incomplete, or does not have the
            requested shape or head.
    """
    source = _under_newest_names(arrays)
    source.leave_out_ignored(options.ignore)
    query = source.arrays.get(f"{BLOCK_PREFIX}0/{_ATTENTION}/query/kernel")
    arguments: dict[str, Any] = {}
    if "pos_embedding" not in source.arrays:
        arguments = {
            "position": "sincos",
            "image_size": options.source_image_size or 224,  # Of the pre-training.
        }
        if options.source_image_size is None:
            source.assumed.append(
                "images of 224 pixels: sin-cos positions are not stored. Set "
                "`source_image_size` (--source_image_size) to change it."
            )
    heads = None if query is None else query.shape[1]
    return convert(source, TABLE, arguments, options, heads=heads)


def write_big_vision(weights: ViTWeights) -> weights_format.ExportedWeights:
    """Convert weights to the parameters of big_vision's own file.

    Raises:
        ValueError: The model has parts that big_vision's ViT lacks, or another GELU or
            epsilon.
    """
    arguments = weights.arguments
    rows = name_table.rows_for_depth(TABLE, weights.shape.depth)
    arrays, missing = name_table.convert_to_source(
        rows, weights.variables, weights.shape.heads
    )
    if arguments.get("norm_after_pooling"):
        raise ValueError(
            "big_vision's ViT norms the tokens, this model their average "
            "(`norm_after_pooling`). Write timm's layout (.safetensors) instead."
        )
    if missing:
        raise ValueError(
            f"big_vision's ViT has no place for {list_some(missing, 4)}: it lacks "
            "LayerScale, query-key norm and registers. Write timm's layout "
            "(.safetensors) instead."
        )
    is_tanh = arguments.get("approximate_gelu", True)
    epsilon = arguments.get("norm_epsilon", 1e-6)
    if not is_tanh or epsilon != 1e-6:  # No array stores them.
        raise ValueError(
            "big_vision's ViT computes GELU by tanh and norms with epsilon 1e-6; this "
            f"model has GELU by {'tanh' if is_tanh else 'erf'} and epsilon "
            f"{epsilon:g}, so outputs would differ. Write timm's layout "
            "(.safetensors), or accept the difference by --gelu=tanh "
            "--norm_epsilon=1e-6 (approximate_gelu=True, norm_epsilon=1e-6)."
        )
    return weights_format.ExportedWeights(
        arrays, "big_vision.models.vit.load(init_params, {path}, model_cfg)"
    )


def _under_newest_names(arrays: Arrays) -> SourceArrays:
    """Rename the arrays of any generation to those that big_vision writes today."""
    source = SourceArrays("big_vision", dict(arrays))
    source.keep_prefix(FORMAT.find_prefix(arrays) or "")
    if any(re.match("conv_root/|block1/", name) for name in source.arrays):
        raise ValueError(
            "The file holds a hybrid with a ResNet before the transformer (such as "
            "R26+S/32). Only models that start with a patch embedding are supported."
        )
    source.rename("^Transformer/(posembed_input/)?pos_embedding$", "pos_embedding")
    _number_parts_per_class(source)
    if "probe" in source.arrays:  # MAP runs during ViT-G's development.
        parts = f"probe|LayerNorm_0|{_ATTENTION}|MlpBlock_0"
        source.rename(f"^(?=({parts})(/|$))", "MAPHead_0/")
    _unstack_blocks(source)
    return source


def _number_parts_per_class(source: SourceArrays) -> None:
    """Number the parts of a block per class, from 0.

    Flax before linen counted all parts of a block together: LayerNorm_0,
    MultiHeadDotProductAttention_1, LayerNorm_2, MlpBlock_3.
    """
    pattern = re.compile(r"(Transformer/encoderblock(?:_\d+)?)/([A-Za-z]+)_(\d+)/")
    numbers: dict[tuple[str, str], set[int]] = {}
    for name in source.arrays:
        if match := pattern.match(name):
            numbers.setdefault((match[1], match[2]), set()).add(int(match[3]))

    def renumber(match: re.Match[str]) -> str:
        number = sorted(numbers[match[1], match[2]]).index(int(match[3]))
        return f"{match[1]}/{match[2]}_{number}/"

    source.rename(pattern.pattern, renumber)


def _unstack_blocks(source: SourceArrays) -> None:
    """Split arrays with a leading axis of blocks (the authors' `scan=True`)."""
    stacked = "Transformer/encoderblock/"
    for name in [name for name in source.arrays if name.startswith(stacked)]:
        array, origin = source.arrays.pop(name), source.origin.pop(name, name)
        for block, part in enumerate(array):
            new = f"{BLOCK_PREFIX}{block}/{name.removeprefix(stacked)}"
            source.arrays[new] = part
            source.origin[new] = origin


FORMAT = weights_format.WeightsFormat(
    layouts=("big_vision",),
    description=".npz of google-research/vision_transformer or big_vision",
    prefixes=("params/img/", "opt/target/img/", "params/", "opt/target/", "img/", ""),
    markers=("embedding/kernel",),
    read=read_big_vision,
    reference=BigVisionReference,
    write=write_big_vision,
    suffix=".npz",
)
