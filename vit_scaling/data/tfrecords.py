"""Sets of TFRecord shards: their names, found by a pattern or a manifest."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import fnmatch
import functools
import os
import re
from collections.abc import Iterator, Sequence

import tensorflow as tf
from absl import logging

from vit_scaling.class_names import union
from vit_scaling.data import manifests
from vit_scaling.data.examples import Features
from vit_scaling.data.record_index import RecordIndex, Shard, raise_or_warn
from vit_scaling.data.sidecar_files import INDEX_FOLDER
from vit_scaling.io_files import is_partial
from vit_scaling.naming import list_some

NUMBERS_PATTERN = r"-(\d{5,})-of-(\d{5,})"
# Of files that this package and TFDS store next to shards, and of those that earlier
# versions were writing (.part); globs such as DIR/train* match them too.
_OTHER_SUFFIXES = (".json", ".txt", ".csv", ".html", ".part")
_SHARD = re.compile(rf"(.*){NUMBERS_PATTERN}([^/]*)", re.DOTALL)


def shard_name(stem: str, number: int, count: int, suffix: str = ".tfrecord") -> str:
    """Return the name of shard `number` of `count`.

    >>> shard_name("train", 3, 16)
    'train-00003-of-00016.tfrecord'
    """
    return f"{stem}-{number:05d}-of-{count:05d}{suffix}"


def find_missing_shards(paths: Sequence[str], patterns: Sequence[str]) -> Iterator[str]:
    """Yield the missing shards that the names of others imply, if a pattern matches.

    Args:
        paths: Existing shards.
        patterns: Globs; of 'train-0000[01]*', only the first two can be missing.
    """
    numbers: dict[tuple[str, int, str], set[int]] = {}
    for path in paths:
        match = _SHARD.fullmatch(path)
        if match:
            stem, number, count, suffix = match.groups()
            numbers.setdefault((stem, int(count), suffix), set()).add(int(number))
    for (stem, count, suffix), present in sorted(numbers.items()):
        for number in sorted(set(range(count)) - present):
            path = shard_name(stem, number, count, suffix)
            if any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns):
                yield path


CLASSES_FILE = "classes.txt"


@dataclasses.dataclass(frozen=True)
class TFRecords:
    """A set of TFRecord shards.

    Args:
        pattern: A glob of shards, several globs separated by commas or in a sequence,
            or the path of a manifest (`{split}.manifest.json`). The shards are checked
            against the counts and sizes of their manifest, and sorted by path. Globs
            leave out manifests and other text files in the folder.
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
        """The separate patterns."""
        given = [self.pattern] if isinstance(self.pattern, str) else list(self.pattern)
        return [part.strip() for text in given for part in text.split(",") if part]

    @functools.cached_property
    def shards(self) -> tuple[Shard, ...]:
        """The files, with the counts and sizes that their manifests give.

        Raises:
            FileNotFoundError: A pattern matches no file.
        """
        paths: set[str] = set()
        for pattern in self.patterns:
            matches = _match(pattern)
            if not matches:
                raise FileNotFoundError(
                    f"`pattern` fits no file; received {pattern!r}. Write the set with "
                    "vit-scaling data write, or correct the path."
                )
            paths.update(matches)
        listed = manifests.find_listed_shards(paths)
        return tuple(listed.get(path, Shard(path)) for path in sorted(paths))

    @functools.cached_property
    def missing(self) -> tuple[str, ...]:
        """Paths of missing shards that the names of the others imply."""
        paths = [shard.path for shard in self.shards]
        return tuple(find_missing_shards(paths, self.patterns))

    @functools.cached_property
    def class_names(self) -> tuple[str, ...] | None:
        """The lines of `classes.txt`, or None; of several sets, the union of theirs.

        Raises:
            ValueError: Some folders of shards have a `classes.txt`, and others none.
        """
        folders = self.class_names_by_folder
        if len(set(folders.values())) == 1:
            return next(iter(folders.values()))
        named = {folder: names for folder, names in folders.items() if names}
        unnamed = next((folder for folder in folders if folder not in named), None)
        if unnamed is not None:
            raise ValueError(
                "`pattern` may name several sets if all have class names or none; "
                f"{next(iter(named))} has a {CLASSES_FILE} and {unnamed} has none. Add "
                "the missing file."
            )
        names = union(*named.values())
        logging.warning(
            "The sets in %s have different class names: their labels are mapped by "
            "name to all %d.",
            list_some([*named]),
            len(names),
        )
        return names

    @functools.cached_property
    def class_names_by_folder(self) -> dict[str, tuple[str, ...] | None]:
        """The lines of `classes.txt` in each folder of shards, or None."""
        names = {}
        for folder in sorted({os.path.dirname(shard.path) for shard in self.shards}):
            path = os.path.join(folder, CLASSES_FILE)
            exists = tf.io.gfile.exists(path)
            names[folder] = read_class_names(path) if exists else None
        return names

    @functools.cached_property
    def _indexes(self) -> dict[str, RecordIndex]:
        return {}

    def index(self, *, on_bad_record: str = "stop") -> RecordIndex:
        """Return the positions of all records.

        Raises:
            ValueError: A shard is damaged or missing (and the policy is "stop"), or all
                are empty.
        """
        if on_bad_record not in self._indexes:
            self._check_complete(on_bad_record)
            self._indexes[on_bad_record] = RecordIndex(
                self.shards, on_bad_record=on_bad_record
            )
        index = self._indexes[on_bad_record]
        if not index.num_records:
            raise ValueError(
                f"`pattern` must name shards with records; received {self.pattern!r}, "
                f"{len(self.shards)} files, all empty."
            )
        return index

    def _check_complete(self, on_bad_record: str) -> None:
        if self.missing:
            raise_or_warn(
                f"{self.missing[0]} is missing: `pattern` {self.pattern!r} fits "
                f"{len(self.shards)} files, whose names say that there are "
                f"{len(self.missing)} more. Restore them, or name the wanted files.",
                on_bad_record,
            )


def _match(pattern: str) -> list[str]:
    if pattern.endswith(".json"):
        return [shard.path for shard in manifests.read_shards(pattern)]
    return [
        path
        for path in tf.io.gfile.glob(pattern)
        if not is_partial(path)
        and not path.endswith(_OTHER_SUFFIXES)
        and os.path.basename(path) != INDEX_FOLDER
    ]


def read_class_names(path: str) -> tuple[str, ...]:
    """Return the class names in a file with one per line, in index order."""
    with tf.io.gfile.GFile(path) as file:
        return tuple(line.rstrip("\n") for line in file if line.strip())
