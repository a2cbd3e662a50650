"""Scale Vision Transformers (Zhai et al., CVPR 2022); imports no TensorFlow."""
# SPDX-License-Identifier: Apache-2.0

import importlib
import os
import platform
from typing import Any

__version__ = "0.1.0"

# TensorFlow reads this variable when it is imported. Its own default leaves oneDNN's
# kernels off on x86 processors without AVX-512 VNNI, where they are faster as well
# (docs/results/onednn.json).
if platform.machine() in ("x86_64", "AMD64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# Module -> the classes that it registers with Keras.
_KERAS_CLASSES: dict[str, tuple[str, ...]] = {
    "applications.backbones": ("ScaleImages",),
    "modeling.attention": ("Attention",),
    "modeling.blocks": ("EncoderBlock",),
    "modeling.heads": ("TokenHead", "GapHead", "MapHead"),
    "modeling.layers": (
        "PatchEmbedding",
        "Projection",
        "Mlp",
        "LayerScale",
        "LayerNorm",
    ),
    "modeling.noise": ("MaskSeed", "Dropout"),
    "modeling.positions": ("LearnedPositions", "SinCosPositions"),
    "modeling.tokens": ("ClassToken", "RegisterTokens", "DropRegisters"),
    "optimization.averaging": ("AverageDecay",),
    "optimization.learning_rate_schedules": (
        "ReciprocalSqrt",
        "Constant",
        "Trapezoid",
        "Linear",
        "Cosine",
    ),
    "optimization.loss_scale": ("LossScale",),
    "optimization.optimizer": ("Optimizer",),  # Registers the update rules as well.
    "optimization.weight_decay": ("HalfL2",),
}


def _register_lazily() -> None:
    """Register every class as soon as Keras is imported; imports nothing heavy."""
    try:
        import wrapt  # TensorFlow requires it.
    except ImportError:
        return  # Without TensorFlow there is no Keras to register with.
    wrapt.register_post_import_hook(_register, "keras")


def _register(keras: Any) -> None:
    registered = keras.saving.get_custom_objects()
    for module, names in _KERAS_CLASSES.items():
        for name in names:
            registered.setdefault(f"vit_scaling>{name}", _stand_in(module, name))


def _stand_in(module: str, name: str) -> type:
    """Return a class whose `from_config` is that of the class, imported when called."""

    def from_config(cls: type, config: dict[str, Any]) -> Any:
        imported = importlib.import_module(f"vit_scaling.{module}")
        return getattr(imported, name).from_config(config)

    return type(name, (), {"from_config": classmethod(from_config)})


_register_lazily()


def load_run(model_dir: Any) -> Any:
    """Return a training run as a `trained_run.TrainedRun`: model, predictions, metrics.

    Args:
        model_dir: Folder of the run.

    Example:
        >>> run = vit_scaling.load_run("RUN")  # doctest: +SKIP
        >>> run.predict(["cat.jpg"])  # doctest: +SKIP
    """
    from vit_scaling.trained_run import TrainedRun  # Imports TensorFlow.

    return TrainedRun(model_dir)


def load(source: str, **options: Any) -> Any:
    """Return a Keras model with published or own weights.

    Args:
        source: A name in `list_weights()`, "hf://OWNER/NAME@REVISION", "augreg:NAME",
            a file, a folder that transformers or timm saved, or a run; see
            `applications.addresses.local_path`.
        **options: `image_size`, `dtype` and others of
            `applications.weights.load_model`.

    Example:
        >>> model = vit_scaling.load("dinov2-s14", image_size=224)  # doctest: +SKIP
    """
    from vit_scaling.applications.weights import load_model  # Imports TensorFlow.

    return load_model(source, **options)


def list_weights(pattern: str = "*") -> list[Any]:
    """Return the published weights whose name matches a shell pattern, as records.

    Args:
        pattern: Such as "*b16*", in any case; see `applications.published`.

    Example:
        >>> [weights.name for weights in list_weights("mae-*")]
        ['mae-b16', 'mae-l16', 'mae-h14']
    """
    from vit_scaling.applications import published

    return published.list_weights(pattern)
