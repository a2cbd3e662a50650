"""Images listed in a CSV file, or packed in tar files, before they are TFRecords."""
# SPDX-License-Identifier: Apache-2.0

import csv
import dataclasses
import functools
import glob
import os
import tarfile
from collections.abc import Iterator

from vit_scaling.data.writing.image_entries import IMAGE_SUFFIXES, Entry, Light


@dataclasses.dataclass(frozen=True)
class CsvList(Light):
    """A CSV file with the columns `path` and `labels`, one image a line.

    Args:
        path: The file. Image paths are relative to its folder, or absolute; several
            labels of an image are separated by `separator`, none at all are allowed.
        separator: Between labels.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: A column is missing, or a line has no path.
    """

    path: str
    separator: str = ";"

    def class_names(self) -> tuple[str, ...]:
        """Return all labels, sorted."""
        return tuple(sorted({name for entry in self._listed for name in entry.labels}))

    def entries(self) -> list[Entry]:
        """Return the lines."""
        return list(self._listed)

    def read(self, entry: Entry) -> bytes:
        """Return the file's bytes."""
        with open(entry.place, "rb") as file:
            return file.read()

    @functools.cached_property
    def _listed(self) -> tuple[Entry, ...]:
        # Spreadsheets put a byte order mark in front; "-sig" takes it off.
        with open(self.path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not {"path", "labels"} <= set(rows.fieldnames or ()):
                raise ValueError(
                    f"{self.path} must begin with a line naming the columns `path` and "
                    f"`labels`; received {rows.fieldnames}."
                )
            return tuple(self._entry(row, rows.line_num) for row in rows)

    def _entry(self, row: dict[str, str], line: int) -> Entry:
        if not row["path"] or row["labels"] is None:
            raise ValueError(
                f"{self.path}, line {line}: `path` and `labels` must be given; "
                f"received {row}."
            )
        path = os.path.join(os.path.dirname(self.path), row["path"])
        parts = (part.strip() for part in row["labels"].split(self.separator))
        labels = tuple(dict.fromkeys(part for part in parts if part))
        size = os.path.getsize(path) if os.path.exists(path) else 0
        return Entry(row["path"], labels, path, size)


@dataclasses.dataclass(frozen=True)
class Tars(Light):
    """Images in uncompressed tar files.

    An image's class is the folder that it lies in; one that lies in none has the tar
    file's own name for a class (as in ImageNet's tar per class).

    Args:
        pattern: A glob of tar files.

    Raises:
        FileNotFoundError: The pattern fits no file.
        ValueError: A file is compressed or no tar file.
    """

    pattern: str

    def class_names(self) -> tuple[str, ...]:
        """Return the classes, sorted."""
        return tuple(sorted({name for entry in self._found for name in entry.labels}))

    def entries(self) -> list[Entry]:
        """Return the image files of all tars."""
        return list(self._found)

    def read(self, entry: Entry) -> bytes:
        """Return a member's bytes, read from its place in the tar file."""
        path, offset = entry.place
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(entry.size_bytes)
        if len(data) < entry.size_bytes:
            raise OSError(f"{path} ends inside {entry.key}")
        return data

    @functools.cached_property
    def _found(self) -> tuple[Entry, ...]:
        paths = sorted(glob.glob(self.pattern))
        if not paths:
            raise FileNotFoundError(
                f"`pattern` must name tar files; received {self.pattern!r}, which fits "
                "none."
            )
        return tuple(entry for path in paths for entry in self._members(path))

    def _members(self, path: str) -> Iterator[Entry]:
        stem = os.path.splitext(os.path.basename(path))[0]
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    if not member.isfile() or not member.name.lower().endswith(
                        IMAGE_SUFFIXES
                    ):
                        continue
                    name = member.name.removeprefix("./")
                    label = os.path.basename(os.path.dirname(name)) or stem
                    place = (path, member.offset_data)
                    yield Entry(f"{stem}/{name}", (label,), place, member.size)
        except tarfile.ReadError as error:
            raise ValueError(
                f"{path} must be an uncompressed tar file ({error}). Images are read "
                "from their places in it, which compression hides: decompress it first "
                "(gunzip), or unpack it and use folder:."
            ) from error
