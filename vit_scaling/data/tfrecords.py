"""Sharded TFRecords by pattern: the source that training and evaluation read from."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import fnmatch
import functools
import json
import os
import re
from collections.abc import Iterator, Sequence

import tensorflow as tf

from vit_scaling.data import files
from vit_scaling.data.record_index import RecordIndex, Shard, refuse_or_warn

CLASSES_FILE = "classes.txt"
_SHARD = re.compile(rf"(.*){files.NUMBERED}([^/]*)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Features:
    """The keys of a `tf.train.Example`; the defaults are ImageNet's usual ones.

    Args:
        image: Encoded JPEG, PNG, GIF or BMP, one bytes value.
        label: Class indices, any number of int64 values.
        key: What names the record for subsets, one bytes value; the image's own bytes
            serve as well (give the key of `image`).
        label_offset: Added to each label as stored; -1 for sets that count from 1.
    """

    image: str = "image/encoded"
    label: str = "image/class/label"
    key: str = "image/filename"
    label_offset: int = 0


@dataclasses.dataclass(frozen=True)
class TFRecords:
    """A set of TFRecord shards.

    Args:
        pattern: A glob of shards, several separated by commas or in a sequence, or the
            path of a manifest (`{split}.manifest.json`), whose counts and sizes the
            shards are then held against. Sorted by name, each file once.
        features: The keys to read.

    Raises:
        ValueError: The pattern is empty.
    """

    pattern: str | Sequence[str]
    features: Features = dataclasses.field(default_factory=Features)

    def __post_init__(self) -> None:
        if not self.patterns:
            raise ValueError(
                f"`pattern` must name TFRecord files; received {self.pattern!r}. "
                "Give a glob such as '/data/train-*.tfrecord'."
            )

    @property
    def patterns(self) -> list[str]:
        """The patterns, one a string."""
        given = [self.pattern] if isinstance(self.pattern, str) else list(self.pattern)
        return [part.strip() for text in given for part in text.split(",") if part]

    @functools.cached_property
    def shards(self) -> tuple[Shard, ...]:
        """The files, with what their manifests say of them.

        Raises:
            FileNotFoundError: A pattern fits no file.
        """
        paths: set[str] = set()
        for pattern in self.patterns:
            found = _manifest_shards(pattern) or [
                path
                for path in tf.io.gfile.glob(pattern)
                if not path.endswith(".part")  # Being written.
            ]
            if not found:
                raise FileNotFoundError(
                    f"`pattern` fits no file; received {pattern!r}. Write the set with "
                    "tools/write_tfrecords.py, or correct the path."
                )
            paths.update(found)
        known = _known_shards(paths)
        return tuple(known.get(path, Shard(path)) for path in sorted(paths))

    @functools.cached_property
    def missing(self) -> tuple[str, ...]:
        """Files that the patterns ask for and that are not there, by their numbers.

        Of train-00000-of-00004 and its like there must be four, as far as they fit a
        pattern: 'train-0000[01]*' asks for two only.
        """
        return tuple(_missing([shard.path for shard in self.shards], self.patterns))

    @functools.cached_property
    def class_names(self) -> tuple[str, ...] | None:
        """The lines of `classes.txt` beside the first shard, if there is one."""
        path = os.path.join(os.path.dirname(self.shards[0].path), CLASSES_FILE)
        return read_class_names(path) if tf.io.gfile.exists(path) else None

    @functools.cached_property
    def _indexes(self) -> dict[str, RecordIndex]:
        return {}

    def index(self, *, on_bad_record: str = "stop") -> RecordIndex:
        """Return where the records lie.

        Raises:
            ValueError: A shard is damaged or missing (and the policy is "stop"), or all
                are empty.
        """
        made = self._indexes.get(on_bad_record)
        if made is None:
            if self.missing:
                refuse_or_warn(
                    f"{self.missing[0]} is missing: `pattern` {self.pattern!r} fits "
                    f"{len(self.shards)} files, whose names say that there are "
                    f"{len(self.missing)} more. Bring them, or name the files wanted.",
                    on_bad_record,
                )
            made = RecordIndex(self.shards, on_bad_record=on_bad_record)
            self._indexes[on_bad_record] = made
        if not made.num_records:
            raise ValueError(
                f"`pattern` must name shards with records; received {self.pattern!r}, "
                f"{len(self.shards)} files, all empty."
            )
        return made


def read_class_names(path: str) -> tuple[str, ...]:
    """Return the class names of a file with one a line, in the order of the indices."""
    with tf.io.gfile.GFile(path) as file:
        return tuple(line.rstrip("\n") for line in file if line.strip())


def read_manifest(path: str) -> dict:
    """Return a manifest as the writer left it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not one.
    """
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(
            f"The manifest {path} does not exist. Write the set with "
            "tools/write_tfrecords.py, or correct the path."
        )
    with tf.io.gfile.GFile(path) as file:
        try:
            manifest = json.load(file)
        except ValueError:
            manifest = None
    if not isinstance(manifest, dict) or "shards" not in manifest:
        raise ValueError(
            f"{path} is no manifest of tools/write_tfrecords.py: it must be a JSON "
            "object with `shards`."
        )
    return manifest


def _manifest_shards(pattern: str) -> list[str]:
    if not pattern.endswith(".json"):
        return []
    folder = os.path.dirname(pattern)
    return [os.path.join(folder, s["file"]) for s in read_manifest(pattern)["shards"]]


def _missing(paths: Sequence[str], patterns: Sequence[str]) -> Iterator[str]:
    """Yield the paths that a complete set has beside these, if they fit a pattern."""
    numbers: dict[tuple[str, int, str], set[int]] = {}
    for path in paths:
        found = _SHARD.fullmatch(path)
        if found:
            stem, number, count, rest = found.groups()
            numbers.setdefault((stem, int(count), rest), set()).add(int(number))
    for (stem, count, rest), present in sorted(numbers.items()):
        for number in sorted(set(range(count)) - present):
            path = files.numbered(stem, number, count, rest)
            if any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns):
                yield path


def _known_shards(paths: set[str]) -> dict[str, Shard]:
    """Return what the manifests beside the shards say of them, by path."""
    known = {}
    for folder in sorted({os.path.dirname(path) for path in paths}):
        for file in tf.io.gfile.glob(os.path.join(folder, "*.manifest.json")):
            for row in read_manifest(file)["shards"]:
                path = os.path.join(folder, row["file"])
                known[path] = Shard(
                    path, records=row["records"], size_bytes=row["bytes"]
                )
    return known
