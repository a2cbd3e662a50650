"""Hugging Face transformers' ViT and SigLIP image towers in .safetensors files."""
# SPDX-License-Identifier: Apache-2.0

import re
from collections.abc import Mapping
from typing import Any

from vit_scaling.applications.formats.conversion import convert
from vit_scaling.applications.formats.huggingface_reference import (
    HuggingFaceReference,
)
from vit_scaling.applications.formats.name_table import (
    ADD_BATCH_AXIS,
    ARRAY,
    BLOCK,
    TORCH_CONVOLUTION,
    TORCH_FROM_HEADS,
    TORCH_LINEAR,
    TORCH_NORM,
    Row,
    make_table,
    torch_to_heads,
)
from vit_scaling.applications.formats.source_arrays import SourceArrays
from vit_scaling.applications.formats.vit_weights import (
    Arrays,
    ReadOptions,
    ViTWeights,
)
from vit_scaling.applications.formats.weights_format import WeightsFormat

VIT_PATCH = "embeddings.patch_embeddings.projection"
SIGLIP_PATCH = "embeddings.patch_embedding"

# transformers' names of GELU; any other name is another function.
ERF_GELU = ("gelu", "gelu_python")
TANH_GELU = ("gelu_pytorch_tanh", "gelu_new", "gelu_accurate", "gelu_fast")

