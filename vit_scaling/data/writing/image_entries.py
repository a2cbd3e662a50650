"""Images to write, listed by a source that reads their bytes later."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One image to write.

    Args:
        key: Name of the image within its split, e.g. its path; stored in the record.
        labels: Class names.
        place: Where its source finds the bytes.
        size_bytes: Approximate size of the encoded image; 0 if unknown.
    """

    key: str
    labels: tuple[str, ...]
    place: Any
    size_bytes: int = 0


class EntrySource(Protocol):
    """A list of images whose bytes are read later, perhaps in another process."""

    def entries(self) -> Sequence[Entry]:
        """Return all images."""

    def class_names(self) -> tuple[str, ...]:
        """Return the names of the images' classes, in index order."""

    def read(self, entry: Entry) -> bytes:
        """Return an encoded image."""


class PicklesFieldsOnly:
    """A dataclass that is sent to other processes without its cached properties."""

    def __getstate__(self) -> dict[str, Any]:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: getattr(self, field.name) for field in fields}
