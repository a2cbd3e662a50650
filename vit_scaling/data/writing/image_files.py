"""Images in folders, listed in a CSV file, or packed in tar files."""
# SPDX-License-Identifier: Apache-2.0

import csv
import dataclasses
import functools
import glob
import os
import tarfile
from collections.abc import Iterator

from vit_scaling.data.writing.image_entries import (
    IMAGE_SUFFIXES,
    Entry,
    PicklesFieldsOnly,
)


class _ReadsFiles:
    """Entries whose place is a file."""

    def read(self, entry: Entry) -> bytes:
        """Return the file's bytes."""
        with open(entry.place, "rb") as file:
            return file.read()


@dataclasses.dataclass(frozen=True)
class Folder(_ReadsFiles):
    """A folder with one subfolder per class, at any depth below it.

    Args:
        path: The folder. Its subfolders' names, sorted, are the class names.

    Raises:
        FileNotFoundError: The folder does not exist or has no subfolder.
    """

    path: str

    def __post_init__(self) -> None:
        if not os.path.isdir(self.path):
            raise FileNotFoundError(
                f"`path` must be a folder; received {self.path!r}, which is not one."
            )
        if not self.class_names():
            raise FileNotFoundError(
                "`path` must have one subfolder per class, with images inside; "
                f"received {self.path!r}, which has no subfolder."
            )

    def class_names(self) -> tuple[str, ...]:
        """Return the subfolders' names, sorted."""
        with os.scandir(self.path) as items:
            names = [item.name for item in items if item.is_dir()]
        return tuple(sorted(name for name in names if not name.startswith(".")))

    def entries(self) -> list[Entry]:
        """Return the files with an image's suffix below each class."""
        entries = []
        for name in self.class_names():
            for folder, subfolders, files in os.walk(os.path.join(self.path, name)):
                subfolders.sort()
                for file in sorted(filter(_is_image, files)):
                    path = os.path.join(folder, file)
                    key = os.path.relpath(path, self.path).replace(os.sep, "/")
                    entries.append(Entry(key, (name,), path, os.path.getsize(path)))
        return entries


class _LabelledEntries(PicklesFieldsOnly):
    """Entries that are listed once, and whose labels are the class names."""

    @functools.cached_property
    def _entries(self) -> tuple[Entry, ...]:
        return tuple(self._list_entries())

    def _list_entries(self) -> Iterator[Entry]:
        raise NotImplementedError

    def class_names(self) -> tuple[str, ...]:
        """Return all labels, sorted."""
        return tuple(sorted({name for entry in self._entries for name in entry.labels}))

    def entries(self) -> list[Entry]:
        """Return all images."""
        return list(self._entries)


@dataclasses.dataclass(frozen=True)
class CsvFile(_ReadsFiles, _LabelledEntries):
    """A CSV file with the columns `path` and `labels`, one image per line.

    Args:
        path: The file. Image paths are absolute, or relative to its folder. Several
            labels of an image are separated by `separator`; it may have none.
        separator: Separates labels.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: A column is missing, or a line has no path.
    """

    path: str
    separator: str = ";"

    def _list_entries(self) -> Iterator[Entry]:
        # "-sig" skips the byte order mark that spreadsheets write.
        with open(self.path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not {"path", "labels"} <= set(rows.fieldnames or ()):
                raise ValueError(
                    f"{self.path} must begin with a line naming the columns `path` and "
                    f"`labels`; received {rows.fieldnames}."
                )
            for row in rows:
                yield self._make_entry(row, rows.line_num)

    def _make_entry(self, row: dict[str, str], line: int) -> Entry:
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
class TarFiles(_LabelledEntries):
    """Images in uncompressed tar files.

    An image's class is its folder in the tar file. Without a folder, it is the tar
    file's own name, as in ImageNet's tar file per class.

    Args:
        pattern: A glob of tar files.

    Raises:
        FileNotFoundError: The pattern matches no file.
        ValueError: A file is compressed or not a tar file.
    """

    pattern: str

    def read(self, entry: Entry) -> bytes:
        """Return a member's bytes, read at its offset in the tar file."""
        path, offset = entry.place
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(entry.size_bytes)
        if len(data) < entry.size_bytes:
            raise OSError(f"{path} ends inside {entry.key}")
        return data

    def _list_entries(self) -> Iterator[Entry]:
        paths = sorted(glob.glob(self.pattern))
        if not paths:
            raise FileNotFoundError(
                f"`pattern` must name tar files; received {self.pattern!r}, which "
                "matches no file."
            )
        for path in paths:
            yield from _list_members(path)


def _list_members(path: str) -> Iterator[Entry]:
    stem = os.path.splitext(os.path.basename(path))[0]
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isfile() and _is_image(member.name):
                    name = member.name.removeprefix("./")
                    label = os.path.basename(os.path.dirname(name)) or stem
                    place = (path, member.offset_data)
                    yield Entry(f"{stem}/{name}", (label,), place, member.size)
    except tarfile.ReadError as error:
        raise ValueError(
            f"{path} must be an uncompressed tar file ({error}), because images are "
            "read at their offsets in it. Decompress it first (gunzip), or unpack it "
            "and use folder:."
        ) from error


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)
