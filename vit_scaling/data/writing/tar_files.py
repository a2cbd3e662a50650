"""Images in tar files, with a class per folder or per tar file, or WebDataset shards.

A WebDataset shard has the label of KEY.jpg in KEY.cls, KEY.json or KEY.txt.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json
import os
import posixpath
import re
import tarfile
from typing import Any, BinaryIO

import tensorflow as tf

from vit_scaling.data.writing import file_rules
from vit_scaling.data.writing.image_entries import Entry, ListedSource, Listing
from vit_scaling.data.writing.label_names import name_labels, sort_names
from vit_scaling.io_files import open_file

_Place = tuple[int, int]  # Offset and size.
_LABEL_SUFFIXES = (".cls", ".json", ".txt")  # The first that has a label counts.
_JSON_LABELS = ("label", "labels", "cls", "class")
_SHARD_STEM = re.compile(r"(.*[-_.])?[0-9]{3,}")
_NO_LABEL = "no label file (.cls, .json or .txt)"
_MAX_CAPTION_CLASSES = 100


@dataclasses.dataclass(frozen=True)
class TarFiles(ListedSource):
    """Images in uncompressed tar files.

    If an image and a `.cls`, `.json` or `.txt` file have the same name up to the
    suffix, the tar files are WebDataset shards, and labels are read from these files;
    integers are class indices. Otherwise an image's class is its folder in the tar
    file. Without a folder, it is the tar file's own name, as in ImageNet's tar file per
    class.

    Args:
        pattern: A glob of tar files.

    Raises:
        FileNotFoundError: The pattern matches no file.
        ValueError: A file is compressed, damaged or not a tar file; a label cannot be
            read; or the classes would be the names of shards or splits.
    """

    pattern: str

    def read(self, entry: Entry) -> bytes:
        """Return a member's bytes, read at its offset in the tar file."""
        path, offset = entry.place
        with open_file(path) as file:
            data = _read_at(file, (offset, entry.size_bytes))
        if len(data) < entry.size_bytes:
            raise OSError(f"{path} ends inside {entry.key}")
        return data

    def _list(self) -> Listing:
        paths = sorted(tf.io.gfile.glob(self.pattern))
        if not paths:
            raise FileNotFoundError(
                f"`pattern` must name tar files; received {self.pattern!r}, which "
                "matches no file."
            )
        listing = Listing()
        labels: set[str] = set()
        # Read again below: the contents of all are larger than the memory.
        if any(_TarContents(path, Listing()).has_labels() for path in paths):
            for path in paths:
                _TarContents(path, listing).use_labels(listing)
            labels.update(name for entry in listing.entries for name in entry.labels)
            _check_most_have_labels(listing, self.pattern)
            _check_not_captions(labels, listing, self.pattern)
            listing.class_names = name_labels(labels, self.pattern)
        else:
            for path in paths:
                _TarContents(path, listing).use_folders(listing)
            labels.update(name for entry in listing.entries for name in entry.labels)
            file_rules.check_not_splits(labels, self.pattern)
            listing.class_names = sort_names(labels)
        return listing


class _TarContents:
    """The places of a tar file's images and label files; others are skipped.

    Args:
        path: The tar file.
        listing: Receives the skipped members.
    """

    def __init__(self, path: str, listing: Listing) -> None:
        self._path = path
        self._stem = _find_stem(path)
        self._images: dict[str, _Place] = {}
        self._label_files: dict[str, dict[str, _Place]] = {}
        with open_file(path) as file:
            for name, place in _read_members(path, file, listing).items():
                self._add(name, place, file, listing)

    def _add(self, name: str, place: _Place, file: BinaryIO, listing: Listing) -> None:
        key, suffix = posixpath.splitext(name)
        if any(map(file_rules.is_hidden, name.split("/"))):
            listing.skip(f"{self._stem}/{name}", file_rules.HIDDEN)
        elif suffix.lower() in _LABEL_SUFFIXES:
            self._label_files.setdefault(key, {})[suffix.lower()] = place
            listing.skip(f"{self._stem}/{name}", "text or label file")
        elif file_rules.is_image(name, lambda count: _read_at(file, (place[0], count))):
            self._images[name] = place
        else:
            listing.skip(f"{self._stem}/{name}", file_rules.NOT_AN_IMAGE)

    def has_labels(self) -> bool:
        """Whether an image has a label file."""
        return any(
            posixpath.splitext(name)[0] in self._label_files for name in self._images
        )

    def use_labels(self, listing: Listing) -> None:
        """Use the images with the labels of their label files."""
        with open_file(self._path) as file:
            for name in self._images:
                files = self._label_files.get(posixpath.splitext(name)[0])
                if files:
                    self._use(listing, name, self._read_label(file, name, files))
                else:
                    listing.skip(f"{self._stem}/{name}", _NO_LABEL)

    def use_folders(self, listing: Listing) -> None:
        """Use the images with the names of their folders, or of the tar file."""
        for name in self._images:
            folder = posixpath.basename(posixpath.dirname(name))
            if not folder and _SHARD_STEM.fullmatch(self._stem):
                raise ValueError(
                    f"{self._path} has neither folders nor label files (KEY.cls, .json "
                    f"or .txt for KEY.jpg), and {self._stem!r} names a shard, not a "
                    "class. Add labels, or list the unpacked images in a CSV file."
                )
            self._use(listing, name, (folder or self._stem,))

    def _use(self, listing: Listing, name: str, labels: tuple[str, ...]) -> None:
        offset, size = self._images[name]
        key = f"{self._stem}/{name}"
        listing.use(Entry(key, labels, (self._path, offset), size))

    def _read_label(
        self, file: BinaryIO, name: str, files: dict[str, _Place]
    ) -> tuple[str, ...]:
        for suffix in filter(files.get, _LABEL_SUFFIXES):
            try:
                text = _read_at(file, files[suffix]).decode().strip()
                labels = _parse_json(text) if suffix == ".json" else (text,)
            except ValueError as error:  # UnicodeDecodeError and JSONDecodeError, too.
                member = posixpath.splitext(name)[0] + suffix
                raise ValueError(f"{self._path}, {member}: {error}") from error
            if any(not label or "\n" in label for label in labels):
                raise ValueError(
                    f"{self._path}: the {suffix} file of {name} must have a label, "
                    f"one line of text; received {text[:80]!r}."
                )
            if labels:
                return labels
        raise ValueError(
            f"{self._path}: the .json file of {name} has no label. It must have one of "
            f"the fields {', '.join(_JSON_LABELS)}; or list the images in a CSV file."
        )


