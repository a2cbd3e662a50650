"""timm's VisionTransformer in .safetensors: fused qkv, class token in the positions."""
# SPDX-License-Identifier: Apache-2.0

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_scaling.applications.formats.assembly import assemble
from vit_scaling.applications.formats.layout import (
    FROM_HEADS,
    HEADS_BIAS,
    LINEAR,
    PATCHES,
    TO_HEADS,
    Arrays,
    Row,
    ViTWeights,
    count_blocks,
    from_ours,
    rows_for,
)
from vit_scaling.applications.formats.positions import fold_positions, patch_shape
from vit_scaling.applications.formats.source import (
    Request,
    Source,
    attention_heads,
)
from vit_scaling.applications.formats.timm_config import (
    approximate_gelu,
    check_blocks_and_pool,
    head_of,
    model_args,
    note_epsilon,
)
from vit_scaling.modeling.positions import sincos
from vit_scaling.modeling.shapes import ViTShape

# Wrappers that keep a timm model inside: open_clip's SigLIP, DataParallel, Lightning.
PREFIXES = ("", "visual.trunk.", "trunk.", "module.", "model.")
PATCH = "patch_embed.proj.weight"


def _linear_rows(there: str, here: str) -> tuple[Row, ...]:
    return (
        Row(f"{there}.weight", f"{here}/kernel", LINEAR),
        Row(f"{there}.bias", f"{here}/bias"),
    )


def _norm_rows(there: str, here: str) -> tuple[Row, ...]:
    return Row(f"{there}.weight", f"{here}/gamma"), Row(f"{there}.bias", f"{here}/beta")


def _heads_rows(there: str, here: str, *parts: str) -> tuple[Row, ...]:
    """Rows of a projection that holds several of ours on its first axis."""
    count = len(parts)
    return tuple(
        Row(f"{there}.{kind}", f"{here}/{part}/{name}", form, (index, count))
        for kind, name, form in (
            ("weight", "kernel", TO_HEADS),
            ("bias", "bias", HEADS_BIAS),
        )
        for index, part in enumerate(parts)
    )


def _out_rows(there: str, here: str) -> tuple[Row, ...]:
    return (
        Row(f"{there}.weight", f"{here}/kernel", FROM_HEADS),
        Row(f"{there}.bias", f"{here}/bias"),
    )


_HERE = "block_{block:02d}"
_THERE = "blocks.{block}"
TABLE = (
    Row(PATCH, "patch_embedding/kernel", PATCHES),
    Row("patch_embed.proj.bias", "patch_embedding/bias"),
    Row("pos_embed", "position_embedding/embedding"),
    Row("cls", "class_token/token"),
    *_norm_rows(f"{_THERE}.norm1", f"{_HERE}/attention_norm"),
    *_heads_rows(f"{_THERE}.attn.qkv", f"{_HERE}/attention", "query", "key", "value"),
    *_norm_rows(f"{_THERE}.attn.q_norm", f"{_HERE}/attention/query_norm"),
    *_norm_rows(f"{_THERE}.attn.k_norm", f"{_HERE}/attention/key_norm"),
    *_out_rows(f"{_THERE}.attn.proj", f"{_HERE}/attention/out"),
    Row(f"{_THERE}.ls1.gamma", f"{_HERE}/attention_scale/gamma"),
    *_norm_rows(f"{_THERE}.norm2", f"{_HERE}/mlp_norm"),
    *_linear_rows(f"{_THERE}.mlp.fc1", f"{_HERE}/mlp/dense_0"),
    *_linear_rows(f"{_THERE}.mlp.fc2", f"{_HERE}/mlp/dense_1"),
    Row(f"{_THERE}.ls2.gamma", f"{_HERE}/mlp_scale/gamma"),
    *_norm_rows("norm", "encoder_norm"),
    Row("map/latent", "map_head/probe"),
    *_heads_rows("map/q", "map_head/attention", "query"),
    *_heads_rows("map/kv", "map_head/attention", "key", "value"),
    *_out_rows("map/proj", "map_head/attention/out"),
    *_norm_rows("map/norm", "map_head/norm"),
    *_linear_rows("map/mlp.fc1", "map_head/mlp/dense_0"),
    *_linear_rows("map/mlp.fc2", "map_head/mlp/dense_1"),
    *_linear_rows("pre_logits.fc", "pre_logits"),
    *_linear_rows("head", "head"),
)


def is_timm(names: set[str]) -> bool:
    """Return whether these are the names of a timm VisionTransformer."""
    return any(prefix + PATCH in names for prefix in PREFIXES)


