"""Weights with a preprocessing and class names, and folders as others save them."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json
import pathlib
import shutil

import numpy as np

from tests.applications.cases import NAMED, TINY
from vit_scaling.applications.formats.keras_models import weights_of_model
from vit_scaling.modeling.vit import vit
from vit_scaling.run_record import RunRecord

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
RECORD = RunRecord(
    CLASS_NAMES,
    (4, 4),
    value_range=((-2.0, -1.5, -1.0), (2.0, 2.5, 1.0)),
    preprocess="central_crop",
    resize=5,
    interpolation="bicubic",
)


def write_transformers_folder(path: pathlib.Path) -> pathlib.Path:
    """Write a ViT for 4x4 pixels with a classifier; return its folder."""
    shutil.copytree(NAMED["hf_vit"].path.removesuffix("/model.safetensors"), path)
    config = json.loads((path / "config.json").read_text())
    config["id2label"] = {str(n): name for n, name in enumerate(CLASS_NAMES)}
    (path / "config.json").write_text(json.dumps(config))
    (path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return path


def random_weights(**options):
    """Return random weights of a tiny ViT, with a record."""
    model = vit(TINY, **{"image_size": 4, "classes": 3, **options})
    random = np.random.default_rng(5)
    for variable in model.variables:
        gain = 1.0 if variable.path.endswith("gamma") else 0.0
        variable.assign(random.normal(size=variable.shape) * 0.3 + gain)
    names = CLASS_NAMES if options.get("classes", 3) else ()
    record = dataclasses.replace(RECORD, class_names=names)
    return dataclasses.replace(weights_of_model(model), record=record)
