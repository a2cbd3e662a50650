"""Names of numbered shards, such as train-00003-of-00016.tfrecord."""
# SPDX-License-Identifier: Apache-2.0

import fnmatch
import re
from collections.abc import Iterator, Sequence

NUMBERS_PATTERN = r"-(\d{5,})-of-(\d{5,})"
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
