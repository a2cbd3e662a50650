"""Write weights and outputs of timm's and Hugging Face's own ViTs, for the importers.

Run by an interpreter that has torch, timm and transformers, not by the tests' own:
`python make_torch_fixtures.py OUTPUT_FOLDER [tiny|s16] [REGEX]`. Each case that matches
is a folder with the peer's file (written by its own code) and `expected.npz` (images,
output).
"""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import re
import sys

import numpy as np
import torch
from safetensors.torch import save_file

try:
    import torchvision  # noqa: F401
except RuntimeError:  # Built for another torch, it lacks what it registers for.
    operators = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        operators.define(f"{operator}(Tensor a, Tensor b, float c) -> Tensor")

from timm.models.vision_transformer import VisionTransformer
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    DeiTConfig,
    DeiTForImageClassification,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    SiglipConfig,
    SiglipForImageClassification,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

SIZES = {  # width, depth, mlp, heads, patch, image, classes
    "tiny": (8, 2, 12, 2, 2, 4, 3),
    "s16": (384, 12, 1536, 6, 16, 224, 1000),
}

ONLY = sys.argv[3] if len(sys.argv) > 3 else ".*"


def randomise(model: torch.nn.Module, seed: int, scale: float) -> None:
    """Draw every weight at random, also of norms and LayerScale, so none is trivial."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        draw = torch.randn(parameter.shape, generator=generator) * scale
        is_gain = ("norm" in name and name.endswith("weight")) or name.endswith("gamma")
        is_gain = is_gain or name.endswith("lambda1")
        parameter.data = draw + (1.0 if is_gain else 0.0)


def images_of(height: int, width: int | None = None) -> torch.Tensor:
    """Two images in [-1, 1], (batch, channels, height, width)."""
    sides = (height, width or height)
    return torch.rand(2, 3, *sides, generator=torch.Generator().manual_seed(9)) * 2 - 1


def record(folder: str, images: torch.Tensor, output: torch.Tensor) -> None:
    """Write what the peer was shown, as (batch, height, width, 3), and answered."""
    np.savez_compressed(
        os.path.join(folder, "expected.npz"),
        images=images.permute(0, 2, 3, 1).numpy(),
        output=output.detach().float().numpy(),
    )


def timm_cases(root: str, size: str) -> None:
    width, depth, mlp, heads, patch, image, classes = SIZES[size]
    common = dict(
        img_size=image, patch_size=patch, embed_dim=width, depth=depth,
        num_heads=heads, mlp_ratio=mlp / width, num_classes=classes,
    )  # fmt: skip
    gap = dict(class_token=False, global_pool="avg")
    cases = {
        "timm_token": dict(),
        "timm_gap": dict(**gap, fc_norm=False),
        "timm_gap_fc_norm": dict(**gap),
        "timm_map": dict(class_token=False, global_pool="map", act_layer="gelu_tanh"),
        "timm_map_no_classifier": dict(
            class_token=False, global_pool="map", act_layer="gelu_tanh", num_classes=0
        ),
        "timm_options": dict(init_values=1e-3, qk_norm=True, reg_tokens=3),
        "timm_registers_gap": dict(
            **gap, fc_norm=False, reg_tokens=3, no_embed_class=True, init_values=1e-3
        ),
        "timm_no_qkv_bias": dict(qkv_bias=False, no_embed_class=True),
        "timm_bfloat16": dict(),
    }
    for seed, (name, arguments) in enumerate(cases.items()):
        if not re.fullmatch(ONLY, name):
            continue
        folder = os.path.join(root, name)
        os.makedirs(folder, exist_ok=True)
        model = VisionTransformer(**{**common, **arguments}).eval()
        randomise(model, seed, 0.3 if size == "tiny" else 0.03)
        if name == "timm_bfloat16":
            model = model.bfloat16()
        state = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(state, os.path.join(folder, "model.safetensors"), {"format": "pt"})
        images = images_of(image)
        with torch.no_grad():
            record(folder, images, model.float()(images))


def huggingface_cases(root: str, size: str) -> None:
    width, depth, mlp, heads, patch, image, classes = SIZES[size]
    shape = dict(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads,
        intermediate_size=mlp, image_size=image, patch_size=patch,
    )  # fmt: skip
    text = {
        **shape,
        "vocab_size": 4,
        "max_position_embeddings": 3,
        "hidden_size": width,
    }
    text = {key: text[key] for key in text if key not in ("image_size", "patch_size")}
    text |= dict(bos_token_id=0, eos_token_id=1, pad_token_id=1)
    towers = SiglipConfig(vision_config=shape, text_config=text)
    named = SiglipConfig(vision_config=shape, text_config=text, num_labels=classes)
    dinov2 = {**shape, "mlp_ratio": round(mlp / width)}
    del dinov2["intermediate_size"]
    oblong = (image // 2, image * 2)
    vit, siglip = ViTConfig(**shape, num_labels=classes), SiglipVisionConfig(**shape)
    clip = {**shape, "hidden_act": "gelu"}  # LAION's; OpenAI's is quick_gelu.
    cases = {
        "hf_vit": (ViTForImageClassification(vit), "logits"),
        "hf_vit_pooler": (ViTModel(vit), "pooler_output"),
        "hf_siglip_vision": (SiglipVisionModel(siglip), "pooler_output"),
        "hf_siglip_classifier": (SiglipForImageClassification(named), "logits"),
        "hf_siglip_towers": (SiglipModel(towers), "pooler_output"),
        "hf_dinov2": (Dinov2Model(Dinov2Config(**dinov2)), "pooler_output"),
        "hf_dinov2_registers": (
            Dinov2WithRegistersModel(
                Dinov2WithRegistersConfig(**dinov2, num_register_tokens=4)
            ),
            "pooler_output",
        ),
        "hf_deit": (
            DeiTForImageClassification(DeiTConfig(**shape, num_labels=classes)),
            "logits",
        ),
        # The number of patches is a square number, but they do not form a square.
        "hf_not_square": (
            ViTForImageClassification(
                ViTConfig(**{**shape, "image_size": oblong}, num_labels=classes)
            ),
            "logits",
        ),
        "hf_clip_vision": (CLIPVisionModel(CLIPVisionConfig(**clip)), "pooler_output"),
        "hf_clip_towers": (
            CLIPModel(CLIPConfig(vision_config=clip, text_config=text)),
            "pooler_output",
        ),
    }
    for seed, (name, (model, field)) in enumerate(cases.items()):
        if not re.fullmatch(ONLY, name):
            continue
        folder = os.path.join(root, name)
        model = model.eval()
        randomise(model, seed + 50, 0.3 if size == "tiny" else 0.03)
        model.save_pretrained(folder)
        images = images_of(*(oblong if name == "hf_not_square" else (image,)))
        with torch.no_grad():
            tower = model.vision_model if name.endswith("_towers") else model
            record(folder, images, getattr(tower(pixel_values=images), field))
        with open(os.path.join(folder, "config.json")) as file:
            config = json.load(file)
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump(config, file, indent=1, sort_keys=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    chosen = sys.argv[2] if len(sys.argv) > 2 else "tiny"
    timm_cases(sys.argv[1], chosen)
    huggingface_cases(sys.argv[1], chosen)
