"""Vision Transformers with the interface of Keras Applications."""
# SPDX-License-Identifier: Apache-2.0

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vit_scaling.applications.imagenet import (
        decode_predictions,
        prepare_images,
        preprocess_input,
    )
    from vit_scaling.applications.vit import (
        ViTB8,
        ViTB14,
        ViTB16,
        ViTB28,
        ViTB32,
        ViTG14,
        ViTg14,
        ViTgopt16,
        ViTH14,
        ViTL14,
        ViTL16,
        ViTM16,
        ViTS14,
        ViTS16,
        ViTs16,
        ViTs28,
        ViTS32,
        ViTSo400m14,
        ViTSo400m16,
        ViTTi16,
    )

__all__ = [
    "ViTB8",
    "ViTB14",
    "ViTB16",
    "ViTB28",
    "ViTB32",
    "ViTG14",
    "ViTH14",
    "ViTL14",
    "ViTL16",
    "ViTM16",
    "ViTS14",
    "ViTS16",
    "ViTS32",
    "ViTSo400m14",
    "ViTSo400m16",
    "ViTTi16",
    "ViTg14",
    "ViTgopt16",
    "ViTs16",
    "ViTs28",
    "decode_predictions",
    "prepare_images",
    "preprocess_input",
]


def __getattr__(name: str) -> Any:
    """Import Keras with the first function: commands check their flags before."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "vit" if name.startswith("ViT") else "imagenet"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
