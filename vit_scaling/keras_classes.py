"""Let Keras find this package's classes in saved models without importing them all."""
# SPDX-License-Identifier: Apache-2.0

import importlib
from typing import Any

# Module -> the classes that it registers with Keras.
CLASSES: dict[str, tuple[str, ...]] = {
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
    "optimization.optimizer": ("Optimizer",),  # Registers the update rules as well.
    "optimization.weight_decay": ("HalfL2",),
}


def register_lazily() -> None:
    """Register every class as soon as Keras is imported; imports nothing heavy."""
    try:
        import wrapt  # TensorFlow requires it.
    except ImportError:
        return  # Without TensorFlow there is no Keras to register with.
    wrapt.register_post_import_hook(_register, "keras")


def _register(keras: Any) -> None:
    registered = keras.saving.get_custom_objects()
    for module, names in CLASSES.items():
        for name in names:
            registered.setdefault(f"vit_scaling>{name}", _stand_in(module, name))


def _stand_in(module: str, name: str) -> type:
    """Return a class whose `from_config` is that of the class, imported when called."""

    def from_config(cls: type, config: dict[str, Any]) -> Any:
        imported = importlib.import_module(f"vit_scaling.{module}")
        return getattr(imported, name).from_config(config)

    return type(name, (), {"from_config": classmethod(from_config)})
