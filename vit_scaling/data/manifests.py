"""A split's manifest: its shards with their record counts, sizes and checksums."""
# SPDX-License-Identifier: Apache-2.0

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from vit_scaling.data.record_index import Shard
from vit_scaling.io_files import is_partial, read_json

FORMAT_VERSION = 1
MAX_LEFT_OUT_NAMED = 1000  # Images that were left out are all counted.
_SUFFIX = ".manifest.json"


def manifest_path(folder: str, split: str) -> str:
    """Return the path of a split's manifest."""
    return os.path.join(folder, f"{split}{_SUFFIX}")


def make_manifest(
    split: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    class_counts: Mapping[str, int],
    settings: Mapping[str, Any],
    plan: str,
    left_out: Sequence[tuple[str, str]] = (),
    left_out_count: int = 0,
    converted: int = 0,
    listing: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the content of a split's manifest.

    Args:
        split: Name of the split.
        rows: For each shard at least what `ShardFile.manifest_row` returns.
        class_counts: Number of images of each class, in the order of the indices.
        settings: How the images became records.
        plan: Identifies the content; a writer with another plan does not resume.
        left_out: Key and reason of the images that were left out, at most
            `MAX_LEFT_OUT_NAMED`.
        left_out_count: Number of images that were left out.
        converted: Number of images stored as PNG because training cannot read the file.
        listing: Counts of the files that the source saw (`Listing.summarize`).
    """
    return {
        "format": FORMAT_VERSION,
        "split": split,
        "records": sum(row["records"] for row in rows),
        "bytes": sum(row["bytes"] for row in rows),
        "shards": [
            {name: row[name] for name in ("file", "records", "bytes", "sha256")}
            for row in rows
        ],
        "class_counts": dict(class_counts),
        **({"listing": dict(listing)} if listing else {}),
        "left_out": left_out_count,
        "left_out_named": [{"key": key, "reason": reason} for key, reason in left_out],
        **({"converted": converted} if converted else {}),
        "settings": dict(settings),
        "plan": plan,
    }


def read_manifest(path: str) -> dict[str, Any]:
    """Return the content of a manifest.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not a manifest.
    """
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(
            f"The manifest {path} does not exist. Write the set with "
            "vit-scaling data write, or correct the path."
        )
    try:
        manifest = read_json(path)
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict) or "shards" not in manifest:
        raise ValueError(
            f"{path} is no manifest of vit-scaling data write: it must be a JSON "
            "object with `shards`."
        )
    return manifest


def read_shards(path: str) -> list[Shard]:
    """Return the shards that a manifest lists, with their counts and sizes."""
    folder, manifest = os.path.dirname(path), read_manifest(path)
    counts = manifest.get("class_counts")
    return [
        Shard(
            os.path.join(folder, row["file"]),
            records=row["records"],
            size_bytes=row["bytes"],
            classes=None if counts is None else len(counts),
        )
        for row in manifest["shards"]
    ]


def find_listed_shards(paths: Iterable[str]) -> dict[str, Shard]:
    """Return the shards listed by the manifests in the folders of `paths`, by path."""
    return {
        shard.path: shard
        for folder in sorted({os.path.dirname(path) for path in paths})
        for file in tf.io.gfile.glob(os.path.join(folder, f"*{_SUFFIX}"))
        if not is_partial(file)
        for shard in read_shards(file)
    }