# From names inside transformers 5 to those in its files and in all older versions.
NAMES_IN_FILES = (
    (r"^layers\.", "encoder.layer."),
    (r"attention\.q_proj\.", "attention.attention.query."),
    (r"attention\.k_proj\.", "attention.attention.key."),
    (r"attention\.v_proj\.", "attention.attention.value."),
    (r"attention\.o_proj\.", "attention.output.dense."),
    (r"^(encoder\.layer\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"^(encoder\.layer\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
)

VIT_TABLE = make_table(
    (VIT_PATCH, "patch_embedding", TORCH_CONVOLUTION),
    ("embeddings.position_embeddings", "position_embedding/embedding", ARRAY),
    ("embeddings.cls_token", "class_token/token", ARRAY),
    ("encoder.layer.{block}.layernorm_before", f"{BLOCK}/attention_norm", TORCH_NORM),
    *(
        (
            "encoder.layer.{block}.attention.attention." + part,
            f"{BLOCK}/attention",
            torch_to_heads(part),
        )
        for part in ("query", "key", "value")
    ),
    (
        "encoder.layer.{block}.attention.output.dense",
        f"{BLOCK}/attention/out",
        TORCH_FROM_HEADS,
    ),
    ("encoder.layer.{block}.layernorm_after", f"{BLOCK}/mlp_norm", TORCH_NORM),
    ("encoder.layer.{block}.intermediate.dense", f"{BLOCK}/mlp/dense_0", TORCH_LINEAR),
    ("encoder.layer.{block}.output.dense", f"{BLOCK}/mlp/dense_1", TORCH_LINEAR),
    ("layernorm", "encoder_norm", TORCH_NORM),
    ("pooler.dense", "pre_logits", TORCH_LINEAR),  # Dense and tanh, as in the old ViT.
    ("classifier", "head", TORCH_LINEAR),
)

SIGLIP_TABLE = make_table(
    (SIGLIP_PATCH, "patch_embedding", TORCH_CONVOLUTION),
    (
        "embeddings.position_embedding.weight",
        "position_embedding/embedding",
        (Row("", "", ADD_BATCH_AXIS),),
    ),
    ("encoder.layers.{block}.layer_norm1", f"{BLOCK}/attention_norm", TORCH_NORM),
    *(
        (
            "encoder.layers.{block}.self_attn." + f"{part[0]}_proj",
            f"{BLOCK}/attention",
            torch_to_heads(part),
        )
        for part in ("query", "key", "value")
    ),
    (
        "encoder.layers.{block}.self_attn.out_proj",
        f"{BLOCK}/attention/out",
        TORCH_FROM_HEADS,
    ),
    ("encoder.layers.{block}.layer_norm2", f"{BLOCK}/mlp_norm", TORCH_NORM),
    ("encoder.layers.{block}.mlp.fc1", f"{BLOCK}/mlp/dense_0", TORCH_LINEAR),
    ("encoder.layers.{block}.mlp.fc2", f"{BLOCK}/mlp/dense_1", TORCH_LINEAR),
    ("post_layernorm", "encoder_norm", TORCH_NORM),
    ("head.probe", "map_head/probe", ARRAY),
    (
        "head.attention.in_proj_",
        "map_head/attention",
        torch_to_heads("query", "key", "value", separator=""),
    ),
    ("head.attention.out_proj", "map_head/attention/out", TORCH_FROM_HEADS),
    ("head.layernorm", "map_head/norm", TORCH_NORM),
    ("head.mlp.fc1", "map_head/mlp/dense_0", TORCH_LINEAR),
    ("head.mlp.fc2", "map_head/mlp/dense_1", TORCH_LINEAR),
    ("classifier", "head", TORCH_LINEAR),
)


def read_huggingface(
    arrays: Arrays, options: ReadOptions, config: Mapping[str, Any]
) -> ViTWeights:
    """Read a ViT's or a SigLIP image tower's arrays.

    Args:
        arrays: The file's arrays.
        options: The caller's options.
        config: The model's config.json, or {}: heads, epsilon of norms, GELU.

    Raises:
        ValueError: The file holds another model, is incomplete, or does not have the
            requested shape or head; or the configuration names another function than
            GELU.
    """
    config = config.get("vision_config", config)
    source = _image_model(arrays)
    source.leave_out_ignored(options.ignore)
    is_siglip = source.layout == "huggingface_siglip"
    arguments = {
        "approximate_gelu": _uses_tanh_gelu(source, config, is_siglip, options),
        "norm_epsilon": _epsilon(source, config, is_siglip, options),
    }
    table = SIGLIP_TABLE if is_siglip else VIT_TABLE
    heads = config.get("num_attention_heads")
    return convert(source, table, arguments, options, heads=heads)


def _uses_tanh_gelu(
    source: SourceArrays,
    config: Mapping[str, Any],
    is_siglip: bool,
    options: ReadOptions,
) -> bool:
    """Whether `hidden_act`, by default the model's, is GELU by tanh.

    Raises:
        ValueError: It is another function, and the caller did not choose.
    """
    activation = config.get("hidden_act", "gelu_pytorch_tanh" if is_siglip else "gelu")
    known = (*ERF_GELU, *TANH_GELU)
    if options.approximate_gelu is None and activation not in known:
        raise ValueError(
            f"The model's config.json has hidden_act={activation!r}; this package's "
            f"ViT computes GELU: {', '.join(known)}. Set `approximate_gelu` (--gelu) "
            "to use GELU nevertheless; the outputs will differ from the source's."
        )
    if not config and options.approximate_gelu is None:
        source.assumed.append(
            f"GELU by {'tanh' if is_siglip else 'erf'}, this model's default in "
            "transformers. Set `approximate_gelu` (--gelu) or provide its config.json "
            "to change it."
        )
    return activation in TANH_GELU


def _epsilon(
    source: SourceArrays,
    config: Mapping[str, Any],
    is_siglip: bool,
    options: ReadOptions,
) -> float:
    """Return the norms' epsilon, by default the model's; note it without a config."""
    epsilon = config.get("layer_norm_eps", 1e-6 if is_siglip else 1e-12)
    if not config and options.norm_epsilon is None:
        source.assumed.append(
            f"epsilon {epsilon:g} in all norms, this model's default in transformers. "
            "Set `norm_epsilon` (--norm_epsilon) or provide its config.json to change "
            "it."
        )
    return epsilon


def _image_model(arrays: Arrays) -> SourceArrays:
    """Return the image model's arrays under the names in transformers' files."""
    prefix = FORMAT.find_prefix(arrays) or ""
    is_siglip = f"{prefix}{SIGLIP_PATCH}.weight" in arrays
    layout = "huggingface_siglip" if is_siglip else "huggingface_vit"
    source = SourceArrays(layout, dict(arrays))
    # The classifier is stored next to the tower, without its prefix.
    outside = f"(?!{re.escape(prefix)}|classifier" + r"\.(weight|bias)).*"
    source.leave_out(outside, "not part of the image tower")
    source.rename(f"^{re.escape(prefix)}", "")
    if not is_siglip:
        mask = r"embeddings\.mask_token"
        source.leave_out(mask, "only used in masked pre-training")
        for pattern, name_in_files in NAMES_IN_FILES:
            source.rename(pattern, name_in_files)
    elif "classifier.weight" in source.arrays:
        reason = "this model's classifier reads the mean of tokens"
        source.leave_out(r"head\..*", reason)
    return source


FORMAT = WeightsFormat(
    layouts=("huggingface_vit", "huggingface_siglip"),
    description=".safetensors of Hugging Face's ViT and SigLIP",
    prefixes=("", "vit.", "vision_model.", "model.vision_model."),
    markers=(f"{VIT_PATCH}.weight", f"{SIGLIP_PATCH}.weight"),
    read=read_huggingface,
    reference=HuggingFaceReference,
)
