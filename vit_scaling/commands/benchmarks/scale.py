"""Measure what grows with a set: memory of subsets and writers, graphs, indexing."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import concurrent.futures
import contextlib
import dataclasses
import glob
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

from vit_scaling.commands.benchmarks import alternation, records
from vit_scaling.commands.benchmarks.process_memory import (
    call_in_fresh_process,
    status_bytes,
)
from vit_scaling.commands.benchmarks.records import Table

PACKAGES = (*records.PACKAGES, "apache-beam")
# Titles and columns of the tables, by the keys of a result.
TABLES = {
    "sets": (
        "What grows with the records of a set",
        records.titles(
            *("records", "host_peak_mib", "host_subset_peak_mib"),
            *("first_count_peak_mib", "service_graph_bytes"),
            *("launcher_peak_mib", "beam_pipeline_bytes"),
        ),
    ),
    "search": (
        "Search for near-duplicates among evaluation images",
        records.titles("evaluation_images", "cpu_ms_per_training_image"),
    ),
    "listing": (
        "Launcher of a Beam writer",
        records.titles("images", "launcher_growth_mib", "cpu_us_per_image"),
    ),
    "indexing": (
        "Indexing records next to reading the same files",
        {"program": "program", **records.SECONDS, "over": "time over plain reading"},
    ),
}
_HOSTS, _FRACTION, _SHARD_RECORDS = 64, 0.1, 100_000
_RECORD_BYTES = 100_000
_ROUNDS, _PIECE_BYTES = 5, 2**20
_EVALUATION_HASHES, _TRAINING_HASHES, _QUERIES = 40, 12, 200  # Hashes of an image.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `benchmark.py scale`."""
    parser.add_argument(
        "--records",
        type=int,
        nargs="*",
        default=[1_000_000, 10_000_000, 100_000_000],
        help="sizes of sets of nothing but index files, 16 bytes a record",
    )
    parser.add_argument(
        "--evaluation_images",
        type=int,
        nargs="*",
        default=[],
        help="sizes of evaluation sets in whose hashes to search",
    )
    parser.add_argument(
        "--images",
        type=int,
        nargs="*",
        default=[],
        help="numbers of images for Beam to write, which are listed but not written",
    )
    parser.add_argument(
        "--pattern", metavar="TRAIN", help="shards whose indexing to measure too"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count())


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure sets of each size; then the indexing of a real one."""
    result: dict[str, Any] = {"sets": [_measure_set(n) for n in args.records]}
    result["search"] = [_measure_search(n) for n in args.evaluation_images]
    result["listing"] = [
        call_in_fresh_process(_measure_listing, n) for n in args.images
    ]
    if args.pattern:
        result["indexing"] = _measure_indexing(args.pattern, args.workers)
    return result


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return a table of each measurement; indexing is next to plain reading."""
    rows = {**result, "indexing": result.get("indexing", {}).get("programs")}
    return [
        records.make_table(f"scale_{key}", "Data", title, columns, rows[key])
        for key, (title, columns) in TABLES.items()
        if rows[key]
    ]


