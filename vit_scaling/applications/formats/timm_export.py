"""The config.json by which timm's `create_model` loads a folder of weights."""
# SPDX-License-Identifier: Apache-2.0

from typing import Any

from vit_scaling.applications.formats.preprocessing_configs import timm_preprocessing
from vit_scaling.applications.formats.timm import write_timm
from vit_scaling.applications.formats.vit_weights import ViTWeights
from vit_scaling.applications.formats.weights_format import ExportedWeights
from vit_scaling.run_record import RunRecord

# Models of timm's registry by the epsilon of their norms, the one thing that no
# argument in a config.json can change. The arguments replace all their sizes.
ARCHITECTURES = {1e-6: "vit_base_patch16_224", 1e-5: "beit3_base_patch16_224"}
OPTIONS = {1e-5: {"scale_attn_norm": False, "scale_mlp_norm": False}}


def write_timm_folder(weights: ViTWeights) -> ExportedWeights:
    """Convert weights to timm's arrays and the config.json that loads them.

    Returns:
        The arrays; `arguments` is the content of config.json.

    Raises:
        ValueError: timm's ViT lacks a part of the model, or the epsilon of its norms.
    """
    epsilon = weights.arguments["norm_epsilon"]
    if epsilon not in ARCHITECTURES:
        raise ValueError(
            f"A folder of timm has norms with an epsilon of 1e-6 or 1e-5; the model's "
            f"is {epsilon:g}. Set --norm_epsilon=1e-6 to write it nevertheless (the "
            "outputs change slightly), or write a .safetensors file."
        )
    exported = write_timm(weights)
    arguments = dict(exported.arguments or {})
    for name in ("num_classes", "norm_layer"):
        arguments.pop(name, None)
    record = weights.record or RunRecord((), _size(weights))
    classes = weights.arguments.get("classes") or 0
    config: dict[str, Any] = {
        "architecture": ARCHITECTURES[epsilon],
        "num_classes": classes,
        "num_features": weights.shape.width,
        "global_pool": arguments["global_pool"],
        "model_args": arguments | OPTIONS.get(epsilon, {}),
        "pretrained_cfg": {
            "tag": "vit_scaling",
            "custom_load": False,
            "input_size": [3, *record.image_size],
            "fixed_input_size": True,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "num_classes": classes,
            **timm_preprocessing(record),
        },
    }
    if record.class_names:
        config["label_names"] = list(record.class_names)
    load_with = "model = timm.create_model('local-dir:{folder}', pretrained=True)"
    return ExportedWeights(exported.arrays, load_with, config)


def _size(weights: ViTWeights) -> tuple[int, int]:
    size = weights.arguments["image_size"]
    return (size, size) if isinstance(size, int) else tuple(size)
