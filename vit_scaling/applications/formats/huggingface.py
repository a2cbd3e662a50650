"""Hugging Face transformers' ViT and SigLIP image towers in .safetensors."""
# SPDX-License-Identifier: Apache-2.0

import functools
import re
from collections.abc import Mapping
from typing import Any

from vit_scaling.applications.formats.assembly import assemble
from vit_scaling.applications.formats.layout import (
    FROM_HEADS,
    HEADS_BIAS,
    LINEAR,
    NO_BATCH,
    PATCHES,
    TO_HEADS,
    Arrays,
    Row,
    ViTWeights,
    count_blocks,
)
from vit_scaling.applications.formats.positions import fold_positions, patch_shape
from vit_scaling.applications.formats.source import (
    Request,
    Source,
    attention_heads,
)
from vit_scaling.modeling.shapes import ViTShape

PREFIXES = ("", "vit.", "vision_model.", "model.vision_model.")
VIT_PATCH = "embeddings.patch_embeddings.projection.weight"
SIGLIP_PATCH = "embeddings.patch_embedding.weight"

# transformers' names of GELU; what is not here is another function.
ERF_GELU = ("gelu", "gelu_python")
TANH_GELU = ("gelu_pytorch_tanh", "gelu_new", "gelu_accurate", "gelu_fast")

