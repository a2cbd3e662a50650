"""Folders as other projects save them, with a preprocessing and class names."""
# SPDX-License-Identifier: Apache-2.0

import json
import pathlib
import shutil

import numpy as np

from tests.applications.cases import NAMED

CLASS_NAMES = ("ant", "bee", "cat")
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
LOW, HIGH = -np.divide(MEAN, STD), np.divide(np.subtract(1, MEAN), STD)
VALUE_RANGE = (tuple(LOW.tolist()), tuple(HIGH.tolist()))
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 4, "width": 4},
    "resample": 3,
    "image_mean": MEAN,
    "image_std": STD,
}


def write_transformers_folder(path: pathlib.Path) -> pathlib.Path:
    """Write a ViT for 4x4 pixels with a classifier; return its folder."""
    shutil.copytree(NAMED["hf_vit"].path.removesuffix("/model.safetensors"), path)
    config = json.loads((path / "config.json").read_text())
    config["id2label"] = {str(n): name for n, name in enumerate(CLASS_NAMES)}
    (path / "config.json").write_text(json.dumps(config))
    (path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return path
