"""The files that a source of images lists: each is used, or skipped for a reason."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

_NAMED = 5


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

    entries: list[Entry] = dataclasses.field(default_factory=list)
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
        """Return all images."""
        return self.listing.entries

    def class_names(self) -> tuple[str, ...]:
        """Return the names of the images' classes, in index order."""
        return self.listing.class_names

    def __getstate__(self) -> dict[str, Any]:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: getattr(self, field.name) for field in fields}