# Names inside transformers 5; its files, and all older ones, have those on the right.
NEWER_NAMES = (
    (r"^layers\.", "encoder.layer."),
    (r"attention\.q_proj\.", "attention.attention.query."),
    (r"attention\.k_proj\.", "attention.attention.key."),
    (r"attention\.v_proj\.", "attention.attention.value."),
    (r"attention\.o_proj\.", "attention.output.dense."),
    (r"^(encoder\.layer\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"^(encoder\.layer\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
)


def _rows(
    there: str, here: str, weight: Any, bias: Any = None, kernel: str = "kernel"
) -> tuple[Row, ...]:
    """Rows of a linear layer's weight and bias, each with its form."""
    first = Row(f"{there}.weight", f"{here}/{kernel}", weight)
    second = Row(f"{there}.bias", f"{here}/bias")
    return first, second if bias is None else Row(second.source, second.path, bias)


def _norm_rows(there: str, here: str) -> tuple[Row, ...]:
    return Row(f"{there}.weight", f"{here}/gamma"), Row(f"{there}.bias", f"{here}/beta")


def _attention_rows(names: Mapping[str, str], out: str, here: str) -> tuple[Row, ...]:
    rows = [
        row
        for part, there in names.items()
        for row in _rows(there, f"{here}/{part}", TO_HEADS, HEADS_BIAS)
    ]
    return *rows, *_rows(out, f"{here}/out", FROM_HEADS)


_HERE = "block_{block:02d}"
_VIT = "encoder.layer.{block}"
_SIGLIP = "encoder.layers.{block}"
_POOL = "map/attention.in_proj_"

VIT_TABLE = (
    *_rows(
        "embeddings.patch_embeddings.projection", "patch_embedding", PATCHES
    ),
    Row("embeddings.position_embeddings", "position_embedding/embedding"),
    Row("cls", "class_token/token"),
    *_norm_rows(f"{_VIT}.layernorm_before", f"{_HERE}/attention_norm"),
    *_attention_rows(
        {
            part: f"{_VIT}.attention.attention.{part}"
            for part in ("query", "key", "value")
        },
        f"{_VIT}.attention.output.dense",
        f"{_HERE}/attention",
    ),
    *_norm_rows(f"{_VIT}.layernorm_after", f"{_HERE}/mlp_norm"),
    *_rows(f"{_VIT}.intermediate.dense", f"{_HERE}/mlp/dense_0", LINEAR),
    *_rows(f"{_VIT}.output.dense", f"{_HERE}/mlp/dense_1", LINEAR),
    *_norm_rows("layernorm", "encoder_norm"),
    *_rows("pooler.dense", "pre_logits", LINEAR),  # Dense and tanh, as the old ViT's.
    *_rows("classifier", "head", LINEAR),
)  # fmt: skip

SIGLIP_TABLE = (
    *_rows("embeddings.patch_embedding", "patch_embedding", PATCHES),
    Row(
        "embeddings.position_embedding.weight", "position_embedding/embedding"
    ),
    *_norm_rows(f"{_SIGLIP}.layer_norm1", f"{_HERE}/attention_norm"),
    *_attention_rows(
        {
            part: f"{_SIGLIP}.self_attn.{part[0]}_proj"
            for part in ("query", "key", "value")
        },
        f"{_SIGLIP}.self_attn.out_proj",
        f"{_HERE}/attention",
    ),
    *_norm_rows(f"{_SIGLIP}.layer_norm2", f"{_HERE}/mlp_norm"),
    *_rows(f"{_SIGLIP}.mlp.fc1", f"{_HERE}/mlp/dense_0", LINEAR),
    *_rows(f"{_SIGLIP}.mlp.fc2", f"{_HERE}/mlp/dense_1", LINEAR),
    *_norm_rows("post_layernorm", "encoder_norm"),
    Row("map/probe", "map_head/probe"),
    *(
        Row(f"{_POOL}{kind}", f"map_head/attention/{part}/{name}", form, (index, 3))
        for kind, name, form in (
            ("weight", "kernel", TO_HEADS),
            ("bias", "bias", HEADS_BIAS),
        )
        for index, part in enumerate(("query", "key", "value"))
    ),
    *_rows("map/attention.out_proj", "map_head/attention/out", FROM_HEADS),
    *_norm_rows("map/layernorm", "map_head/norm"),
    *_rows("map/mlp.fc1", "map_head/mlp/dense_0", LINEAR),
    *_rows("map/mlp.fc2", "map_head/mlp/dense_1", LINEAR),
    *_rows("classifier", "head", LINEAR),
)  # fmt: skip


def is_huggingface(names: set[str]) -> bool:
    """Return whether these are the names of a ViT or SigLIP of transformers."""
    return any(
        prefix + patch in names
        for prefix in PREFIXES
        for patch in (VIT_PATCH, SIGLIP_PATCH)
    )


def read_huggingface(
    arrays: Arrays, request: Request, config: Mapping[str, Any]
) -> ViTWeights:
    """Return weights from a ViT's or a SigLIP image tower's arrays.

    Args:
        arrays: The file's arrays.
        request: What the caller knows or wants.
        config: The model's config.json, or {}: heads, norms' epsilon, GELU.

    Raises:
        ValueError: The file holds another model, is incomplete, is not of the shape
            asked for, or its configuration names another function than GELU.
    """
    config = config.get("vision_config", config)
    source = _tidy(arrays)
    siglip = source.layout == "huggingface_siglip"
    approximate_gelu = _approximate_gelu(source, config, siglip, request)
    if request.ignore:
        source.leave_out(request.ignore, "ignored, as asked")
    held = source.arrays
    first = (
        "encoder.layers.0.mlp.fc1" if siglip else "encoder.layer.0.intermediate.dense"
    )
    if f"{first}.weight" not in held:
        raise ValueError(
            f"The file lacks {first + '.weight'!r}: it is incomplete, or no plain ViT."
        )
    width, _, patch, _ = patch_shape(source, SIGLIP_PATCH if siglip else VIT_PATCH)
    depth = count_blocks(held, r"encoder\.layers?\.(\d+)\.")
    mlp_width = held[f"{first}.weight"].shape[0]
    told = config.get("num_attention_heads")
    heads = attention_heads(source, request, told, (width, depth, mlp_width))
    positions = "embeddings.position_embedding" + (".weight" if siglip else "s")
    if siglip:
        held[positions] = NO_BATCH.to_ours(held[positions], heads)
    prefix = ["cls"] if "cls" in held else []
    size = fold_positions(source, positions, prefix, patch, request)
    classifier, hidden = held.get("classifier.weight"), held.get("pooler.dense.weight")
    arguments = {
        "shape": ViTShape(patch, width, depth, mlp_width, heads),
        "head": "map" if "map/probe" in held else "token" if prefix else "gap",
        "image_size": size,
        "position": "learned",
        "classes": None if classifier is None else classifier.shape[0],
        "representation_width": None if hidden is None else hidden.shape[0],
        "approximate_gelu": approximate_gelu,
        "norm_epsilon": _epsilon(source, config, siglip, request),
    }
    return assemble(source, SIGLIP_TABLE if siglip else VIT_TABLE, arguments, request)


def _approximate_gelu(
    source: Source, config: Mapping[str, Any], siglip: bool, request: Request
) -> bool:
    """Return whether `hidden_act`, or the model's default without it, is tanh's GELU.

    Raises:
        ValueError: It is another function, and the caller does not say which to take.
    """
    act = config.get("hidden_act", "gelu_pytorch_tanh" if siglip else "gelu")
    if request.approximate_gelu is None and act not in (*ERF_GELU, *TANH_GELU):
        raise ValueError(
            f"The config.json beside the file says hidden_act={act!r}; this package's "
            f"ViT computes GELU: {', '.join((*ERF_GELU, *TANH_GELU))}. "
            "`approximate_gelu` (--gelu) takes the weights with GELU all the same; the "
            "outputs are then not the source's."
        )
    if not config and request.approximate_gelu is None:
        source.assumed.append(
            f"GELU by {'tanh' if siglip else 'erf'}, this model's default in "
            "transformers; its config.json beside the file, or `approximate_gelu` "
            "(--gelu), says otherwise."
        )
    return act in TANH_GELU


def _epsilon(
    source: Source, config: Mapping[str, Any], siglip: bool, request: Request
) -> float:
    """Return the norms' epsilon, or the model's default; note it without a config."""
    epsilon = config.get("layer_norm_eps", 1e-6 if siglip else 1e-12)
    if not config and request.norm_epsilon is None:
        source.assumed.append(
            f"epsilon {epsilon:g} in all norms, this model's default in transformers; "
            "its config.json beside the file, or `norm_epsilon` (--norm_epsilon), "
            "says otherwise."
        )
    return epsilon


def _tidy(arrays: Arrays) -> Source:
    """Return the image model's arrays under the names in transformers' files."""
    prefix = next(
        p for p in PREFIXES if {p + VIT_PATCH, p + SIGLIP_PATCH} & arrays.keys()
    )
    siglip = prefix + SIGLIP_PATCH in arrays
    source = Source("huggingface_siglip" if siglip else "huggingface_vit", dict(arrays))
    outside = r"classifier\.(weight|bias)"  # The classifier lies beside the tower.
    if prefix:
        source.leave_out(
            f"(?!{re.escape(prefix)}|{outside}).*", "not part of the image tower"
        )
        source.rename(lambda name: name.removeprefix(prefix))
    if siglip:
        source.rename(lambda name: re.sub(r"^head\.", "map/", name))
        if "classifier.weight" in source.arrays:
            source.leave_out(
                "map/.*", "this model's classifier reads the mean of tokens"
            )
        return source
    source.leave_out(r"embeddings\.mask_token", "only used in masked pre-training")
    for pattern, old in NEWER_NAMES:
        source.rename(functools.partial(re.sub, pattern, old))
    source.rename(lambda name: "cls" if name == "embeddings.cls_token" else name)
    return source