def _measure_set(records: int) -> dict[str, float]:
    from vit_scaling.data.image_data import Host
    from vit_scaling.data.pipeline import TrainData
    from vit_scaling.data.tfrecords import TFRecords

    with tempfile.TemporaryDirectory() as folder:
        source = TFRecords(_write_index(folder, records))
        host = Host(0, _HOSTS, _HOSTS)

        def data(**options: Any) -> TrainData:
            return TrainData(source, image_size=8, classes=1, **options)

        subset = data(fraction=_FRACTION)
        subset.block_table(host)  # What is stored at first is stored now.
        row = {
            "records": records,
            "subset_images": subset.num_examples,
            "host_peak_mib": _peak_mib(lambda: data().block_table(host)),
            "host_subset_peak_mib": _peak_mib(
                lambda: data(fraction=_FRACTION).block_table(host)
            ),
            "first_count_peak_mib": _peak_mib(
                lambda: data(num_images=records // 9).num_examples
            ),
        }
        row["service_graph_bytes"] = _measure_graph(data(service="localhost:1"))
        row |= _measure_beam(source, folder)
        return row


def _measure_graph(data: Any) -> int:
    """Return the bytes of the graph that a worker would get."""
    import tensorflow as tf

    service = tf.data.experimental.service
    distribute = service.distribute
    service.distribute = lambda **_: lambda dataset: dataset
    try:
        dataset = data.dataset(batch_size=1, seed=0)
        return len(dataset._as_serialized_graph().numpy())
    finally:
        service.distribute = distribute


def _peak_mib(function: Callable[[], Any]) -> float:
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def _write_index(folder: str, records: int) -> str:
    """Write a manifest and index files of shards that are nothing but holes."""
    import numpy as np

    from vit_scaling.data import sidecar_files
    from vit_scaling.data.tfrecords import shard_name

    generator = np.random.default_rng(0)
    shards, rows = -(-records // _SHARD_RECORDS), []
    for number in range(shards):
        count = min(_SHARD_RECORDS, records - number * _SHARD_RECORDS)
        name = shard_name("train", number, shards)
        path = os.path.join(folder, name)
        offsets = np.arange(count + 1, dtype=np.uint64) * _RECORD_BYTES
        size = int(offsets[-1])
        with open(path, "wb") as file:
            file.truncate(size)
        hashes = generator.integers(2**64, size=count, dtype=np.uint64)
        kind = sidecar_files.key_hashes_kind("image/filename", size)
        sidecar_files.write_sidecar(path, kind, hashes)
        sidecar_files.write_sidecar(path, sidecar_files.OFFSETS, offsets)
        rows.append({"file": name, "records": count, "bytes": size})
    manifest = os.path.join(folder, "train.manifest.json")
    with open(manifest, "w", encoding="utf-8") as file:
        json.dump({"shards": rows}, file)
    return manifest


def _measure_beam(source: Any, folder: str) -> dict[str, float]:
    """Measure the launcher of a removal of near-duplicates with Beam.

    The pipelines are measured instead of run. Reports of copied shards without one in
    100 images are stored as workers would store them.
    """
    try:
        import apache_beam as beam
    except ImportError:
        return {}
    from vit_scaling.data.deduplication import beam_driver, cleaning
    from vit_scaling.data.deduplication.search import Search

    sizes = []
    driver = beam_driver.BeamDriver("none", [], os.path.join(folder, "output"))

    class Unrun:
        """A pipeline that is measured instead of run."""

        def __enter__(self) -> Any:
            self.pipeline = beam.Pipeline()
            return self.pipeline

        def __exit__(self, *_: object) -> None:
            sizes.append(len(self.pipeline.to_runner_api().SerializeToString()))
            for path in glob.glob(os.path.join(driver.output_dir, ".beam", "copies-*")):
                if not path.endswith(".arrays"):
                    _store_copies(path, source)

    make_pipeline = beam_driver.make_pipeline
    beam_driver.make_pipeline = lambda *_: Unrun()
    search = Search(source, [], include_internal=True)
    options: Any = {"output_dir": driver.output_dir, "report": False, "driver": driver}
    try:
        peak = _peak_mib(lambda: cleaning.clean(search, **options))
    finally:
        beam_driver.make_pipeline = make_pipeline
    return {"launcher_peak_mib": peak, "beam_pipeline_bytes": sum(sizes)}


def _store_copies(path: str, source: Any) -> None:
    """Store the reports of copied shards from which one in 100 images is removed."""
    from vit_scaling.data.deduplication import beam_driver
    from vit_scaling.data.deduplication.search import TRAINING_SET, Removal
    from vit_scaling.data.deduplication.shard_copying import CopiedShard

    for number, shard in enumerate(source.shards):
        first = int(source.index().starts[number])
        removals = [
            Removal(record, TRAINING_SET, 0, 3, 0.99)
            for record in range(first, first + shard.records, 100)
        ]
        name = os.path.basename(shard.path)
        lines = "".join(f"{name},{r.record},key,{name},0,key,3\n" for r in removals)
        row = {"file": name, "records": shard.records, "bytes": 0, "sha256": "0" * 64}
        row["removed"] = len(removals)
        copied = CopiedShard(row, {0: shard.records}, removals, lines, 0)
        beam_driver._write(beam_driver._copy_path(path, number), copied)


def _measure_search(images: int) -> dict[str, float]:
    """Measure the search for candidates among random hashes of evaluation images."""
    import numpy as np

    from vit_scaling.data.deduplication.matching import HashIndex

    generator = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return generator.integers(2**64, size=shape, dtype=np.uint64)

    hashes = draw(images * _EVALUATION_HASHES)
    index = HashIndex(hashes, np.full_like(hashes, 2**64 - 1))
    queries = draw(_QUERIES, _TRAINING_HASHES)
    begin = time.process_time()
    for query in queries:
        index.search(query, np.full_like(query, 2**64 - 1), 10)
    seconds = time.process_time() - begin
    return {
        "evaluation_images": images,
        "cpu_ms_per_training_image": 1000 * seconds / _QUERIES,
    }


def _measure_listing(images: int) -> dict[str, float]:
    """Measure a writer's launcher until its workers would start."""
    from vit_scaling.data.writing import image_entries, split_writer

    @dataclasses.dataclass(frozen=True)
    class Numbered(image_entries.ListedSource):
        """A source of images that are only names."""

        def _list(self) -> image_entries.Listing:
            listing = image_entries.Listing(class_names=("0",))
            for number in range(images):
                path = f"/data/images/{number:012d}.jpg"
                entry = image_entries.Entry(path[6:], ("0",), path, _RECORD_BYTES)
                listing.use(entry)
            return listing

        def read(self, entry: image_entries.Entry) -> bytes:
            raise NotImplementedError

    class Listed(Exception):
        """Ends the writer."""

    def stop(tasks: Any) -> None:
        raise Listed

    before, begin = status_bytes("VmHWM"), time.process_time()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Listed):
        split_writer.write_tfrecords(
            Numbered(), output_dir=folder, split="train", write_shards=stop
        )
    return {
        "images": images,
        "launcher_growth_mib": (status_bytes("VmHWM") - before) / 2**20,
        "cpu_us_per_image": 1e6 * (time.process_time() - begin) / images,
    }


def _measure_indexing(pattern: str, workers: int) -> dict[str, Any]:
    """Measure indexing in turn with reading the same files, in as many processes.

    Returns:
        MiB/s, and the medians of its ratios: to reading alone, the disk's limit, and to
        TensorFlow's reader of records, which checks the checksums too; and a row of the
        table for each program.
    """
    from vit_scaling.data.tfrecords import TFRecords

    paths = [shard.path for shard in TFRecords(pattern).shards]
    mib = sum(map(os.path.getsize, paths)) / 2**20
    functions = {
        "plain reading": _read,
        "TensorFlow's reader of records": _read_records,
        "indexing": _index,
    }
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        concurrent.futures.ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context("spawn")
        ) as pool,
    ):
        copies = [shutil.copy(path, folder) for path in paths]
        for number in range(_ROUNDS + 1):
            seconds = []
            for function in functions.values():
                begin = time.perf_counter()
                list(pool.map(function, copies))
                seconds.append(time.perf_counter() - begin)
            if number:  # In the first round, processes start and import.
                rows.append(seconds)
    return {
        "workers": workers,
        "mib": mib,
        "mib_per_second": statistics.median(mib / row[2] for row in rows),
        "rate_over_reading": statistics.median(row[0] / row[2] for row in rows),
        "rate_over_reading_records": statistics.median(row[1] / row[2] for row in rows),
        "programs": [
            {
                "program": name,
                **alternation.spread(seconds),
                "over": alternation.ratio_spread(seconds, [row[0] for row in rows]),
            }
            for name, seconds in zip(functions, zip(*rows, strict=True), strict=True)
        ],
    }


def _forget(path: str) -> None:
    """Drop a file's pages from memory, so that the disk reads them again."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read(path: str) -> None:
    _forget(path)
    with open(path, "rb", buffering=0) as file:
        while file.read(_PIECE_BYTES):
            pass


def _read_records(path: str) -> None:
    import tensorflow as tf

    _forget(path)
    records = tf.data.TFRecordDataset(path, buffer_size=_PIECE_BYTES)
    for _ in records.batch(100):
        pass


def _index(path: str) -> None:
    from vit_scaling.data.writing import indexing

    _forget(path)
    task = indexing.IndexTask(path, os.path.getsize(path), "image/filename")
    indexing.index_shard(task, lambda _: None)
