"""Load a file that this package exported into the peer's own model; write its outputs.

`python answer.py timm|big_vision FILE ARGUMENTS_JSON IMAGES.npy OUTPUT.npy`, run by the
peer's interpreter; the arguments are those of big_vision's model class, or for timm the
Python that `export_weights` says to load the file with.
"""
# SPDX-License-Identifier: Apache-2.0

import json
import sys

import numpy as np


def timm(file: str, load_with: str, images: np.ndarray) -> np.ndarray:
    import functools

    import torch

    operators = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):  # A torchvision built for another torch.
        operators.define(f"{operator}(Tensor a, Tensor b, float c) -> Tensor")
    import safetensors.torch
    import timm.models.vision_transformer

    names = {
        "functools": functools,
        "safetensors": safetensors,
        "timm": timm,
        "torch": torch,
    }
    exec(load_with, names)  # Of our own making.
    model = names["model"].eval()
    with torch.no_grad():
        return model(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()


def big_vision(file: str, arguments: dict, images: np.ndarray) -> np.ndarray:
    import make_jax_fixtures as peer  # In the same folder; imports jax.

    model = peer.big_vision._Model(**arguments)
    initial = model.init(peer.jax.random.PRNGKey(0), images)["params"]
    params = peer.big_vision.load(initial, file, arguments)
    same = peer.jax.tree.map(lambda a, b: a.shape == b.shape, initial, params)
    if not all(peer.jax.tree.leaves(same)):  # Also fails where a name differs.
        raise SystemExit("big_vision's loader took other shapes than its model's")
    return np.asarray(model.apply({"params": params}, images)[0])


if __name__ == "__main__":
    project, file, arguments, images, output = sys.argv[1:]
    loaded = {"timm": timm, "big_vision": big_vision}[project]
    np.save(output, loaded(file, json.loads(arguments), np.load(images)))
