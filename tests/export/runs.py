"""Small training runs on disk, as the training loop leaves them, for the tests here."""
# SPDX-License-Identifier: Apache-2.0

import io
import json
import pathlib

import keras
import numpy as np
import PIL.Image
import tensorflow as tf

from vit_scaling.modeling.vit import vit
from vit_scaling.training import checkpoints

CLASS_NAMES = ("ant", "bee", "cat", "dog")
IMAGE_SIZE = (32, 48)
STEP = 7


def small_model(dtype: str = "float32", **options) -> keras.Model:
    """Return a small ViT with random weights everywhere, biases and head included."""
    model = vit(
        "mu/16",
        options.pop("head", "map"),
        image_size=options.pop("image_size", IMAGE_SIZE),
        classes=options.pop("classes", len(CLASS_NAMES)),
        dtype=dtype,
        seed=options.pop("seed", 0),
        **options,
    )
    generator = np.random.default_rng(1)
    for variable in model.trainable_variables:
        value = variable.numpy()
        noise = generator.normal(scale=0.1, size=value.shape)
        variable.assign(value + noise.astype(value.dtype))
    return model


def write_run(
    model_dir: pathlib.Path,
    model: keras.Model,
    *,
    averages: dict[str, np.ndarray] | None = None,
    **record,
) -> None:
    """Write model.json, run.json and one checkpoint of `model`, perhaps averages."""
    model_dir.mkdir(parents=True, exist_ok=True)
    (model_dir / "model.json").write_text(model.to_json())
    fields = {
        "class_names": list(CLASS_NAMES),
        "image_size": list(IMAGE_SIZE),
        "step": STEP,
        "value_range": [-1, 1],
        "loss": "sigmoid_cross_entropy",
    }
    (model_dir / "run.json").write_text(json.dumps({**fields, **record}))
    saver = checkpoints.Checkpoints(model_dir, asynchronous=False)
    values = {f"model/{v.path}": v.value.read_value() for v in model.variables}
    averaged = {
        f"averages/{path}": tf.constant(value)
        for path, value in (averages or {}).items()
    }
    saver.save(STEP, values | averaged, {})


def image_file(height: int, width: int, *, seed: int = 0, format: str = "PNG") -> bytes:
    """Return the bytes of an image file of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    # Without chroma subsampling decoders agree to a level or two.
    options = {"quality": 95, "subsampling": 0} if format == "JPEG" else {}
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, format=format, **options)
    return buffer.getvalue()
