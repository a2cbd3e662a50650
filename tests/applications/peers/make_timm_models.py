"""Write a shallow model of every plain ViT in timm's registry, and its outputs.

Run by an interpreter that has torch and timm:
`python make_timm_models.py TABLE.csv OUTPUT_FOLDER [REGEX]`. Widths, heads, functions,
norms, pooling and image sizes are the registry's; one block stands for all.
"""
# SPDX-License-Identifier: Apache-2.0

import csv
import os
import re
import sys

import torch
from make_torch_fixtures import images_of, randomise, record

SHALLOW = {"depth": 1, "num_classes": 3}


def write_model(name: str, folder: str, seed: int) -> None:
    """Write one model as timm puts it on the hub, and its outputs."""
    import timm  # After make_torch_fixtures, which prepares torch for it.
    from timm.models._hub import save_for_hf

    model = timm.create_model(name, **SHALLOW).eval()
    randomise(model, seed, 0.03)
    save_for_hf(model, folder, model_args=SHALLOW, safe_serialization=True)
    images = images_of(*model.patch_embed.img_size)
    with torch.no_grad():
        record(folder, images, model(images))


if __name__ == "__main__":
    torch.set_num_threads(1)
    pattern = sys.argv[3] if len(sys.argv) > 3 else ".*"
    with open(sys.argv[1]) as file:
        plain = [r["architecture"] for r in csv.DictReader(file) if not r["differs"]]
    for seed, name in enumerate(plain):
        if re.fullmatch(pattern, name):
            write_model(name, os.path.join(sys.argv[2], name), seed)
