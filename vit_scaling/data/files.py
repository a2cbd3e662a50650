"""Files that are whole or not there, and the names of those that are numbered."""
# SPDX-License-Identifier: Apache-2.0

import hashlib
import json
import os
from typing import Any

NUMBERED = r"-(\d{5,})-of-(\d{5,})"  # Of a shard's name, as `numbered` writes it.


def numbered(stem: str, number: int, count: int, rest: str) -> str:
    """Return the name of one shard of `count`: stem, its place among them, rest."""
    return f"{stem}-{number:05d}-of-{count:05d}{rest}"


def sync_and_hash(path: str) -> str:
    """Bring a file to the disk and return its SHA-256, read back."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def write_json(path: str, value: dict[str, Any]) -> None:
    """Write JSON under another name and rename it: whole, or not at all."""
    part = f"{path}.{os.getpid()}.part"
    with open(part, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