def read_timm(
    arrays: Arrays, request: Request, config: Mapping[str, Any]
) -> ViTWeights:
    """Return weights from a timm model's arrays.

    Args:
        arrays: The file's arrays.
        request: What the caller knows or wants.
        config: The model's config.json on the hub, or {}; `architecture`,
            `model_args` and `global_pool` are read (`timm_config`).

    Raises:
        ValueError: The file holds another model, is incomplete, is not of the shape
            asked for, or its configuration says that it computes otherwise.
    """
    source = _tidy(arrays)
    check_blocks_and_pool(source, config)
    after = "fc_norm.weight" in source.arrays and "norm.weight" not in source.arrays
    if after:  # A norm of the average; one of the tokens is then left out by timm.
        source.rename(lambda name: re.sub(r"^fc_norm\.", "norm.", name))
    if request.ignore:
        source.leave_out(request.ignore, "ignored, as asked")
    held = source.arrays
    if "blocks.0.mlp.fc1.weight" not in held or "pos_embed" not in held:
        raise ValueError(
            "The file lacks 'blocks.0.mlp.fc1.weight' or 'pos_embed': it is "
            "incomplete, or no plain Vision Transformer of timm's."
        )
    width, _, patch, _ = patch_shape(source, PATCH)
    depth = count_blocks(held, r"blocks\.(\d+)\.")
    mlp_width = held["blocks.0.mlp.fc1.weight"].shape[0]
    qk_norm = "blocks.0.attn.q_norm.weight" in held
    told = model_args(config).get("num_heads")
    if qk_norm:
        told = width // held["blocks.0.attn.q_norm.weight"].shape[0]
    heads = attention_heads(source, request, told, (width, depth, mlp_width))
    prefix: list[str] = [name for name in ("cls", "register") if name in held]
    size = fold_positions(source, "pos_embed", prefix, patch, request)
    head = head_of(source, after, config, request)
    note_epsilon(source, config, request)
    classifier, hidden = held.get("head.weight"), held.get("pre_logits.fc.weight")
    arguments = {
        "shape": ViTShape(patch, width, depth, mlp_width, heads),
        "head": head,
        "image_size": size,
        "position": "learned",
        "classes": None if classifier is None else classifier.shape[0],
        "representation_width": None if hidden is None else hidden.shape[0],
        "layer_scale": 1.0 if "blocks.0.ls1.gamma" in held else None,
        "qk_norm": qk_norm,
        "approximate_gelu": approximate_gelu(source, head, config, request),
        "norm_after_pooling": after,
    }
    return assemble(source, TABLE, arguments, request)


def write_timm(weights: ViTWeights) -> tuple[Arrays, dict[str, Any]]:
    """Return a timm VisionTransformer's state, and the arguments that make that model.

    Of the arguments `norm_layer`, there only where epsilon is not 1e-6, is the text of
    a Python expression.

    Raises:
        ValueError: The model has parts that timm's does not have.
    """
    arguments, shape = weights.arguments, weights.shape
    variables = dict(weights.variables)
    if arguments.get("representation_width"):
        raise ValueError(
            "timm's VisionTransformer has no layer before the classifier "
            "(`representation_width`). Write big_vision's layout."
        )
    if arguments.get("position") == "sincos":
        grid = shape.grid(arguments["image_size"])
        variables["position_embedding/embedding"] = sincos(grid, shape.width)
    rows = [*rows_for(TABLE, shape.depth), Row("register", "register_tokens/tokens")]
    arrays, _ = from_ours(rows, variables, shape.heads)
    if "cls" in arrays:  # timm's default: the class token has a position; here zero.
        slots = arrays["cls"].shape[1] + arguments.get("register_tokens", 0)
        zeros = np.zeros((1, slots, shape.width), np.float32)
        arrays["pos_embed"] = np.concatenate([zeros, arrays["pos_embed"]], axis=1)
    names = {"cls": "cls_token", "register": "reg_token"}
    if arguments.get("norm_after_pooling"):
        names |= {f"norm.{part}": f"fc_norm.{part}" for part in ("weight", "bias")}
    arrays = {
        names.get(name, re.sub("^map/", "attn_pool.", name)): arrays[name]
        for name in arrays
    }
    return arrays, _timm_arguments(arguments)


def _timm_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of timm's class for these arrays."""
    shape = arguments["shape"]
    pool = {"token": "token", "gap": "avg", "map": "map", "none": ""}[arguments["head"]]
    options: dict[str, Any] = {
        "img_size": arguments["image_size"],
        "patch_size": shape.patch,
        "embed_dim": shape.width,
        "depth": shape.depth,
        "num_heads": shape.heads,
        "mlp_ratio": shape.mlp_width / shape.width,
        "num_classes": arguments.get("classes") or 0,
        "class_token": arguments["head"] == "token",
        "global_pool": pool,
        "fc_norm": bool(arguments.get("norm_after_pooling")),
        "act_layer": "gelu_tanh" if arguments.get("approximate_gelu", True) else "gelu",
    }
    epsilon = arguments.get("norm_epsilon", 1e-6)
    if epsilon != 1e-6:  # timm's own default.
        options["norm_layer"] = f"functools.partial(torch.nn.LayerNorm, eps={epsilon})"
    if arguments.get("register_tokens"):
        options["reg_tokens"] = arguments["register_tokens"]
        options["no_embed_class"] = arguments["head"] != "token"
    if arguments.get("layer_scale") is not None:
        options["init_values"] = arguments["layer_scale"]
    if arguments.get("qk_norm"):
        options["qk_norm"] = True
    return options


def _tidy(arrays: Arrays) -> Source:
    """Return the model's arrays without wrappers' prefixes."""
    source = Source("timm", dict(arrays))
    prefix = next(p for p in PREFIXES if p + PATCH in arrays)
    source.keep_only(prefix, f"not part of the image model ({prefix!r})")
    names = {"cls_token": "cls", "reg_token": "register"}
    source.rename(
        lambda name: names.get(name, re.sub(r"^attn_pool\.", "map/", name))
    )  # fmt: skip
    return source
