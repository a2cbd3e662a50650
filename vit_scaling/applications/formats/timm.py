"""timm's VisionTransformer in .safetensors files."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_scaling.applications.formats import name_table, weights_format
from vit_scaling.applications.formats.conversion import convert
from vit_scaling.applications.formats.source_arrays import SourceArrays
from vit_scaling.applications.formats.timm_config import TimmConfig
from vit_scaling.applications.formats.timm_reference import TimmReference
from vit_scaling.applications.formats.vit_weights import ReadOptions, ViTWeights
from vit_scaling.array_files import Arrays
from vit_scaling.modeling.positions import sincos

TABLE = name_table.make_table(
    name_table.TORCH_LAYERS,
    ("patch_embed.proj", "patch_embedding", "patches"),
    ("pos_embed", "position_embedding/embedding", "array"),
    ("cls_token", "class_token/token", "array"),
    ("reg_token", "register_tokens/tokens", "array"),
    ("norm_pre", "embedding_norm", "norm"),
    ("blocks.{block}.norm1", "{block}/attention_norm", "norm"),
    ("blocks.{block}.attn.qkv", "{block}/attention", "qkv"),
    ("blocks.{block}.attn.q_norm", "{block}/attention/query_norm", "norm"),
    ("blocks.{block}.attn.k_norm", "{block}/attention/key_norm", "norm"),
    ("blocks.{block}.attn.proj", "{block}/attention/out", "out"),
    ("blocks.{block}.ls1.gamma", "{block}/attention_scale/gamma", "array"),
    ("blocks.{block}.norm2", "{block}/mlp_norm", "norm"),
    ("blocks.{block}.mlp.fc1", "{block}/mlp/dense_0", "linear"),
    ("blocks.{block}.mlp.fc2", "{block}/mlp/dense_1", "linear"),
    ("blocks.{block}.ls2.gamma", "{block}/mlp_scale/gamma", "array"),
    ("norm", "encoder_norm", "norm"),
    ("attn_pool.latent", "map_head/probe", "array"),
    ("attn_pool.q", "map_head/attention", "q"),
    ("attn_pool.kv", "map_head/attention", "kv"),
    ("attn_pool.proj", "map_head/attention/out", "out"),
    ("attn_pool.norm", "map_head/norm", "norm"),
    ("attn_pool.mlp.fc1", "map_head/mlp/dense_0", "linear"),
    ("attn_pool.mlp.fc2", "map_head/mlp/dense_1", "linear"),
    ("pre_logits.fc", "pre_logits", "linear"),
    ("head", "head", "linear"),
)


def read_timm(
    arrays: Arrays, options: ReadOptions, config: Mapping[str, Any]
) -> ViTWeights:
    """Read a timm model's arrays.

    Args:
        arrays: The file's arrays.
        options: The caller's options.
        config: The model's config.json on the hub, or {}; see `TimmConfig`.

    Raises:
        ValueError: The file holds another model, is incomplete, or does not have the
            requested shape or head; or the configuration is of a model that computes
            differently.
    """
    source = SourceArrays("timm", dict(arrays))
    source.keep_prefix(FORMAT.find_prefix(arrays) or "")
    source.leave_out_ignored(options.ignore)
    timm_config = TimmConfig(config, options, source)
    timm_config.check_computation()
    held = source.arrays
    # timm applies `fc_norm` to the average of tokens, in place of `norm` before it.
    norm_after_pooling = "fc_norm.weight" in held and "norm.weight" not in held
    heads = timm_config.heads
    if "blocks.0.attn.q_norm.weight" in held:
        width = held[FORMAT.markers[0]].shape[0]
        heads = width // held["blocks.0.attn.q_norm.weight"].shape[0]
    head = timm_config.find_head(norm_after_pooling)
    arguments = {
        "head": head,
        "norm_after_pooling": norm_after_pooling,
        "approximate_gelu": timm_config.uses_tanh_gelu(head),
        "norm_epsilon": timm_config.find_epsilon(),
    }
    if norm_after_pooling:
        source.rename(r"^fc_norm\.", "norm.")
    options = dataclasses.replace(options, source_image_size=timm_config.image_size)
    return convert(source, TABLE, arguments, options, heads=heads)


def write_timm(weights: ViTWeights) -> weights_format.ExportedWeights:
    """Convert weights to a timm VisionTransformer's state.

    Raises:
        ValueError: The model has a layer that timm's lacks.
    """
    arguments, shape = weights.arguments, weights.shape
    variables = dict(weights.variables)
    if arguments.get("representation_width"):
        raise ValueError(
            "timm's VisionTransformer has no layer before the classifier "
            "(`representation_width`). Write big_vision's layout (.npz) instead."
        )
    if arguments.get("position") == "sincos":
        grid = shape.grid(arguments["image_size"])
        variables["position_embedding/embedding"] = sincos(grid, shape.width)
    rows = name_table.rows_for_depth(TABLE, shape.depth)
    arrays, _ = name_table.convert_to_source(rows, variables, shape.heads)
    pre_norm = arguments.get("norm_before_blocks")
    if pre_norm and arrays.pop("patch_embed.proj.bias").any():
        raise ValueError(
            "timm's VisionTransformer with `pre_norm` has no bias of the patch "
            "embedding, and this model has one. Save it as .keras or .npz instead."
        )
    if "cls_token" in arrays:  # By default timm's class token has a position; here 0.
        slots = arrays["cls_token"].shape[1] + arguments.get("register_tokens", 0)
        zeros = np.zeros((1, slots, shape.width), np.float32)
        arrays["pos_embed"] = np.concatenate([zeros, arrays["pos_embed"]], axis=1)
    if arguments.get("norm_after_pooling"):
        arrays = {re.sub(r"^norm\.", "fc_norm.", name): arrays[name] for name in arrays}
    timm_arguments = _timm_arguments(arguments)
    listed = ", ".join(
        f"{name}={value if name == 'norm_layer' else repr(value)}"
        for name, value in timm_arguments.items()
    )
    load_with = (
        f"model = timm.models.vision_transformer.VisionTransformer({listed}); "
        "model.load_state_dict(safetensors.torch.load_file({path}))"
    )
    return weights_format.ExportedWeights(arrays, load_with, timm_arguments)


def _timm_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of timm's VisionTransformer for these arguments of `vit`.

    `norm_layer`, present only if epsilon is not 1e-6, is the text of an expression.
    """
    shape, head = arguments["shape"], arguments["head"]
    timm_arguments: dict[str, Any] = {
        "img_size": arguments["image_size"],
        "patch_size": shape.patch,
        "embed_dim": shape.width,
        "depth": shape.depth,
        "num_heads": shape.heads,
        "mlp_ratio": _ratio(shape.mlp_width, shape.width),
        "num_classes": arguments.get("classes") or 0,
        "class_token": head == "token",
        "global_pool": {"gap": "avg", "none": ""}.get(head, head),
        "fc_norm": bool(arguments.get("norm_after_pooling")),
        "act_layer": "gelu_tanh" if arguments.get("approximate_gelu", True) else "gelu",
    }
    epsilon = arguments.get("norm_epsilon", 1e-6)
    if epsilon != 1e-6:  # timm's default.
        timm_arguments["norm_layer"] = (
            f"functools.partial(torch.nn.LayerNorm, eps={epsilon})"
        )
    if arguments.get("register_tokens"):
        timm_arguments["reg_tokens"] = arguments["register_tokens"]
        timm_arguments["no_embed_class"] = head != "token"
    if arguments.get("layer_scale") is not None:
        timm_arguments["init_values"] = arguments["layer_scale"]
    if arguments.get("norm_before_blocks"):
        timm_arguments["pre_norm"] = True
    if arguments.get("qk_norm"):
        timm_arguments["qk_norm"] = True
    return timm_arguments


def _ratio(product: int, factor: int) -> float:
    """Return the ratio that timm multiplies by `factor`, and rounds down."""
    ratio = product / factor
    return ratio if int(factor * ratio) == product else math.nextafter(ratio, math.inf)


FORMAT = weights_format.WeightsFormat(
    layouts=("timm",),
    description=".safetensors of timm's ViT and SigLIP",
    # Wrappers that keep a timm model inside: open_clip's SigLIP, DataParallel,
    # Lightning.
    prefixes=("", "visual.trunk.", "trunk.", "module.", "model."),
    markers=("patch_embed.proj.weight",),
    read=read_timm,
    reference=TimmReference,
    write=write_timm,
    suffix=".safetensors",
)
