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
    TORCH_LAYERS,
    make_table,
)
from vit_scaling.applications.formats.source_arrays import SourceArrays
from vit_scaling.applications.formats.vit_weights import ReadOptions, ViTWeights
from vit_scaling.applications.formats.weights_format import WeightsFormat
from vit_scaling.array_files import Arrays

VIT, SIGLIP = "huggingface_vit", "huggingface_siglip"  # Names of the layouts.
Config = Mapping[str, Any]
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
    TORCH_LAYERS,
    (VIT_PATCH, "patch_embedding", "patches"),
    ("embeddings.position_embeddings", "position_embedding/embedding", "array"),
    ("embeddings.cls_token", "class_token/token", "array"),
    ("encoder.layer.{block}.layernorm_before", "{block}/attention_norm", "norm"),
    (
        "encoder.layer.{block}.attention.attention.query",
        "{block}/attention/query",
        "to_heads",
    ),
    (
        "encoder.layer.{block}.attention.attention.key",
        "{block}/attention/key",
        "to_heads",
    ),
    (
        "encoder.layer.{block}.attention.attention.value",
        "{block}/attention/value",
        "to_heads",
    ),
    ("encoder.layer.{block}.attention.output.dense", "{block}/attention/out", "out"),
    ("encoder.layer.{block}.layernorm_after", "{block}/mlp_norm", "norm"),
    ("encoder.layer.{block}.intermediate.dense", "{block}/mlp/dense_0", "linear"),
    ("encoder.layer.{block}.output.dense", "{block}/mlp/dense_1", "linear"),
    ("layernorm", "encoder_norm", "norm"),
    ("pooler.dense", "pre_logits", "linear"),  # Dense and tanh, as in the old ViT.
    ("classifier", "head", "linear"),
)

SIGLIP_TABLE = make_table(
    TORCH_LAYERS,
    (SIGLIP_PATCH, "patch_embedding", "patches"),
    (
        "embeddings.position_embedding.weight",
        "position_embedding/embedding",
        "positions",
    ),
    ("encoder.layers.{block}.layer_norm1", "{block}/attention_norm", "norm"),
    ("encoder.layers.{block}.self_attn.q_proj", "{block}/attention/query", "to_heads"),
    ("encoder.layers.{block}.self_attn.k_proj", "{block}/attention/key", "to_heads"),
    ("encoder.layers.{block}.self_attn.v_proj", "{block}/attention/value", "to_heads"),
    ("encoder.layers.{block}.self_attn.out_proj", "{block}/attention/out", "out"),
    ("encoder.layers.{block}.layer_norm2", "{block}/mlp_norm", "norm"),
    ("encoder.layers.{block}.mlp.fc1", "{block}/mlp/dense_0", "linear"),
    ("encoder.layers.{block}.mlp.fc2", "{block}/mlp/dense_1", "linear"),
    ("post_layernorm", "encoder_norm", "norm"),
    ("head.probe", "map_head/probe", "array"),
    ("head.attention.in_proj", "map_head/attention", "in_proj"),
    ("head.attention.out_proj", "map_head/attention/out", "out"),
    ("head.layernorm", "map_head/norm", "norm"),
    ("head.mlp.fc1", "map_head/mlp/dense_0", "linear"),
    ("head.mlp.fc2", "map_head/mlp/dense_1", "linear"),
    ("classifier", "head", "linear"),
)


def read_huggingface(
    arrays: Arrays, options: ReadOptions, config: Config
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
    arguments = {
        "approximate_gelu": _uses_tanh_gelu(source, config, options),
        "norm_epsilon": _epsilon(source, config, options),
    }
    table = SIGLIP_TABLE if source.layout == SIGLIP else VIT_TABLE
    heads = config.get("num_attention_heads")
    return convert(source, table, arguments, options, heads=heads)


def _uses_tanh_gelu(source: SourceArrays, config: Config, options: ReadOptions) -> bool:
    """Whether `hidden_act`, by default the model's, is GELU by tanh.

    Raises:
        ValueError: It is another function, and the caller did not choose.
    """
    activation = config.get(
        "hidden_act", "gelu_pytorch_tanh" if source.layout == SIGLIP else "gelu"
    )
    known = (*ERF_GELU, *TANH_GELU)
    if options.approximate_gelu is None and activation not in known:
        raise ValueError(
            f"The model's config.json has hidden_act={activation!r}; this package's "
            f"ViT computes GELU: {', '.join(known)}. Set `approximate_gelu` (--gelu) "
            "to use GELU nevertheless; the outputs will differ from the source's."
        )
    if not config and options.approximate_gelu is None:
        source.assumed.append(
            f"GELU by {'tanh' if activation in TANH_GELU else 'erf'}, this model's "
            "default in transformers. Set `approximate_gelu` (--gelu) or provide its "
            "config.json to change it."
        )
    return activation in TANH_GELU


def _epsilon(source: SourceArrays, config: Config, options: ReadOptions) -> float:
    """Return the norms' epsilon, by default the model's; note it without a config."""
    epsilon = config.get("layer_norm_eps", 1e-6 if source.layout == SIGLIP else 1e-12)
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
    layout = SIGLIP if is_siglip else VIT
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
    layouts=(VIT, SIGLIP),
    description=".safetensors of Hugging Face's ViT and SigLIP",
    prefixes=("", "vit.", "vision_model.", "model.vision_model."),
    markers=(f"{VIT_PATCH}.weight", f"{SIGLIP_PATCH}.weight"),
    read=read_huggingface,
    reference=HuggingFaceReference,
)
