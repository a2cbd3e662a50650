"""Build the index files of existing shards: in parallel, on any number of hosts.

A shard is read once, from its start to its end, for the offsets of its records and the
hashes of their keys. Its index files appear when they are complete, so a command that
was killed continues with the shards that lack them.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vit_scaling.data import record_files, sidecar_files
from vit_scaling.data.examples import feature_values, parse_example
from vit_scaling.data.record_files import file_size
from vit_scaling.data.subsets import hash_key, select_subset
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.data.writing import shard_processes
from vit_scaling.io_files import PARTIAL_PREFIX, map_in_threads

_REPORT_BYTES = 16 * 2**20
_NAMED = 5


@dataclasses.dataclass(frozen=True)
class IndexTask:
    """A shard whose index files are to be built.

    Args:
        path: The shard.
        size_bytes: Its size.
        key: Feature that names a record; None builds no hashes of keys.
    """

    path: str
    size_bytes: int
    key: str | None

    @property
    def kinds(self) -> list[str]:
        """The index files, the one that is written last at the end."""
        kinds = [sidecar_files.OFFSETS]
        if self.key is not None:
            kinds.insert(0, sidecar_files.key_hashes_kind(self.key, self.size_bytes))
        return kinds

    def count_records(self) -> int | None:
        """Return the number of records by the index files; None if one is missing."""
        arrays = [
            next(sidecar_files.read_sidecars(self.path, kind), None)
            for kind in self.kinds
        ]
        found = [array for array in arrays if array is not None and len(array)]
        if len(found) < len(self.kinds) or int(found[-1][-1]) != self.size_bytes:
            return None
        records = len(found[-1]) - 1
        return records if all(len(a) == records for a in found[:-1]) else None


def build_index(
    source: TFRecords,
    *,
    keys: bool = True,
    host: int = 0,
    hosts: int = 1,
    workers: int | None = None,
    fractions: Sequence[float] = (),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Build the missing index files of one host's shards.

    Args:
        source: The set.
        keys: Also hash the keys, by which subsets are chosen.
        host: Number of this host. It takes every `hosts`-th shard.
        hosts: Number of hosts that build the index at the same time.
        workers: Number of processes; None is one per core.
        fractions: Subsets whose exact sizes to count and store, after the last host.
        progress: Called with the MiB that have been read, and with all MiB to read.

    Returns:
        `shards`, `records` and `bytes` of this host's part, `built` (shards that had no
        index files), and `subsets` (images of each fraction).

    Raises:
        ValueError: `host` is out of range, or shards are damaged; all others are done.
    """
    if not 0 <= host < hosts:
        raise ValueError(
            f"`host` must be 0 to {hosts - 1} (`hosts`={hosts}); received {host}."
        )
    tasks = _make_tasks(source, keys, host, hosts)
    _remove_partial_files(tasks)
    counts = map_in_threads(IndexTask.count_records, tasks, 64)
    missing = [task for task, n in zip(tasks, counts, strict=True) if n is None]
    total = sum(task.size_bytes for task in missing)

    def count(done: int) -> None:
        if progress:
            progress(done >> 20, total >> 20)

    outcomes = shard_processes.run(
        index_shard, missing, workers or os.cpu_count() or 1, count
    )
    _check_faults([fault for _, fault in outcomes if fault])
    result: dict[str, Any] = {
        "shards": len(tasks),
        "built": len(missing),
        "records": sum(n or 0 for n in counts) + sum(n for n, _ in outcomes),
        "bytes": sum(task.size_bytes for task in tasks),
    }
    if fractions:
        result["subsets"] = _count_subsets(source, fractions)
    return result


def index_shard(task: IndexTask, add: Callable[[int], None]) -> tuple[int, str]:
    """Build the index files of a shard.

    Args:
        task: The shard.
        add: Called with numbers of bytes that have been read.

    Returns:
        The number of records, and a description of the first fault or "".
    """
    offsets, hashes, added = [0], [], 0
    try:
        for offset, data in _read_records(task):
            if task.key is not None:
                (value,) = feature_values(parse_example(data), task.key)
                hashes.append(hash_key(value))
            offsets.append(offset)
            if offset - added >= _REPORT_BYTES:
                add(offset - added)
                added = offset
    except (ValueError, TypeError) as error:
        return 0, f"{task.path}, record {len(offsets) - 1}: {error}"
    arrays = {kind: np.array(hashes, np.uint64) for kind in task.kinds[:-1]}
    arrays[sidecar_files.OFFSETS] = np.array(offsets, np.uint64)
    for kind, array in arrays.items():
        if sidecar_files.write_sidecar(task.path, kind, array) is None:
            return 0, f"{task.path}: no folder for its index files is writable"
    add(task.size_bytes - added)
    return len(offsets) - 1, ""


def _read_records(task: IndexTask) -> Iterator[tuple[int, bytes]]:
    """Yield the end and the data of every record; without keys, only the end."""
    with record_files.open_file(task.path) as file:
        if task.key is None:
            offsets, problem = record_files.scan_offsets(file, task.size_bytes)
            yield from ((int(end), b"") for end in offsets[1:])
            if problem:
                raise ValueError(problem)
            return
        end = 0
        while end < task.size_bytes:
            data = record_files.read_payload(file)
            if data is None:
                raise ValueError(f"{record_files.CHECKSUM_FAILS}, or it is cut off")
            end += len(data) + record_files.FRAME_BYTES
            yield end, data


def _make_tasks(
    source: TFRecords, keys: bool, host: int, hosts: int
) -> list[IndexTask]:
    paths = [shard.path for shard in source.shards[host::hosts]]
    key = source.features.key if keys else None
    sizes = map_in_threads(file_size, paths)
    return [IndexTask(*row, key) for row in zip(paths, sizes, strict=True)]


def _remove_partial_files(tasks: Sequence[IndexTask]) -> None:
    """Remove partial index files of these shards, which a killed command has left."""
    names = {os.path.basename(task.path) for task in tasks}
    places = {
        os.path.dirname(sidecar_files.sidecar_paths(task.path, "")[0]) for task in tasks
    }
    for folder in places:
        for path in tf.io.gfile.glob(os.path.join(folder, f"{PARTIAL_PREFIX}*.npy")):
            # .partial-{32 hexadecimal digits}-{shard}.{kind}.npy
            shard = os.path.basename(path)[len(PARTIAL_PREFIX) :].partition("-")[2]
            if any(shard.startswith(f"{name}.") for name in names):
                tf.io.gfile.remove(path)


def _check_faults(faults: Sequence[str]) -> None:
    if faults:
        more = f" ({len(faults)} shards are damaged)" if len(faults) > 1 else ""
        raise ValueError(
            f"{'; '.join(faults[:_NAMED])}{more}. All other shards have their index "
            "files. Fix or remove the damaged ones. If records have no such key, give "
            "another by --key, or none by --no-keys."
        )


def _count_subsets(source: TFRecords, fractions: Sequence[float]) -> dict[str, int]:
    index, features = source.index(), source.features
    subsets = {f: select_subset(index, features, fraction=f) for f in fractions}
    return {str(f): (subset or index).num_records for f, subset in subsets.items()}
