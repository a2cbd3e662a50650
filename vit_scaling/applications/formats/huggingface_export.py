"""Write weights as transformers' ViT or SigLIP, with the matching config.json."""
# SPDX-License-Identifier: Apache-2.0

from typing import Any

import numpy as np

from vit_scaling.applications.formats import name_table
from vit_scaling.applications.formats.huggingface import SIGLIP_TABLE, VIT_TABLE
from vit_scaling.applications.formats.vit_weights import ViTWeights
from vit_scaling.applications.formats.weights_format import ExportedWeights
from vit_scaling.modeling.positions import sincos

# Options of `vit` that transformers' ViT and SigLIP do not have.
UNSUPPORTED = (
    "layer_scale",
    "qk_norm",
    "register_tokens",
    "norm_before_blocks",
    "norm_after_pooling",
    "representation_width",
)


def is_supported(weights: ViTWeights) -> bool:
    """Whether a class of transformers computes the model's output.

    SigLIP's classifier reads the average of tokens, so a MAP head has none there.
    """
    arguments = weights.arguments
    return arguments["head"] != "map" or not arguments.get("classes")


def write_huggingface(weights: ViTWeights) -> ExportedWeights:
    """Convert weights: a token head to ViT, a MAP head or an average to SigLIP.

    Returns:
        The arrays; `arguments` is the content of config.json.

    Raises:
        ValueError: The model has a part that transformers' classes lack.
    """
    arguments, shape = weights.arguments, weights.shape
    given = [f"{name}={arguments[name]!r}" for name in UNSUPPORTED if arguments[name]]
    if given:
        raise ValueError(
            f"transformers' ViT and SigLIP have no {', '.join(given)}. Write timm's "
            "folder instead (--format=timm), which transformers loads too."
        )
    variables = dict(weights.variables)
    if arguments.get("position") == "sincos":
        grid = shape.grid(arguments["image_size"])
        variables["position_embedding/embedding"] = sincos(grid, shape.width)
    is_vit = arguments["head"] == "token"
    rows = name_table.rows_for_depth(VIT_TABLE if is_vit else SIGLIP_TABLE, shape.depth)
    arrays, _ = name_table.convert_to_source(rows, variables, shape.heads)
    if is_vit:  # The class token has a position there; here it is part of the token.
        name = "embeddings.position_embeddings"
        no_position = np.zeros((1, 1, shape.width), np.float32)
        arrays[name] = np.concatenate([no_position, arrays[name]], axis=1)
    prefix = "vit." if is_vit else "vision_model."
    arrays = {
        name if name.startswith("classifier.") else prefix + name: array
        for name, array in arrays.items()
    }
    config = _vit_config(weights) if is_vit else _siglip_config(weights)
    loader = config["architectures"][0]
    if loader.endswith("ForImageClassification"):
        loader = "AutoModelForImageClassification"
    load_with = f"model = transformers.{loader}.from_pretrained('{{folder}}')"
    return ExportedWeights(arrays, load_with, config)


def _vit_config(weights: ViTWeights) -> dict[str, Any]:
    classes = weights.arguments.get("classes")
    return {
        "architectures": ["ViTForImageClassification" if classes else "ViTModel"],
        "model_type": "vit",
        **_sizes(weights),
        **_labels(weights),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "qkv_bias": True,
    }


def _siglip_config(weights: ViTWeights) -> dict[str, Any]:
    vision = {
        "model_type": "siglip_vision_model",
        **_sizes(weights),
        "attention_dropout": 0.0,
        "vision_use_head": weights.arguments["head"] == "map",
    }
    if not weights.arguments.get("classes"):
        return {"architectures": ["SiglipVisionModel"], **vision}
    return {
        "architectures": ["SiglipForImageClassification"],
        "model_type": "siglip",
        "vision_config": vision,
        **_labels(weights),
    }


def _sizes(weights: ViTWeights) -> dict[str, Any]:
    arguments, shape = weights.arguments, weights.shape
    size = arguments["image_size"]
    is_square = isinstance(size, int) or size[0] == size[1]
    return {
        "hidden_size": shape.width,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.mlp_width,
        "patch_size": shape.patch,
        "image_size": np.max(size).item() if is_square else list(size),
        "num_channels": 3,
        "hidden_act": "gelu_pytorch_tanh" if arguments["approximate_gelu"] else "gelu",
        "layer_norm_eps": arguments["norm_epsilon"],
    }


def _labels(weights: ViTWeights) -> dict[str, Any]:
    """Return the class names, or transformers' LABEL_0, … where there are none."""
    classes = weights.arguments.get("classes") or 0
    names = weights.record.class_names if weights.record else ()
    names = names or tuple(f"LABEL_{number}" for number in range(classes))
    if not classes:
        return {}
    return {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }
