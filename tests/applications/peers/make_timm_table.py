"""Write what timm's registry says of every plain ViT, for the reader of its weights.

Run by an interpreter that has torch and timm: `python make_timm_table.py OUTPUT.csv`.
The committed table is `vit_scaling/applications/formats/timm_models.csv`.
"""
# SPDX-License-Identifier: Apache-2.0

import csv
import sys

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:  # Built for another torch, it lacks what it registers for.
    operators = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        operators.define(f"{operator}(Tensor a, Tensor b, float c) -> Tensor")

import timm
from timm.models._registry import _model_to_module
from timm.models.vision_transformer import VisionTransformer

COLUMNS = ("architecture", "heads", "gelu", "epsilon", "pool", "differs")
# Other modules with ViTs -> what their blocks have in place of a plain ViT's.
OTHER_MODULES = {
    "beit": "relative position biases (BEiT)",
    "eva": "rotary positions (RoPE) or SwiGLU (EVA)",
    "naflexvit": "patches of any aspect ratio (NaFlex)",
    "vision_transformer_hybrid": "a convolutional network before the blocks",
    "vision_transformer_relpos": "relative positions",
    "vision_transformer_sam": "windows and relative positions (SAM)",
    "vitamin": "convolutional stages before the blocks (ViTamin)",
}
GELU = {"none": "gelu", "tanh": "gelu_tanh"}


def differences(model: VisionTransformer) -> list[str]:
    """Return the parts in which the model differs from a plain ViT."""
    block = model.blocks[0]
    parts = []
    if type(model) is not VisionTransformer:
        parts.append(f"two averaged classifiers ({type(model).__name__})")
    if type(block).__name__ != "Block":
        parts.append(f"another block ({type(block).__name__})")
        return parts
    kinds = {type(norm).__name__ for norm in (block.norm1, model.norm, model.fc_norm)}
    if kinds - {"LayerNorm", "Identity"}:
        parts.append("RMSNorm")
    mlp = type(block.mlp).__name__
    if mlp != "Mlp":
        parts.append("SwiGLU" if "Glu" in mlp or "GLU" in mlp else mlp)
    if model.pool_include_prefix:
        parts.append("registers that are pooled too (pool_include_prefix)")
    return parts


def activation(model: VisionTransformer) -> str:
    """Return the name of the MLP's function: gelu, gelu_tanh or quick_gelu."""
    found = getattr(getattr(model.blocks[0], "mlp", None), "act", None)
    names = {"GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}
    if type(found).__name__ in names:
        return names[type(found).__name__]
    return GELU[found.approximate] if isinstance(found, torch.nn.GELU) else ""


def row_of(name: str) -> list[object]:
    """Return an architecture's row."""
    module = _model_to_module[name]
    if module in OTHER_MODULES:
        return [name, "", "", "", "", OTHER_MODULES[module]]
    with torch.device("meta"):
        model = timm.create_model(name)
    block = model.blocks[0]
    return [
        name,
        block.attn.num_heads if hasattr(block, "attn") else "",
        activation(model),
        getattr(getattr(block, "norm1", None), "eps", ""),
        model.global_pool,
        "; ".join(differences(model)),
    ]


if __name__ == "__main__":
    modules = {"vision_transformer", "deit", *OTHER_MODULES}
    names = sorted(n for n in timm.list_models() if _model_to_module[n] in modules)
    with open(sys.argv[1], "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(row_of(name) for name in names)
