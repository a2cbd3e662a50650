"""Prepare images by timm's or transformers' own code, for the preprocessing's tests.

`python preprocess.py CASES.json IMAGES.npz OUTPUT.npz`, run by the peer's interpreter.
A case is {"project": "timm" or "transformers", "config": its configuration}; the images
are uint8; the output of image i of case c, (height, width, 3), is called "c/i".
"""
# SPDX-License-Identifier: Apache-2.0

import json
import sys

import numpy as np
import torch
from PIL import Image

operators = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):  # A torchvision built for another torch lacks them.
    operators.define(f"{operator}(Tensor a, Tensor b, float c) -> Tensor")


def timm(config: dict, image: Image.Image) -> np.ndarray:
    from timm.data import create_transform, resolve_data_config

    transform = create_transform(**resolve_data_config(pretrained_cfg=config))
    return transform(image).permute(1, 2, 0).numpy()


def transformers(config: dict, image: Image.Image) -> np.ndarray:
    import tempfile

    from transformers import AutoImageProcessor

    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/preprocessor_config.json", "w") as file:
            json.dump(config, file)
        processor = AutoImageProcessor.from_pretrained(folder)
    pixels = processor(image, return_tensors="np")["pixel_values"]
    return np.asarray(pixels)[0].transpose(1, 2, 0)


if __name__ == "__main__":
    with open(sys.argv[1]) as cases_file:
        cases = json.load(cases_file)
    with np.load(sys.argv[2]) as images_file:
        images = [Image.fromarray(images_file[name]) for name in images_file.files]
    prepare = {"timm": timm, "transformers": transformers}
    outputs = {
        f"{number}/{place}": prepare[case["project"]](case["config"], image)
        for number, case in enumerate(cases)
        for place, image in enumerate(images)
    }
    np.savez(sys.argv[3], **outputs)
