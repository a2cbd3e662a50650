"""One run of the parity study with big_vision's own model, loss and optimizer.

PYTHON -m vit_scaling.commands.benchmarks.parity_peer SETTINGS_JSON, run by a Python
that has jax, flax and optax, with big_vision's sources and this package on PYTHONPATH.
The step is that of `big_vision/train.py`. TensorFlow, which its utilities import for
files alone, is not needed.
"""
# SPDX-License-Identifier: Apache-2.0

import importlib
import json
import os
import pathlib
import pickle
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from vit_scaling.commands.benchmarks import parity_data


def train(settings: parity_data.Settings) -> list[float]:
    """Train, or continue; return the test images' top-1 accuracy after each epoch."""
    import jax

    initial, update, classify = make_functions(settings)
    path = pathlib.Path(settings.folder) / "state.pickle"
    top1: list[float] = []
    if path.exists():
        state, top1 = pickle.loads(path.read_bytes())
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        state = initial()
    for epoch in range(len(top1), settings.epochs):
        for step in range(settings.epoch_steps):
            step += epoch * settings.epoch_steps
            images, labels = parity_data.train_batch(settings, step)
            state = update(state, images, labels)
        top1.append(_accuracy(classify, state, settings.data))
        print(f"epoch {epoch + 1}: top-1 {top1[-1]:.4f}", file=sys.stderr, flush=True)
        new = path.with_suffix(".new")
        new.write_bytes(pickle.dumps((jax.device_get(state), top1)))
        os.replace(new, path)
    return top1


def make_functions(
    settings: parity_data.Settings,
) -> tuple[Callable[[], Any], Callable[..., Any], Callable[..., Any]]:
    """Return the initial state, a step, and the predicted classes, as functions.

    A state is the weights and the optimizer's state.
    """
    import jax
    import ml_collections
    import optax

    models, optimizers, utils = _import_big_vision()
    model = models.Model(
        settings.classes,
        patch_size=(settings.patch, settings.patch),
        width=settings.width,
        depth=settings.depth,
        mlp_dim=4 * settings.width,
        num_heads=settings.heads,
        pool_type="map",
    )
    config = ml_collections.ConfigDict(_optimizer_config(settings))
    side = parity_data.IMAGE_SIZE
    blank = np.zeros((1, side, side, 3), np.float32)
    initialize = jax.jit(lambda key: model.init(key, blank)["params"])
    shapes = jax.eval_shape(initialize, jax.random.PRNGKey(0))
    total = settings.steps(settings.epochs)
    transform, _ = optimizers.make(config, shapes, sched_kw={"total_steps": total})

    def pixels(images: Any) -> Any:
        return images.astype("float32") / 127.5 - 1.0

    def initial() -> Any:
        weights = initialize(jax.random.PRNGKey(settings.seed))
        return weights, transform.init(weights)

    def loss(weights: Any, images: Any, labels: Any) -> Any:
        logits, _ = model.apply({"params": weights}, pixels(images), train=True)
        targets = jax.nn.one_hot(labels, settings.classes)
        return utils.sigmoid_xent(logits=logits, labels=targets)

    def update(state: Any, images: Any, labels: Any) -> Any:
        weights, optimizer = state
        gradients = jax.grad(loss)(weights, images, labels)
        updates, optimizer = transform.update(gradients, optimizer, weights)
        return optax.apply_updates(weights, updates), optimizer

    def classify(state: Any, images: Any) -> Any:
        logits, _ = model.apply({"params": state[0]}, pixels(images))
        return logits.argmax(-1)

    return initial, jax.jit(update, donate_argnums=0), jax.jit(classify)


def _optimizer_config(settings: parity_data.Settings) -> dict[str, Any]:
    """Return the keys of `configs/proj/scaling_laws/train_vit_g.py`."""
    return {
        "optax_name": "big_vision.scale_by_adafactor",
        "optax": {"dtype_momentum": settings.momentum_dtype},
        "grad_clip_norm": settings.clip_norm,
        "lr": settings.learning_rate,
        "wd": settings.body_decay * settings.learning_rate,
        "wd_mults": [
            (".*head/kernel", settings.head_decay / settings.body_decay),
            (".*/kernel", 1.0),
        ],
        "schedule": {
            "decay_type": "rsqrt",
            "warmup_steps": settings.steps(settings.warmup_epochs),
            "timescale": settings.steps(settings.timescale_epochs),
            "cooldown_steps": settings.steps(settings.cooldown_epochs),
        },
    }


def _accuracy(
    classify: Callable[..., Any], state: Any, data: parity_data.Images
) -> float:
    parts = np.array_split(data.test_images, max(1, len(data.test_images) // 1000))
    predicted = np.concatenate([classify(state, part) for part in parts])
    return float(np.mean(predicted == data.test_labels))


def _import_big_vision() -> tuple[Any, Any, Any]:
    """Return the modules of models, optimizers and utilities.

    The utilities import `tensorflow.io.gfile`, which nothing here calls: empty modules
    stand in for it. flax is imported before, since it looks whether TensorFlow exists.
    """
    importlib.import_module("flax.training.checkpoints")
    for name in ("tensorflow", "tensorflow.io", "tensorflow.io.gfile"):
        module = sys.modules.setdefault(name, types.ModuleType(name))
        parent, _, attribute = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], attribute, module)
    names = ("models.vit", "optax", "utils")
    models, optimizers, utils = (
        importlib.import_module(f"big_vision.{name}") for name in names
    )
    return models, optimizers, utils


if __name__ == "__main__":
    SETTINGS = parity_data.Settings(**json.loads(sys.argv[1]))
    SETTINGS.save_result(train(SETTINGS))
