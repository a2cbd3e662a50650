"""Images in folders, or listed in a CSV file."""
# SPDX-License-Identifier: Apache-2.0

import codecs
import csv
import dataclasses
import io
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator

from etils import epath

from vit_scaling.data.writing import file_rules
from vit_scaling.data.writing.image_entries import (
    Entry,
    ListedSource,
    Listing,
    check_utf8,
)
from vit_scaling.data.writing.label_names import name_labels, sort_names
from vit_scaling.io_files import is_remote, map_in_threads, open_file
from vit_scaling.naming import list_some

_logger = logging.getLogger(__name__)


class _ReadsFiles(ListedSource):
    """Entries whose place is a file."""

    def read(self, entry: Entry) -> bytes:
        """Return the file's bytes."""
        with open_file(entry.place) as file:
            content: bytes = file.read()
        return content


@dataclasses.dataclass(frozen=True)
class Folder(_ReadsFiles):
    """A folder with one subfolder per class, at any depth below it.

    Links to files and folders are followed. Hidden files and folders, and those of the
    operating system (`__MACOSX`), are skipped.

    Args:
        path: The folder. Its subfolders' names are the class names; they are sorted, as
            numbers if all are integers.

    Raises:
        FileNotFoundError: The folder does not exist or has no subfolder.
        ValueError: The subfolders are splits, one has files but no image, or a name is
            not UTF-8.
    """

    path: str

    def __post_init__(self) -> None:
        if not epath.Path(self.path).is_dir():
            raise FileNotFoundError(
                f"`path` must be a folder; received {self.path!r}, which is not one."
            )
        names = self._find_classes()
        if not names:
            raise FileNotFoundError(
                "`path` must have one subfolder per class, with images inside; "
                f"received {self.path!r}, which has no subfolder."
            )
        file_rules.check_not_splits(names, self.path)
        for name in names:
            check_utf8(name)

    def _find_classes(self) -> tuple[str, ...]:
        items = epath.Path(self.path).iterdir()
        names = [item.name for item in items if item.is_dir()]
        return sort_names([name for name in names if not file_rules.is_hidden(name)])

    def _list(self) -> Listing:
        listing = Listing(class_names=self._find_classes())
        other_files: dict[str, str] = {}
        start = len(os.path.join(self.path, ""))
        for item, size, reason in scan_folder(self.path):
            key = item[start:].replace(os.sep, "/")
            label, _, in_class = key.partition("/")
            if not reason and not in_class:
                reason = "outside the class folders"
            if reason:
                listing.skip(key, reason)
                if in_class and reason != file_rules.HIDDEN:
                    other_files.setdefault(label, key)
            else:
                listing.use(Entry(key, (label,), item, size))
        for label in other_files.keys() - {e.labels[0] for e in listing.entries}:
            raise ValueError(
                f"{os.path.join(self.path, label)} has files but no image, for example "
                f"{other_files[label]!r}. Move the folder out of {self.path} if it is "
                "not a class, or add its images."
            )
        _warn_of_classes_below(listing)
        return listing


def _warn_of_classes_below(listing: Listing) -> None:
    """Warn if the only class has subfolders of images, which may be the classes."""
    below: set[str] = set()
    for entry in listing.entries if len(listing.class_names) == 1 else ():
        parts = entry.key.split("/")
        if len(parts) < 3:
            return
        below.add(parts[1])
    if len(below) > 1:
        _logger.warning(
            "All images are of one class, %s. If its subfolders (%s) are the classes, "
            "write the images from that folder.",
            listing.class_names[0],
            list_some(sorted(below)),
        )


def scan_folder(folder: str) -> Iterator[tuple[str, int, str | None]]:
    """Yield every file below a folder: path, size, and reason to skip it or None."""
    if is_remote(folder):
        yield from _scan_remote(folder)
        return
    for item, reason in _scan_local(folder):
        yield item.path, 0 if reason else item.stat().st_size, reason


def _scan_remote(
    folder: str, reason: str | None = None
) -> Iterator[tuple[str, int, str | None]]:
    paths = sorted(epath.Path(folder).iterdir())
    found = map_in_threads(lambda path: path.stat(), paths)
    for path, status in zip(paths, found, strict=True):
        hidden = file_rules.HIDDEN if file_rules.is_hidden(path.name) else None
        why = reason or hidden
        if status.is_directory:
            yield from _scan_remote(str(path), why)
            continue
        if not why and not file_rules.is_image(path.name, _head_reader(path)):
            why = file_rules.NOT_AN_IMAGE
        yield str(path), status.length, why


def _head_reader(path: epath.PathLike) -> Callable[[int], bytes]:
    def read(count: int) -> bytes:
        with open_file(path) as file:
            head: bytes = file.read(count)
        return head

    return read


