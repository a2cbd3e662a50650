"""Write names, shapes and outputs of one-block models of every published architecture.

`python make_published_fixtures.py torch|jax OUTPUT.json KEY…`, run by an interpreter
with torch and timm, or with jax, flax and the sources of big_vision and
vision_transformer. A key is an architecture of timm or FORM:SHAPE:PIXELS. The values
are drawn by `draw`, so the file needs to hold no weights.
"""
# SPDX-License-Identifier: Apache-2.0

import json
import sys
import tempfile
import types
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

OUTPUTS = 32  # Of each model; the rest comes out of the same features.


def draw(shapes: Mapping[str, Sequence[int]], seed: str) -> dict[str, np.ndarray]:
    """Return values for all arrays, in NumPy's frozen stream: norms' gains around 1."""
    generator = np.random.RandomState(zlib.crc32(seed.encode()))
    arrays = {}
    for name in sorted(shapes):
        values = generator.uniform(-0.06, 0.06, shapes[name])
        gain = name.endswith(("scale", "gamma")) or (
            "norm" in name and "weight" in name
        )
        arrays[name] = (values + gain).astype(np.float32)
    return arrays


def draw_images(size: int) -> np.ndarray:
    """Return one image in [-1, 1], (1, size, size, 3)."""
    generator = np.random.RandomState(9)
    return generator.uniform(-1, 1, (1, size, size, 3)).astype(np.float32)


def timm_model(key: str) -> dict[str, Any]:
    """Return the fixture of one of timm's architectures."""
    import torch

    operators = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):  # A torchvision built for another torch.
        operators.define(f"{operator}(Tensor a, Tensor b, float c) -> Tensor")
    import timm
    from timm.models._hub import save_config_for_hf

    model = timm.create_model(key, depth=1).eval()
    state = model.state_dict()
    shapes = {name: list(value.shape) for name, value in state.items()}
    drawn = {k: torch.from_numpy(v) for k, v in draw(shapes, key).items()}
    model.load_state_dict(drawn)
    images = draw_images(model.pretrained_cfg["input_size"][-1])
    with torch.no_grad():
        output = model(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.json")
        save_config_for_hf(model, path, model_args={"depth": 1})
        config = json.loads(path.read_text(encoding="utf-8"))
    return {"arrays": shapes, "config": config} | outputs(images, output)


def jax_model(key: str) -> dict[str, Any]:
    """Return the fixture of vision_transformer's or big_vision's model of a shape."""
    import make_jax_fixtures as peer  # In the same folder; imports jax.

    form, shape, size = key.split(":")
    variant, _, patch = shape.partition("/")
    images = draw_images(int(size))
    sizes = peer.big_vision.decode_variant(variant)
    sizes = {k: v for k, v in sizes.items() if k != "depth"}
    if form == "augreg":
        names = {"num_heads": sizes["num_heads"], "mlp_dim": sizes["mlp_dim"]}
        model = peer.vit_jax.VisionTransformer(
            num_classes=1000, patches=types.SimpleNamespace(size=(int(patch),) * 2),
            transformer=dict(num_layers=1, dropout_rate=0.0, attention_dropout_rate=0.0)
            | names, hidden_size=sizes["width"], classifier="token",
        )  # fmt: skip
        arguments, prefix = {"train": False}, ""
    else:
        options = {
            "siglip": dict(pool_type="map", num_classes=None),
            "bigvision": dict(pool_type="gap", posemb="sincos2d", num_classes=1000),
        }[form]
        model = peer.big_vision._Model(
            **sizes, **options, depth=1, patch_size=(int(patch),) * 2
        )
        arguments, prefix = {}, "params/img/" if form == "siglip" else ""

    def initialise(x):
        return model.init(peer.jax.random.PRNGKey(0), x, **arguments)["params"]

    params = peer.jax.eval_shape(initialise, images)
    named, tree = peer.utils.tree_flatten_with_names(params)
    shapes = {prefix + name: list(value.shape) for name, value in named}
    drawn = draw(shapes, key)
    params = tree.unflatten([drawn[prefix + name] for name, _ in named])
    output = model.apply({"params": params}, images, **arguments)
    output = output if form == "augreg" else output[0]
    return {"arrays": shapes} | outputs(images, output)


def outputs(images: np.ndarray, output: Any) -> dict[str, Any]:
    """Return the part of the fixture that the converted model must reproduce."""
    first = np.asarray(output, np.float64)[0, :OUTPUTS]
    width = int(output.shape[1])
    return {
        "pixels": images.shape[1],
        "width": width,
        "output": [float(f"{value:.7g}") for value in first],
    }


if __name__ == "__main__":
    peer_name, path, *keys = sys.argv[1:]
    make = {"torch": timm_model, "jax": jax_model}[peer_name]
    target = Path(path)
    fixtures = json.loads(target.read_text("utf-8")) if target.exists() else {}
    for key in keys:
        fixtures[key] = make(key)
    lines = [
        f"{json.dumps(key)}: {json.dumps(value)}" for key, value in fixtures.items()
    ]
    target.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
