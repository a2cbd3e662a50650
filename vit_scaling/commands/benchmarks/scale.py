"""Measure what grows with a set: memory of subsets, graphs of workers, indexing."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

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
    parser.add_argument("--pattern", help="shards whose indexing to measure too")
    parser.add_argument("--workers", type=int, default=os.cpu_count())


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure sets of each size; then the indexing of a real one."""
    result: dict[str, Any] = {"sets": [_measure_set(n) for n in args.records]}
    result["search"] = [_measure_search(n) for n in args.evaluation_images]
    if args.pattern:
        result["indexing"] = _measure_indexing(args.pattern, args.workers)
    return result


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
    """Measure the pipeline that the launcher builds to search for near-duplicates."""
    try:
        import apache_beam as beam
    except ImportError:
        return {}
    from vit_scaling.data.deduplication import beam_driver
    from vit_scaling.data.deduplication.search import Search

    sizes = []

    class Unrun:
        """A pipeline that is measured instead of run."""

        def __enter__(self) -> Any:
            self.pipeline = beam.Pipeline()
            return self.pipeline

        def __exit__(self, *_: object) -> None:
            sizes.append(len(self.pipeline.to_runner_api().SerializeToString()))

    make_pipeline = beam_driver.make_pipeline
    beam_driver.make_pipeline = lambda *_: Unrun()
    driver = beam_driver.BeamDriver("none", [], os.path.join(folder, "output"))
    search = Search(source, [], include_internal=True)
    try:
        peak = _peak_mib(lambda: driver.run_search(search))
    finally:
        beam_driver.make_pipeline = make_pipeline
    return {"launcher_peak_mib": peak, "beam_pipeline_bytes": sizes[0]}


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


def _measure_indexing(pattern: str, workers: int) -> dict[str, float]:
    """Measure indexing in turn with reading the same files, in as many processes.

    Returns:
        MiB/s, and the medians of its ratios: to reading alone, the disk's limit, and to
        TensorFlow's reader of records, which checks the checksums too.
    """
    from vit_scaling.data.tfrecords import TFRecords

    paths = [shard.path for shard in TFRecords(pattern).shards]
    mib = sum(map(os.path.getsize, paths)) / 2**20
    functions = (_read, _read_records, _index)
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
            for function in functions:
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