def _scan_local(
    folder: str,
    parents: frozenset[tuple[int, int]] = frozenset(),
    reason: str | None = None,
) -> Iterator[tuple["os.DirEntry[str]", str | None]]:
    """Yield every file below a folder, and the reason to skip it or None.

    Args:
        folder: The folder.
        parents: Device and inode of the folders above, where a link would not end.
        reason: Reason to skip all files.
    """
    parents |= {_identify(folder)}
    with os.scandir(folder) as items:
        ordered = sorted(items, key=lambda item: item.name)
    # A link that cannot be resolved makes DirEntry.is_dir raise; os.path.isdir is slow.
    subfolders = [
        item
        for item in ordered
        if (os.path.isdir(item.path) if item.is_symlink() else item.is_dir())
    ]
    names = {item.name for item in subfolders}
    for item in ordered:
        if item.name not in names:
            yield item, reason or _reason_to_skip(item)
    for item in subfolders:
        if item.is_symlink() and _identify(item.path) in parents:
            yield item, "link to a folder around it"
            continue
        hidden = file_rules.HIDDEN if file_rules.is_hidden(item.name) else None
        yield from _scan_local(item.path, parents, reason or hidden)


def _identify(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _reason_to_skip(item: "os.DirEntry[str]") -> str | None:
    if file_rules.is_hidden(item.name):
        return file_rules.HIDDEN
    if item.is_symlink():
        if not os.path.exists(item.path):
            return file_rules.MISSING_TARGET
        is_file = os.path.isfile(item.path)
    else:
        is_file = item.is_file()
    if not is_file:
        return file_rules.NOT_A_FILE
    try:
        found = file_rules.is_image(item.name, _head_reader(item.path))
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if found else file_rules.NOT_AN_IMAGE


@dataclasses.dataclass(frozen=True)
class CsvFile(_ReadsFiles):
    """A CSV file with the columns `path` and `labels`, one image per line.

    If all labels are integers, they are class indices: "10" is the eleventh class.

    Args:
        path: The file, UTF-8 or UTF-16 with a byte order mark. Image paths are
            absolute, or relative to its folder. Several labels of an image are
            separated by `separator`; it may have none.
        separator: Separates labels.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: A column is missing, a line has no path or too many values, labels
            are ambiguous, or the file has another encoding.
    """

    path: str
    separator: str = ";"

    def _list(self) -> Listing:
        listing = Listing()
        labels: set[str] = set()
        for entry in self._read_rows():
            labels.update(entry.labels)
            try:
                size = _file_size(entry.place)
            except (OSError, ValueError) as error:  # ValueError: a null byte.
                reason = getattr(error, "strerror", None) or error
                listing.skip(entry.key, f"cannot be read ({reason})")
                continue
            if size is not None:
                listing.use(dataclasses.replace(entry, size_bytes=size))
            else:
                listing.skip(entry.key, file_rules.NOT_A_FILE)
        listing.class_names = name_labels(labels, self.path)
        return listing

    def _read_rows(self) -> Iterator[Entry]:
        # A local copy: an object store's files cannot be wrapped as text.
        with tempfile.TemporaryFile() as binary, open_file(self.path) as original:
            shutil.copyfileobj(original, binary)
            binary.seek(0)
            encoding = _detect_encoding(binary.read(4))
            binary.seek(0)
            file = io.TextIOWrapper(binary, encoding=encoding, newline="")
            rows = csv.DictReader(file)
            try:
                if not {"path", "labels"} <= set(rows.fieldnames or ()):
                    raise ValueError(
                        f"{self.path} must begin with a line naming the columns `path` "
                        f"and `labels` (with a comma); received {rows.fieldnames}."
                    )
                for row in rows:
                    yield self._make_entry(row, rows.line_num)
            except UnicodeError as error:
                raise ValueError(
                    f"{self.path} is not text in {file.encoding} after line "
                    f"{rows.line_num} ({error}). Save it as UTF-8, for example "
                    "with `iconv -f latin1 -t utf-8`."
                ) from error
            except csv.Error as error:
                raise ValueError(
                    f"{self.path}, after line {rows.line_num}: {error}."
                ) from error

    def _make_entry(self, row: dict[str, str], line: int) -> Entry:
        if not row["path"] or row["labels"] is None:
            raise ValueError(
                f"{self.path}, line {line}: `path` and `labels` must be given; "
                f"received {row}."
            )
        if None in row:  # Values beyond the last column.
            raise ValueError(
                f"{self.path}, line {line} has more values than columns; received "
                f"{list(row.values())}. Separate labels by {self.separator!r}, and put "
                "values with a comma in quotation marks."
            )
        path = os.path.join(os.path.dirname(self.path), row["path"])
        parts = (part.strip() for part in row["labels"].split(self.separator))
        labels = tuple(dict.fromkeys(part for part in parts if part))
        return Entry(row["path"], labels, path)


def _file_size(path: str) -> int | None:
    """Return the size of a file; None if it is a folder or device."""
    if is_remote(path):
        found = epath.Path(path).stat()
        return None if found.is_directory else found.length
    status = os.stat(path)
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _detect_encoding(head: bytes) -> str:
    """Return UTF-16 or UTF-32 if a file begins with its byte order mark, or UTF-8."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig"  # Skips the byte order mark that spreadsheets write.
