"""Hugging Face transformers' ViT, SigLIP and CLIP image towers in .safetensors."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import re

import numpy as np

from vit_scaling.applications.formats.conversion import convert
from vit_scaling.applications.formats.huggingface_config import (
    CLIP,
    SIGLIP,
    VIT,
    Config,
    HuggingFaceConfig,
    check_model_type,
)
from vit_scaling.applications.formats.huggingface_reference import (
    HuggingFaceReference,
)
from vit_scaling.applications.formats.name_table import (
    TORCH_LAYERS,
    make_table,
)
from vit_scaling.applications.formats.source_arrays import SourceArrays
from vit_scaling.applications.formats.token_positions import CLASS_TOKEN, TOKENS
from vit_scaling.applications.formats.vit_weights import ReadOptions, ViTWeights
from vit_scaling.applications.formats.weights_format import WeightsFormat
from vit_scaling.array_files import Arrays

VIT_PATCH = "embeddings.patch_embeddings.projection"
SIGLIP_PATCH = "embeddings.patch_embedding"

# From names inside transformers 5 to those in its files and in all older versions.
NAMES_IN_FILES = (
    (r"^layers\.", "encoder.layer."),
    (r"attention\.q_proj\.", "attention.attention.query."),
    (r"attention\.k_proj\.", "attention.attention.key."),
    (r"attention\.v_proj\.", "attention.attention.value."),
    (r"attention\.o_proj\.", "attention.output.dense."),
    (r"^(encoder\.layer\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"^(encoder\.layer\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
    # DINOv2's names of the same layers; DeiT's second token, which no head reads.
    (r"^(encoder\.layer\.\d+)\.norm1\.", r"\1.layernorm_before."),
    (r"^(encoder\.layer\.\d+)\.norm2\.", r"\1.layernorm_after."),
    (r"^embeddings\.distillation_token$", "embeddings.register_tokens"),
)

VIT_TABLE = make_table(
    TORCH_LAYERS,
    (VIT_PATCH, "patch_embedding", "patches"),
    ("embeddings.position_embeddings", "position_embedding/embedding", "array"),
    ("embeddings.cls_token", "class_token/token", "array"),
    ("embeddings.register_tokens", "register_tokens/tokens", "array"),
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
    (
        "encoder.layer.{block}.layer_scale1.lambda1",
        "{block}/attention_scale/gamma",
        "array",
    ),
    ("encoder.layer.{block}.layer_scale2.lambda1", "{block}/mlp_scale/gamma", "array"),
    ("encoder.layer.{block}.layernorm_after", "{block}/mlp_norm", "norm"),
    ("encoder.layer.{block}.intermediate.dense", "{block}/mlp/dense_0", "linear"),
    ("encoder.layer.{block}.output.dense", "{block}/mlp/dense_1", "linear"),
    ("layernorm", "encoder_norm", "norm"),
    ("pooler.dense", "pre_logits", "linear"),  # Dense and tanh, as in the old ViT.
    ("classifier", "head", "linear"),
)

SIGLIP_TABLE = make_table(  # And CLIP's, which adds a class token and a norm.
    TORCH_LAYERS,
    ("embeddings.class_embedding", "class_token/token", "token"),
    ("pre_layrnorm", "embedding_norm", "norm"),
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


# Arrays next to the tower that belong to other models, or to the pre-training alone.
OTHER_PARTS = r"(text_model|decoder|lm_head|visual_projection|text_projection)\..*|" + (
    r"logit_(scale|bias)"
)


def read_huggingface(
    arrays: Arrays, options: ReadOptions, config: Config
) -> ViTWeights:
    """Read a ViT's, DeiT's, DINOv2's or a SigLIP or CLIP image tower's arrays.

    Args:
        arrays: The file's arrays.
        options: The caller's options.
        config: The model's config.json, or {}; see `HuggingFaceConfig`.

    Raises:
        ValueError: The file holds another model, is incomplete, or does not have the
            requested shape or head; or the configuration is of a model that computes
            differently.
    """
    check_model_type(config)
    source = _image_model(arrays)
    source.leave_out_ignored(options.ignore)
    image_config = HuggingFaceConfig(
        config.get("vision_config", config), options, source
    )
    image_config.check_computation()
    _check_classifier(source)
    arguments = {
        "approximate_gelu": image_config.uses_tanh_gelu(),
        "norm_epsilon": image_config.epsilon(),
    }
    table = VIT_TABLE if source.layout == VIT else SIGLIP_TABLE
    options = dataclasses.replace(options, source_image_size=image_config.image_size)
    heads = image_config.config.get("num_attention_heads")
    # DINOv2's registers have no positions, DeiT's distillation token has one.
    register = source.name_in_file("embeddings.register_tokens")
    tokens = TOKENS if register.endswith("distillation_token") else (CLASS_TOKEN,)
    weights = convert(
        source, table, arguments, options, heads=heads, tokens_with_position=tokens
    )
    image_config.check_shape(weights.shape)
    return weights


def _check_classifier(source: SourceArrays) -> None:
    """Raise ValueError if a classifier reads something else than one pooled vector."""
    kernel = source.arrays.get("classifier.weight")
    norm = source.arrays.get("layernorm.weight", np.zeros(0))
    if kernel is not None and kernel.shape[1:] == (2 * len(norm),):
        raise ValueError(
            "The model's classifier reads the class token next to the average of the "
            "patches (DINOv2), which no head of this package does. Leave it out by "
            "ignore='classifier.*'."
        )
    if source.layout == CLIP and kernel is not None:
        raise ValueError(
            "The model's classifier reads the average of tokens without the last norm "
            "(CLIPForImageClassification), which no head of this package does. Leave "
            "it out by ignore='classifier.*'."
        )
    if "distillation_classifier.weight" in source.arrays:
        raise ValueError(
            "The model averages two classifiers, of the class token and of the "
            "distillation token (DeiT), which no head of this package does. Leave them "
            "out by ignore='.*classifier.*'."
        )


def _image_model(arrays: Arrays) -> SourceArrays:
    """Return the image model's arrays under the names in transformers' files."""
    prefix = FORMAT.find_prefix(arrays) or ""
    layout = SIGLIP if f"{prefix}{SIGLIP_PATCH}.weight" in arrays else VIT
    if f"{prefix}embeddings.class_embedding" in arrays:
        layout = CLIP
    source = SourceArrays(layout, dict(arrays))
    source.leave_out(OTHER_PARTS, "not part of the image tower")
    source.rename(f"^{re.escape(prefix)}", "")
    source.leave_out(r"embeddings\.position_ids", "numbers of the positions")
    if layout == VIT:
        mask = r"embeddings\.mask_token"
        source.leave_out(mask, "only used in masked pre-training")
        for pattern, name_in_files in NAMES_IN_FILES:
            source.rename(pattern, name_in_files)
    elif layout == SIGLIP and "classifier.weight" in source.arrays:
        reason = "this model's classifier reads the mean of tokens"
        source.leave_out(r"head\..*", reason)
    return source


FORMAT = WeightsFormat(
    layouts=(VIT, SIGLIP, CLIP),
    description=".safetensors of Hugging Face's ViT, DeiT, DINOv2, SigLIP and CLIP",
    prefixes=(
        "",
        "vit.",
        "deit.",
        "dinov2.",
        "dinov2_with_registers.",
        "ijepa.",
        "vision_model.",
        "model.vision_model.",
    ),
    markers=(f"{VIT_PATCH}.weight", f"{SIGLIP_PATCH}.weight"),
    read=read_huggingface,
    reference=HuggingFaceReference,
)
