"""What tells of the arrays beside them: a publisher's config.json, our own notes."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json
import os
from typing import Any

from vit_scaling.applications.formats import own
from vit_scaling.applications.formats.source import Request

NOTES = "vit_scaling"  # Entry of a .safetensors file's metadata: `export_weights`.


def config_beside(path: str) -> dict[str, Any]:
    """Return the publisher's config.json in a file's folder, or {}.

    Raises:
        ValueError: There is one, but it is damaged.
    """
    beside = os.path.join(os.path.dirname(path), "config.json")
    if not os.path.isfile(beside):
        return {}
    try:
        with open(beside, encoding="utf-8") as file:
            config = json.load(file)
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError.
        raise ValueError(
            f"{beside!r} is no whole JSON file ({error}). Fetch it again, or move the "
            "weights away from it and say what it would: --heads, --gelu, "
            "--norm_epsilon."
        ) from error
    return config if isinstance(config, dict) else {}


def with_own_notes(request: Request, text: str) -> tuple[Request, dict[str, Any]]:
    """Fill in what our own .safetensors says of itself and the caller did not.

    Returns:
        The request, and what stands in the place of timm's config.json.
    """
    notes = own.arguments_from_text(text)
    known = {
        "head": notes["head"],
        "source_image_size": notes["image_size"],
        "approximate_gelu": notes["approximate_gelu"],
        "norm_epsilon": notes["norm_epsilon"],
    }
    told = {key: value for key, value in known.items() if getattr(request, key) is None}
    config = {
        "architecture": "vit_scaling",
        "model_args": {"num_heads": notes["shape"].heads},
    }
    return dataclasses.replace(request, **told), config
