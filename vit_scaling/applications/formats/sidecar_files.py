"""What describes a file's arrays: the publisher's config.json, or our own metadata."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from vit_scaling import io_files
from vit_scaling.applications.formats.native_npz import arguments_from_text
from vit_scaling.applications.formats.timm_config import OWN_ARCHITECTURE
from vit_scaling.applications.formats.vit_weights import ReadOptions

# Entry of a .safetensors file's metadata, written by `export_weights`.
METADATA_KEY = "vit_scaling"


def read_config(path: str, name: str = "config.json") -> dict[str, Any]:
    """Return the publisher's config.json in a folder, or next to a file; {} without.

    Args:
        path: The folder, or a file in it.
        name: Name of the configuration's file.

    Raises:
        ValueError: The file is damaged.
    """
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    config_path = os.path.join(folder, name)
    if not os.path.isfile(config_path):
        return {}
    try:
        config = io_files.read_json(config_path)
    except ValueError as error:
        raise ValueError(
            f"{config_path!r} is damaged ({error}). Fetch it again, or move the "
            "weights to another folder and pass what it would define: --heads, --gelu, "
            "--norm_epsilon."
        ) from error
    return config if isinstance(config, dict) else {}


def find_configuration(
    path: str | None, metadata: Mapping[str, str], options: ReadOptions
) -> tuple[ReadOptions, dict[str, Any]]:
    """Return the completed options and the configuration of a file of weights.

    Args:
        path: The file or folder, next to which a publisher puts a config.json; None
            for files of which there is none.
        metadata: The file's metadata, which take precedence.
        options: The caller's options.

    Raises:
        ValueError: The config.json is damaged.
    """
    if METADATA_KEY in metadata:
        return apply_metadata(options, metadata[METADATA_KEY])
    return options, {} if path is None else read_config(path)


def apply_metadata(
    options: ReadOptions, text: str
) -> tuple[ReadOptions, dict[str, Any]]:
    """Complete the caller's options from the metadata of our own .safetensors.

    Returns:
        The options, and a configuration in place of timm's config.json.
    """
    arguments = arguments_from_text(text)
    arguments["source_image_size"] = arguments["image_size"]
    names = ("head", "source_image_size", "approximate_gelu", "norm_epsilon")
    open_options = {n: arguments[n] for n in names if getattr(options, n) is None}
    config = {
        "architecture": OWN_ARCHITECTURE,
        "model_args": {"num_heads": arguments["shape"].heads},
    }
    return dataclasses.replace(options, **open_options), config
