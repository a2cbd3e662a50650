"""Load folders that this package wrote by timm's or transformers' own loaders.

`python load_folder.py CASES.json IMAGES.npy OUTPUT.npz`, run by the peer's interpreter.
A case is {"loader": "timm", "AutoModelForImageClassification" or another class of
transformers, "folder"}; the images (batch, height, width, 3) are the model's input. Of
case c the output is called "c/output", its class names "c/names".
"""
# SPDX-License-Identifier: Apache-2.0

import json
import sys

import numpy as np
import torch

operators = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):  # A torchvision built for another torch lacks them.
    operators.define(f"{operator}(Tensor a, Tensor b, float c) -> Tensor")


def run_timm(folder: str, images: torch.Tensor) -> tuple[torch.Tensor, list]:
    import timm
    from timm.data import create_transform, resolve_model_data_config

    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    create_transform(**resolve_model_data_config(model))
    return model(images), list(model.pretrained_cfg.get("label_names") or [])


def run_transformers(
    loader: str, folder: str, images: torch.Tensor
) -> tuple[torch.Tensor, list]:
    import transformers

    model, report = getattr(transformers, loader).from_pretrained(
        folder, output_loading_info=True
    )
    wrong = {name: value for name, value in report.items() if value}
    if wrong:
        raise SystemExit(f"{folder}: {wrong}")
    transformers.AutoImageProcessor.from_pretrained(folder)
    outputs = model.eval()(images)
    if "ForImageClassification" not in loader:
        return outputs.pooler_output, []
    labels = model.config.id2label
    return outputs.logits, [labels[number] for number in sorted(labels)]


if __name__ == "__main__":
    with open(sys.argv[1]) as cases_file:
        cases = json.load(cases_file)
    shown = torch.from_numpy(np.load(sys.argv[2])).permute(0, 3, 1, 2)
    results = {}
    for number, case in enumerate(cases):
        loader, folder = case["loader"], case["folder"]
        with torch.no_grad():
            output, names = (
                run_timm(folder, shown)
                if loader == "timm"
                else run_transformers(loader, folder, shown)
            )
        results |= {f"{number}/output": output.numpy(), f"{number}/names": names}
    np.savez(sys.argv[3], **results)
