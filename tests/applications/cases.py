"""The peers' fixtures: file, options to read it, and expected layout and head."""
# SPDX-License-Identifier: Apache-2.0

import os
from typing import NamedTuple

import numpy as np

from vit_scaling.applications.weights import read_weights
from vit_scaling.modeling.shapes import ViTShape

FOLDER = os.path.join(os.path.dirname(__file__), "fixtures")
# No named shape is as small, and fused kernels hide their heads: the options give them.
TINY = ViTShape(patch=2, width=8, depth=2, mlp_width=12, heads=2)


def stack_blocks(arrays):
    """Stack a big_vision file's blocks, as the authors' `scan=True` stores them."""
    prefix = "Transformer/encoderblock"
    blocks = [{}, {}]
    stacked = {}
    for name, array in arrays.items():
        if name.startswith(f"{prefix}_"):
            number, _, rest = name.removeprefix(f"{prefix}_").partition("/")
            blocks[int(number)][rest] = array
        else:
            stacked[name] = array
    for rest in blocks[0]:
        stacked[f"{prefix}/{rest}"] = np.stack([block[rest] for block in blocks])
    return stacked


class Case(NamedTuple):
    name: str
    layout: str
    head: str
    options: dict = {}  # noqa: RUF012

    @property
    def path(self):
        kind = "npz" if self.layout == "big_vision" else "safetensors"
        return os.path.join(FOLDER, self.name, f"model.{kind}")

    def read(self, **options):
        return read_weights(self.path, **{**self.options, **options})

    def expected(self):
        with np.load(os.path.join(FOLDER, self.name, "expected.npz")) as file:
            return file["images"], file["output"]


FUSED = {"heads": 2}
CASES = [
    Case("augreg", "big_vision", "token"),
    Case("augreg_pre_logits", "big_vision", "token"),
    Case("bv_token", "big_vision", "token"),
    Case("bv_gap", "big_vision", "gap"),
    Case("bv_gap_sincos2d", "big_vision", "gap", {"source_image_size": 4}),
    Case("bv_map", "big_vision", "map"),
    Case("bv_map_tower", "big_vision", "map"),
    Case("bv_map_scan", "big_vision", "map"),
    Case("bv_map_inlined", "big_vision", "map"),
    Case("bv_bfloat16", "big_vision", "map"),
    Case("timm_token", "timm", "token", FUSED),
    Case("timm_gap", "timm", "gap", FUSED),
    Case("timm_gap_fc_norm", "timm", "gap", FUSED),
    Case("timm_map", "timm", "map", FUSED),
    Case("timm_map_no_classifier", "timm", "map", FUSED),
    Case("timm_options", "timm", "token"),  # Query norms show the heads.
    # 3 registers and 4 patches: the 4 positions might also be 3 slots and 1 patch.
    Case("timm_registers_gap", "timm", "gap", {**FUSED, "source_image_size": 4}),
    Case("timm_no_qkv_bias", "timm", "token", FUSED),
    Case("timm_bfloat16", "timm", "token", FUSED),
    Case("hf_vit", "huggingface_vit", "token"),  # config.json has the heads.
    Case("hf_vit_pooler", "huggingface_vit", "token"),
    Case("hf_siglip_vision", "huggingface_siglip", "map"),
    Case("hf_siglip_classifier", "huggingface_siglip", "gap"),
    Case("hf_siglip_towers", "huggingface_siglip", "map"),
    Case("hf_dinov2", "huggingface_vit", "token"),
    Case("hf_dinov2_registers", "huggingface_vit", "token"),
    Case("hf_deit", "huggingface_vit", "token"),
    Case("hf_not_square", "huggingface_vit", "token"),
    Case("hf_clip_vision", "huggingface_clip", "token"),
    Case("hf_clip_towers", "huggingface_clip", "token"),
]
NAMED = {case.name: case for case in CASES}