def _parse_json(text: str) -> tuple[str, ...]:
    """Return the labels of a JSON object: a text, an integer, or a list of them."""
    content: Any = json.loads(text)
    if isinstance(content, dict):
        content = next((content[key] for key in _JSON_LABELS if key in content), ())
    values = content if isinstance(content, list | tuple) else [content]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(f"a label must be a text or integer; received {value!r}.")
    return tuple(dict.fromkeys(str(value).strip() for value in values))


def _find_stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _read_members(path: str, file: BinaryIO, listing: Listing) -> dict[str, _Place]:
    """Return the places of a tar file's files by name, links included."""
    stem = _find_stem(path)
    members: dict[str, _Place | str | None] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
            for member in tar:
                name = posixpath.normpath(member.name)
                if member.isdir():
                    continue
                found = _locate(member, name)
                if name in members:
                    listing.skip(f"{stem}/{name}", "repeated; the last one is used")
                # GNU tar stores a repeated file as a link to itself.
                if found != name or name not in members:
                    members[name] = found
            end = tar.offset
    except tarfile.ReadError as error:
        raise ValueError(
            f"{path} must be an uncompressed tar file, and complete ({error}), because "
            "images are read at their offsets in it. Decompress it first (gunzip), or "
            "unpack it and use folder:."
        ) from error
    _check_end(path, file, end)
    places = {}
    for name, found in members.items():
        place = _follow_links(members, name) if isinstance(found, str) else found
        if place is not None:
            places[name] = place
        else:
            reason = file_rules.MISSING_TARGET if found else file_rules.NOT_A_FILE
            listing.skip(f"{stem}/{name}", reason)
    return places


def _locate(member: tarfile.TarInfo, name: str) -> _Place | str | None:
    """Return a member's place, its target if it is a link, or None for other kinds."""
    if member.islnk():
        return posixpath.normpath(member.linkname)
    if member.issym():
        folder = posixpath.dirname(name)
        return posixpath.normpath(posixpath.join(folder, member.linkname))
    if member.isfile() and not member.issparse():
        return member.offset_data, member.size
    return None


def _follow_links(members: dict[str, Any], name: str) -> _Place | None:
    found, visited = members[name], {name}
    while isinstance(found, str) and found not in visited:
        visited.add(found)
        found = members.get(found)
    return None if isinstance(found, str) else found


def _check_end(path: str, file: BinaryIO, end: int) -> None:
    """Raise if data follows where tarfile, which skips damage silently, has stopped."""
    file.seek(end)
    while block := file.read(2**20):
        if block.strip(b"\0"):
            raise ValueError(
                f"{path} must be one undamaged tar file; received data after its end "
                f"at byte {end}. Fetch it again, or unpack it (tar --ignore-zeros, if "
                "several were concatenated) and use folder:."
            )


def _read_at(file: BinaryIO, place: _Place) -> bytes:
    offset, size = place
    file.seek(offset)
    return file.read(size)


def _check_most_have_labels(listing: Listing, pattern: str) -> None:
    without = listing.skipped.get(_NO_LABEL)
    if without and without.count > len(listing.entries):
        raise ValueError(
            f"{pattern}: {len(listing.entries)} images have a label file (.cls, .json "
            f"or .txt), but {without.count} have none, for example {without.first[0]}. "
            "Give every image one; or remove them all, so that folders are classes."
        )


def _check_not_captions(labels: set[str], listing: Listing, pattern: str) -> None:
    if len(labels) > max(_MAX_CAPTION_CLASSES, len(listing.entries) / 2):
        raise ValueError(
            f"{pattern}: {len(listing.entries)} images have {len(labels)} different "
            f"labels, for example {min(labels)!r}; these look like captions. Put class "
            "labels into .cls files, or list the unpacked images in a CSV file."
        )
