"""Write weights and outputs of big_vision's and vision_transformer's own flax models.

Run by an interpreter that has jax and flax, with both repositories' sources (folders
big_vision/ and vit_jax/) on PYTHONPATH: `python make_jax_fixtures.py OUTPUT_FOLDER
[tiny|s16] [REGEX]`. Each case that matches is a folder with the .npz and `expected.npz`
(images, output).
"""
# SPDX-License-Identifier: Apache-2.0

import importlib
import os
import re
import sys
import types

import numpy as np


def without_tensorflow() -> None:
    """Stand-ins for what the models' modules import and never call here."""
    importlib.import_module("flax.io")  # Looks for a real TensorFlow: goes first.
    names = ("tensorflow", "tensorflow.io", "tensorflow.io.gfile")
    modules = {name: types.ModuleType(name) for name in names}
    modules["tensorflow"].io = modules["tensorflow.io"]
    modules["tensorflow.io"].gfile = modules["tensorflow.io.gfile"]
    sys.modules |= modules


without_tensorflow()
import jax  # noqa: E402

big_vision = importlib.import_module("big_vision.models.vit")
utils = importlib.import_module("big_vision.utils")
vit_jax = importlib.import_module("vit_jax.models_vit")

SIZES = {  # width, depth, mlp, heads, patch, image, classes
    "tiny": (8, 2, 12, 2, 2, 4, 3),
    "s16": (384, 12, 1536, 6, 16, 224, 1000),
}
# What released files of the old code call the parts of a block (before linen).
OLD_NAMES = {
    "MultiHeadDotProductAttention_0": "MultiHeadDotProductAttention_1",
    "LayerNorm_1": "LayerNorm_2",
    "MlpBlock_0": "MlpBlock_3",
}

ONLY = sys.argv[3] if len(sys.argv) > 3 else ".*"


def randomise(params: dict, seed: int, scale: float) -> dict:
    """Draw every weight at random, zero-initialised ones included; gains around 1."""
    generator = np.random.default_rng(seed)
    named, tree = utils.tree_flatten_with_names(params)
    drawn = [
        (generator.normal(size=value.shape) * scale + name.endswith("scale")).astype(
            np.float32
        )
        for name, value in named
    ]
    return tree.unflatten(drawn)


def images_of(size: int) -> np.ndarray:
    return np.random.default_rng(9).uniform(-1, 1, (2, size, size, 3)).astype("float32")


def write(folder: str, arrays: dict, images: np.ndarray, output: jax.Array) -> None:
    os.makedirs(folder, exist_ok=True)
    np.savez_compressed(os.path.join(folder, "model.npz"), **arrays)
    np.savez_compressed(
        os.path.join(folder, "expected.npz"), images=images, output=np.asarray(output)
    )


def flat(params: dict, prefix: str = "") -> dict:
    named, _ = utils.tree_flatten_with_names(params)
    return {prefix + name: np.asarray(value) for name, value in named}


def big_vision_cases(root: str, size: str) -> None:
    width, depth, mlp, heads, patch, image, classes = SIZES[size]
    images = images_of(image)
    cases = {
        "bv_token": (dict(pool_type="tok"), ""),
        "bv_gap": (dict(pool_type="gap"), "params/"),
        "bv_gap_sincos2d": (dict(pool_type="gap", posemb="sincos2d", rep_size=5), ""),
        "bv_map": (dict(pool_type="map"), "opt/target/"),
        "bv_map_tower": (dict(pool_type="map", num_classes=None), "params/img/"),
        "bv_map_scan": (dict(pool_type="map", scan=True), "params/"),
        "bv_map_inlined": (dict(pool_type="map"), ""),
        "bv_bfloat16": (dict(pool_type="map"), ""),
    }
    for seed, (name, (arguments, prefix)) in enumerate(cases.items()):
        if not re.fullmatch(ONLY, name):
            continue
        model = big_vision._Model(
            **dict(
                num_classes=classes, width=width, depth=depth, mlp_dim=mlp,
                num_heads=heads, patch_size=(patch, patch),
            ) | arguments
        )  # fmt: skip
        params = model.init(jax.random.PRNGKey(0), images)["params"]
        params = randomise(params, seed, 0.3 if size == "tiny" else 0.03)
        if name == "bv_bfloat16":
            params = jax.tree.map(
                lambda value: value.astype(jax.numpy.bfloat16), params
            )
        arrays = flat(params, prefix)
        if name == "bv_map_inlined":  # As in early runs: the head's parts on top.
            arrays = {key.replace("MAPHead_0/", ""): arrays[key] for key in arrays}
        if name == "bv_map_tower":
            arrays |= {"params/t": np.ones(1, "f4"), "params/b": np.ones(1, "f4")}
            arrays["params/txt/head/kernel"] = np.ones((2, 2), "f4")
        if name == "bv_map":
            arrays |= {"opt/state/step": np.array(7)}
            arrays["opt/state/param_states/head/bias/momentum"] = np.ones(3, "f4")
        params = jax.tree.map(lambda value: value.astype(np.float32), params)
        output, _ = model.apply({"params": params}, images)
        write(os.path.join(root, name), arrays, images, output)


def vision_transformer_cases(root: str, size: str) -> None:
    width, depth, mlp, heads, patch, image, classes = SIZES[size]
    images = images_of(image)
    rest = dict(dropout_rate=0.0, attention_dropout_rate=0.0)
    for seed, (name, hidden) in enumerate(
        {"augreg": None, "augreg_pre_logits": 5}.items()
    ):
        if not re.fullmatch(ONLY, name):
            continue
        model = vit_jax.VisionTransformer(
            num_classes=classes, patches=types.SimpleNamespace(size=(patch, patch)),
            transformer=dict(num_layers=depth, mlp_dim=mlp, num_heads=heads, **rest),
            hidden_size=width, representation_size=hidden, classifier="token",
        )  # fmt: skip
        params = model.init(jax.random.PRNGKey(0), images, train=False)["params"]
        params = randomise(params, seed + 20, 0.3 if size == "tiny" else 0.03)
        output = model.apply({"params": params}, images, train=False)
        arrays = flat(params)
        for new, old in OLD_NAMES.items():
            arrays = {key.replace(new, old): arrays[key] for key in arrays}
        write(os.path.join(root, name), arrays, images, output)


if __name__ == "__main__":
    chosen = sys.argv[2] if len(sys.argv) > 2 else "tiny"
    big_vision_cases(sys.argv[1], chosen)
    vision_transformer_cases(sys.argv[1], chosen)
