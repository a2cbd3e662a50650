"""The files that a source of images lists: each is used, or skipped for a reason.

The list of images is on the disk: it may be larger than the memory.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import os
import pickle
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from etils import epath

from vit_scaling.data import subsets
from vit_scaling.io_files import atomic_file

_NAMED = 5
_CACHE_KIB = 16 * 1024  # Memory of a table's pages, and of each sort.


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


class EntryTable:
    """Images in a temporary SQLite database, which is on the disk unless it is small.

    Args:
        entries: The first images.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        # "": in the folder of temporary files, and deleted at the end.
        self._database = sqlite3.connect("", check_same_thread=False)
        self._run(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._run("PRAGMA journal_mode = OFF")
        self._run("CREATE TABLE entries (key TEXT, size INT, place BLOB, hash BLOB)")
        self._count = 0
        for entry in entries:
            self.append(entry)

    def _run(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self._database.execute(statement, values)

    def append(self, entry: Entry) -> None:
        """Add an image."""
        order = subsets.hash_key(b"order/" + entry.key.encode()).to_bytes(8, "big")
        place = pickle.dumps((entry.labels, entry.place))
        row = entry.key, entry.size_bytes, place, order
        self._run("INSERT INTO entries VALUES (?, ?, ?, ?)", row)
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        return self.iterate(shuffle=False)

    def iterate(self, *, shuffle: bool) -> Iterator[Entry]:
        """Yield the images as they were added, or in the order of their keys' hashes.

        Subsets are chosen by the hash of the key alone; with the same order, the first
        shards would be such a subset.
        """
        order = "hash, rowid" if shuffle else "rowid"
        columns = "SELECT key, size, place FROM entries"
        for key, size, pickled in self._run(f"{columns} ORDER BY {order}"):
            labels, place = pickle.loads(pickled)
            yield Entry(key, labels, place, size)

    def count_bytes(self) -> int:
        """Return the sum of the images' sizes."""
        total: int = self._run("SELECT TOTAL(size) FROM entries").fetchone()[0]
        return int(total)

    def find_repeated_keys(self) -> tuple[str, int, int] | None:
        """Return the first key of several images, their number, and that of such keys.

        None: all keys differ.
        """
        repeated = self._run(
            "SELECT key, COUNT(*) FROM entries GROUP BY key HAVING COUNT(*) > 1 "
            "ORDER BY MIN(rowid)"
        )
        first = repeated.fetchone()
        return (*first, 1 + sum(1 for _ in repeated)) if first else None


@dataclasses.dataclass(frozen=True)
class StoredEntries:
    """A shard's images, in a file from which a worker reads them.

    Args:
        path: The file; every worker must see it.
        count: Number of images.
    """

    path: str
    count: int

    def store(self, entries: Iterable[Entry]) -> None:
        """Write the file."""
        rows = [(e.key, e.labels, e.place, e.size_bytes) for e in entries]
        with atomic_file(self.path) as temporary:
            temporary.write_bytes(pickle.dumps(rows))

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Entry]:
        rows = pickle.loads(epath.Path(self.path).read_bytes())
        return (Entry(*row) for row in rows)


@dataclasses.dataclass
class SkippedFiles:
    """The number of files skipped for one reason, and the first names."""

    count: int = 0
    first: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Listing:
    """Every file that a source saw: used (`entries`) or skipped.

    Args:
        entries: The images to write.
        skipped: The other files, by reason.
        class_names: Names of the classes in index order.
    """

    entries: EntryTable = dataclasses.field(default_factory=EntryTable)
    skipped: dict[str, SkippedFiles] = dataclasses.field(default_factory=dict)
    class_names: tuple[str, ...] = ()

    def use(self, entry: Entry) -> None:
        """Add an image to write.

        Raises:
            ValueError: Its key is not UTF-8.
        """
        check_utf8(entry.key)
        self.entries.append(entry)

    def skip(self, name: str, reason: str) -> None:
        """Count a file that is not used."""
        files = self.skipped.setdefault(reason, SkippedFiles())
        files.count += 1
        if len(files.first) < _NAMED:
            files.first.append(name.encode(errors="backslashreplace").decode())

    def summarize(self) -> dict[str, Any]:
        """Return the counts of files as stored in the manifest; they add up."""
        skipped = sum(files.count for files in self.skipped.values())
        return {
            "seen": len(self.entries) + skipped,
            "used": len(self.entries),
            "skipped": skipped,
            "reasons": {
                reason: dataclasses.asdict(files)
                for reason, files in self.skipped.items()
            },
        }


def format_summary(summary: Mapping[str, Any]) -> str:
    """Return the counts as text: a line, and a line for each reason."""
    lines = [
        f"{summary['seen']} files seen: {summary['used']} used, "
        f"{summary['skipped']} skipped."
    ]
    for reason, files in summary["reasons"].items():
        line = f"  {files['count']} skipped, {reason}"
        if files["first"]:
            more = ", …" if files["count"] > len(files["first"]) else ""
            line += f": {', '.join(files['first'])}{more}"
        lines.append(line)
    return "\n".join(lines)


def check_utf8(name: str) -> None:
    """Raise ValueError if a name of a file has bytes that are not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"The file name {os.fsencode(name)!r} is not UTF-8. Rename the file, for "
            "example with `convmv -f latin1 -t utf8 --notest -r FOLDER`; unpack a tar "
            "file first."
        ) from error


class EntrySource(Protocol):
    """A list of images whose bytes are read later, perhaps in another process."""

    @property
    def listing(self) -> Listing:
        """All files that the source saw."""

    def entries(self) -> Sequence[Entry]:
        """Return all images."""

    def class_names(self) -> tuple[str, ...]:
        """Return the names of the images' classes, in index order."""

    def read(self, entry: Entry) -> bytes:
        """Return an encoded image."""


class ListedSource:
    """A dataclass that lists its files once, and is sent to processes without them."""

    @functools.cached_property
    def listing(self) -> Listing:
        """All files that the source saw."""
        return self._list()

    def _list(self) -> Listing:
        raise NotImplementedError

    def entries(self) -> list[Entry]:
        """Return all images, in memory."""
        return list(self.listing.entries)

    def class_names(self) -> tuple[str, ...]:
        """Return the names of the images' classes, in index order."""
        return self.listing.class_names

    def __getstate__(self) -> dict[str, Any]:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: getattr(self, field.name) for field in fields}
