"""Measure the training pipeline's images/s and compare with decoding alone."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import functools
import os
import time
import types
from typing import Any

CROP_SEEDS = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `benchmark.py pipeline`."""
    parser.add_argument("--pattern", required=True, help="manifest or glob of shards")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument(
        "--seconds", type=float, default=20, help="duration of a measurement"
    )
    parser.add_argument("--shuffle_window", type=int, default=2048)
    parser.add_argument(
        "--times",
        type=int,
        nargs="*",
        default=[1, 10, 100],
        help="numbers of repetitions of the set's files to measure",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the limit, the pipeline at each multiple of the data, and resuming."""
    from vit_scaling.data.tfrecords import TFRecords

    source = TFRecords(args.pattern)
    images = _read_images(source)
    rows = []
    for times in args.times:
        limit, limit_cpu = _measure_decoding(images, args)  # The speed varies.
        data = _make_data(_repeat(source, times), args)
        iterator, start_seconds = _start(data, args)
        rate, cpu = _measure(iterator, args)
        rows.append(
            {
                "times": times,
                "images": data.num_examples,
                "limit_images_per_second": limit,
                "images_per_second": rate,
                "share_of_limit": rate / limit,
                "limit_cpu_ms_per_image": limit_cpu,
                "cpu_ms_per_image": cpu,
                "share_of_limit_by_cpu_time": limit_cpu / cpu,
                "first_batch_seconds": start_seconds,
                "resident_mib": _resident_mib(),
            }
        )
    data = _make_data(source, args)
    resume = {str(step): _start(data, args, step)[1] for step in (10, 1_000_000)}
    return {
        "stages": _measure_reading(data, args),
        "pipeline": rows,
        "resume_seconds_at_step": resume,
        "mean_image_bytes": sum(map(len, images)) / len(images),
        "cores": os.cpu_count(),
    }


def _read_images(source: Any, at_most: int = 2000) -> list[bytes]:
    """Return encoded images of a set, to measure decoding from memory."""
    from vit_scaling.data.examples import feature_values, read_example

    index = source.index()
    step = max(1, index.num_records // at_most)
    key = source.features.image
    numbers = range(0, index.num_records, step)
    return [feature_values(read_example(index, n), key)[0] for n in numbers]


def _measure_decoding(
    images: list[bytes], args: argparse.Namespace
) -> tuple[float, float]:
    """Measure only decode-and-crop and resize, on all cores."""
    import tensorflow as tf

    from vit_scaling.data.preprocessing import InceptionCrop

    crop = InceptionCrop()
    with tf.device("/cpu:0"):
        encoded_images = tf.constant(images)

    def crop_one(number: tf.Tensor) -> tf.Tensor:
        encoded = encoded_images[number % len(images)]
        seed = tf.stack([number, tf.constant(0, tf.int64)])
        return tf.reduce_max(crop(encoded, args.image_size, seed))

    crops = tf.data.Dataset.range(CROP_SEEDS).map(
        crop_one, num_parallel_calls=os.cpu_count(), deterministic=False
    )
    return _measure(iter(crops.batch(args.batch_size)), args)


def _repeat(source: Any, times: int) -> Any:
    """Return a source whose index lists the files `times` times."""
    from vit_scaling.data.record_index import RecordIndex

    return types.SimpleNamespace(
        features=source.features,
        class_names=source.class_names,
        index=functools.partial(RecordIndex, source.shards * times),
    )


def _make_data(source: Any, args: argparse.Namespace) -> Any:
    from vit_scaling.data.pipeline import TrainData

    return TrainData(
        source,
        image_size=args.image_size,
        classes=max(1000, len(source.class_names or ())),
        shuffle_window=args.shuffle_window,
    )


def _start(
    data: Any, args: argparse.Namespace, start_step: int = 0
) -> tuple[Any, float]:
    """Return an iterator over batches, and the seconds that the first batch took."""
    begin = time.perf_counter()
    iterator = iter(
        data.dataset(batch_size=args.batch_size, seed=0, start_step=start_step)
    )
    next(iterator)
    return iterator, time.perf_counter() - begin


def _measure(iterator: Any, args: argparse.Namespace) -> tuple[float, float]:
    """Return images/s, and milliseconds of processor time per image."""
    for _ in range(5):  # The buffers fill before the clock starts.
        next(iterator)
    begin, begin_cpu, batches = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begin < args.seconds:
        next(iterator)
        batches += 1
    images = batches * args.batch_size
    cpu = time.process_time() - begin_cpu
    return images / (time.perf_counter() - begin), 1000 * cpu / images


def _measure_reading(data: Any, args: argparse.Namespace) -> dict[str, float]:
    """Measure reading and shuffling without decoding."""
    import tensorflow as tf

    from vit_scaling.data.image_data import Host

    stream, _ = data.make_stream_and_decoder(Host(), 0)
    chunks = stream.dataset(start=0, epochs=None, chunk_records=args.batch_size)
    batches = chunks.map(lambda chunk: tf.gather(chunk["data"], chunk["rows"]))
    rate, cpu = _measure(iter(batches), args)
    return {
        "read_and_shuffle_images_per_second": rate,
        "read_and_shuffle_cpu_ms_per_image": cpu,
    }


def _resident_mib() -> float:
    """Return this process's current memory (Linux) or its maximum (elsewhere)."""
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
