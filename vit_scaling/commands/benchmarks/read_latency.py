"""Measure reading from a slow store, as ratios to the same reads without a delay."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import json
import os
import shutil
import tempfile
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands.benchmarks import delayed_files, records
from vit_scaling.commands.benchmarks.records import Table

_WINDOW = 512  # Records; those that are in memory at first are passed over.
_HOSTS = 64


def measure(args: argparse.Namespace) -> list[dict[str, float]]:
    """Measure the pipeline, and reading alone, at each delay and without one.

    Args:
        args: The flags of `benchmark pipeline`.

    Returns:
        For each delay its images/s, their ratios to no delay, the most bytes requested
        at one moment, and the requests per image.
    """
    rows = [_measure_at(delay, args) for delay in (0.0, *args.read_latency_ms)]
    for row in rows:
        for name in ("pipeline", "reading"):
            key = f"{name}_images_per_second"
            row[f"{name}_over_no_latency"] = row[key] / rows[0][key]
    return rows


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return the tables of the measurements that `benchmark pipeline` has made."""
    contents = {
        "read_latency": (
            "Reading from a slow store",
            *("pipeline_images_per_second", "pipeline_over_no_latency"),
            *("reading_images_per_second", "reading_over_no_latency"),
            "max_mib_in_flight",
        ),
        "opening": (
            "Opening many shards in a slow store",
            *("shards", "index_seconds", "offsets_of_a_host_seconds"),
            *("requests", "memory_bytes_per_shard"),
        ),
    }
    return [
        records.make_table(
            f"pipeline_{key}",
            "Data",
            title,
            records.titles("read_latency_ms", *columns),
            result[key],
        )
        for key, (title, *columns) in contents.items()
        if key in result
    ]


def _measure_at(delay: float, args: argparse.Namespace) -> dict[str, float]:
    import tensorflow as tf

    from vit_scaling.data.image_data import Host
    from vit_scaling.data.pipeline import TrainData
    from vit_scaling.data.tfrecords import TFRecords

    delayed_files.set_delay(delay)
    data = TrainData(
        TFRecords(delayed_files.delayed_path(args.pattern)),
        image_size=args.image_size,
        classes=1000,
        shuffle_window=_WINDOW,
        read_ahead_bytes=args.read_ahead_mib * 2**20,
    )
    row = {"read_latency_ms": delay}
    batches = data.dataset(batch_size=args.batch_size, seed=0)
    row["pipeline_images_per_second"] = _rate(batches, args)
    stream, _ = data.make_stream_and_decoder(Host(), 0)
    chunks = stream.dataset(start=0, epochs=None, chunk_records=args.batch_size)
    records = chunks.map(lambda chunk: tf.gather(chunk["data"], chunk["rows"]))
    delayed_files.take_max_bytes_in_flight()
    row["reading_images_per_second"] = _rate(records, args)
    row["max_mib_in_flight"] = delayed_files.take_max_bytes_in_flight() / 2**20
    delayed_files.set_delay(0)
    return row


def _rate(batches: Any, args: argparse.Namespace) -> float:
    """Return images/s after three windows."""
    iterator = iter(batches)
    for _ in range(3 * _WINDOW // args.batch_size + 1):
        next(iterator)
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < args.seconds:
        next(iterator)
        count += args.batch_size
    return count / (time.perf_counter() - begin)


def measure_opening(shards: int, delays: Sequence[float]) -> list[dict[str, float]]:
    """Measure how long a set of many shards takes before the first read of a record.

    Args:
        shards: Number of shards, each of one record and with the writer's index file.
        delays: Milliseconds of each look-up and read.

    Returns:
        For each delay the seconds in which the manifest is read and all shards are
        looked up, then those in which one of 64 hosts reads its offsets; and the bytes
        of memory for each shard.
    """
    with tempfile.TemporaryDirectory() as folder:
        manifest = delayed_files.delayed_path(_write_set(folder, shards))
        return [_measure_opening_at(delay, manifest, shards) for delay in delays]


def _write_set(folder: str, shards: int) -> str:
    """Write a set whose shards are one file under many names; return its manifest."""
    import numpy as np
    import tensorflow as tf

    from vit_scaling.data import sidecar_files
    from vit_scaling.data.tfrecords import shard_name

    names = [shard_name("train", number, shards) for number in range(shards)]
    first = os.path.join(folder, names[0])
    with tf.io.TFRecordWriter(first) as writer:
        writer.write(b"a record")
    size = os.path.getsize(first)
    sidecar_files.write_sidecar(first, sidecar_files.OFFSETS, np.array([0, size]))
    (offsets, _) = sidecar_files.sidecar_paths(first, sidecar_files.OFFSETS)
    for name in names[1:]:
        path = os.path.join(folder, name)
        shutil.copyfile(first, path)
        sidecar = sidecar_files.sidecar_paths(path, sidecar_files.OFFSETS)[0]
        shutil.copyfile(offsets, sidecar)
    rows = [{"file": name, "records": 1, "bytes": size} for name in names]
    manifest = os.path.join(folder, "train.manifest.json")
    with open(manifest, "w", encoding="utf-8") as file:
        json.dump({"shards": rows}, file)
    return manifest


def _measure_opening_at(delay: float, manifest: str, shards: int) -> dict[str, float]:
    from vit_scaling.data.block_table import make_block_table
    from vit_scaling.data.tfrecords import TFRecords

    delayed_files.set_delay(delay)
    delayed_files.take_requests()
    delayed_files.take_max_requests_in_flight()
    begin = time.perf_counter()
    index = TFRecords(manifest).index()
    opened = time.perf_counter()
    make_block_table(index, block_records=16, parts=_HOSTS)
    end = time.perf_counter()
    requests = delayed_files.take_requests()
    delayed_files.set_delay(0)
    tracemalloc.start()
    kept = TFRecords(manifest)
    kept.index()
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return {
        "read_latency_ms": delay,
        "shards": shards,
        "index_seconds": opened - begin,
        "offsets_of_a_host_seconds": end - opened,
        "requests": requests,
        "max_requests_in_flight": delayed_files.take_max_requests_in_flight(),
        "memory_bytes_per_shard": used / shards,
    }
