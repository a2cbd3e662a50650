"""Where images come from before they are TFRecords: folders, digits, and the like."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import io
import os
from collections.abc import Sequence
from typing import Any, Protocol

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One image to write.

    Args:
        key: Names the image within its split, e.g. its path; kept in the record.
        labels: Class names.
        place: How its source finds the bytes.
        size_bytes: Of the encoded image, about; 0 if unknown.
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
        """Return the names of the classes that the images have, in index order."""

    def read(self, entry: Entry) -> bytes:
        """Return an image, encoded."""


class Light:
    """A dataclass that goes to another process without what it has found so far."""

    def __getstate__(self) -> dict[str, Any]:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: getattr(self, field.name) for field in fields}


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder with one subfolder per class, at any depth below it.

    Args:
        path: The folder. Class names are its subfolders', sorted.

    Raises:
        FileNotFoundError: It does not exist, or has no subfolder.
    """

    path: str

    def __post_init__(self) -> None:
        if not os.path.isdir(self.path):
            raise FileNotFoundError(
                f"`path` must be a folder; received {self.path!r}, which is none."
            )
        if not self.class_names():
            raise FileNotFoundError(
                "`path` must have one subfolder per class, with images inside; "
                f"received {self.path!r}, which has no subfolder."
            )

    def class_names(self) -> tuple[str, ...]:
        """Return the subfolders' names, sorted."""
        with os.scandir(self.path) as found:
            names = [entry.name for entry in found if entry.is_dir()]
        return tuple(sorted(name for name in names if not name.startswith(".")))

    def entries(self) -> list[Entry]:
        """Return the files with an image's suffix below each class."""
        found = []
        for name in self.class_names():
            for folder, subfolders, files in os.walk(os.path.join(self.path, name)):
                subfolders.sort()
                for file in sorted(files):
                    if not file.lower().endswith(IMAGE_SUFFIXES):
                        continue
                    path = os.path.join(folder, file)
                    key = os.path.relpath(path, self.path).replace(os.sep, "/")
                    found.append(Entry(key, (name,), path, os.path.getsize(path)))
        return found

    def read(self, entry: Entry) -> bytes:
        """Return the file's bytes."""
        with open(entry.place, "rb") as file:
            return file.read()


@dataclasses.dataclass(frozen=True)
class Digits:
    """scikit-learn's handwritten digits: 1,797 real images of 8×8, no download.

    Args:
        split: "test" (every fifth image, 359) or "train" (the other 1,438). Both halves
            have all writers: this is a first example, not a benchmark.
        scale: Each pixel is repeated this often in both directions.

    References: Alpaydin and Kaynak 1998, the UCI test set of optical digits.
    """

    split: str = "train"
    scale: int = 1

    def __post_init__(self) -> None:
        if self.split not in ("train", "test"):
            raise ValueError(
                f"`split` of the digits must be train or test; received {self.split!r}."
            )

    def class_names(self) -> tuple[str, ...]:
        """Return "0" to "9"."""
        return tuple("0123456789")

    def entries(self) -> list[Entry]:
        """Return the images of the split."""
        wanted = self.split == "test"
        return [
            Entry(f"digits/{i:04d}.png", (str(target),), i, 200)
            for i, target in enumerate(_digits().target)
            if (i % 5 == 4) == wanted
        ]

    def read(self, entry: Entry) -> bytes:
        """Return the image as a grey PNG, its 17 levels spread over 0 to 255."""
        import numpy as np
        from PIL import Image

        levels = _digits().images[entry.place]
        pixels = np.round(levels * (255 / 16)).astype(np.uint8)
        pixels = pixels.repeat(self.scale, axis=0).repeat(self.scale, axis=1)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()


@functools.cache
def _digits() -> Any:
    from sklearn.datasets import load_digits  # pip install scikit-learn

    return load_digits()
