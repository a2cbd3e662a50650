"""Measure the training pipeline's images/s next to decoding alone and a plain loop."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import functools
import os
import statistics
import time
import types
from collections.abc import Mapping
from typing import Any

from vit_scaling.commands.benchmarks import records
from vit_scaling.commands.benchmarks.alternation import ratio_spread, spread
from vit_scaling.commands.benchmarks.process_memory import (
    call_in_fresh_process,
    status_bytes,
)
from vit_scaling.commands.benchmarks.records import Table

_ROUNDS = 4
PROGRAMS = {
    "limit": "decode from memory",
    "plain_loop": "plain loop",
    "pipeline": "this package",
}
_WINDOWS = 6  # To read when memory is measured: about three are in memory.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `benchmark.py pipeline`."""
    parser.add_argument(
        "--pattern", metavar="TRAIN", required=True, help="manifest or glob of shards"
    )
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
    parser.add_argument(
        "--memory_rounds",
        type=int,
        default=0,
        help="only measure the memory of the pipeline, so often at each of --times",
    )
    parser.add_argument(
        "--read_latency_ms",
        type=float,
        nargs="*",
        default=[],
        help="delays of every read to compare with none; needs a checkout and g++",
    )
    parser.add_argument(
        "--read_ahead_mib",
        type=int,
        default=128,
        help="memory for blocks that are read at the same time, with a delay",
    )
    parser.add_argument(
        "--open_shards",
        type=int,
        default=0,
        help="also open a set of so many shards at each --read_latency_ms",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the limit, the pipeline at each multiple of the data, and resuming."""
    from vit_scaling.commands.benchmarks import read_latency
    from vit_scaling.data.tfrecords import TFRecords

    source = TFRecords(args.pattern)
    if args.memory_rounds:
        source.index()  # Stores the positions of the records.
        runs = [times for _ in range(args.memory_rounds) for times in args.times]
        return {
            "memory": [call_in_fresh_process(_measure_memory, args, n) for n in runs]
        }
    images = _read_images(source)
    rows = []
    for times in args.times:
        data = _make_data(_repeat(source, times), args)
        pipeline, start_seconds = _start(data, args)
        iterators = {
            "limit": iter(_decode_from_memory(images, args)),
            "plain_loop": iter(_plain_loop(source, args)),
            "pipeline": pipeline,
        }
        row = _measure_alternately(iterators, args)
        rows.append(
            {
                "times": times,
                "images": data.num_examples,
                **row,
                "first_batch_seconds": start_seconds,
                "resident_mib": _resident_mib(),
            }
        )
    data = _make_data(source, args)
    resume = {str(step): _start(data, args, step)[1] for step in (10, 1_000_000)}
    result = {
        "stages": _measure_reading(data, args),
        "pipeline": rows,
        "resume_seconds_at_step": resume,
        "mean_image_bytes": sum(map(len, images)) / len(images),
        "cores": os.cpu_count(),
    }
    if args.read_latency_ms:
        result["read_latency"] = read_latency.measure(args)
    if args.open_shards:
        result["opening"] = read_latency.measure_opening(
            args.open_shards, args.read_latency_ms
        )
    return result


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return rates next to decoding alone and a plain loop; memory; reading."""
    from vit_scaling.commands.benchmarks import read_latency

    if "memory" in result:
        columns = records.titles("images", "before_mib", "peak_mib")
        title, rows = "Peak memory of the pipeline's process", result["memory"]
        return [records.make_table("pipeline_memory", "Data", title, columns, rows)]
    rates = [
        {
            "images": row["images"],
            "program": label,
            **row["images_per_second"][name],
            "cpu": row[f"{name}_cpu_ms_per_image"],
            "over": row["rate_over"][name],
        }
        for row in result["pipeline"]
        for name, label in PROGRAMS.items()
    ]
    columns = {"images": "images", "program": "program", **records.RATES}
    columns |= {"cpu": "processor ms per image", "over": "the pipeline's rate over it"}
    title = "The training pipeline next to decoding alone and a plain loop"
    stages = {
        "read and shuffle, images/s": result["stages"][
            "read_and_shuffle_images_per_second"
        ],
        **{
            f"first batch from step {int(step):,}, s": seconds
            for step, seconds in result["resume_seconds_at_step"].items()
        },
    }
    stage_rows = [{"name": name, "value": value} for name, value in stages.items()]
    names = {"name": "stage", "value": "value"}
    return [
        records.make_table("pipeline_rates", "Data", title, columns, rates),
        records.make_table(
            "pipeline_stages", "Data", "Stages of the pipeline", names, stage_rows
        ),
        *read_latency.tables(result),
    ]


def _read_images(source: Any, at_most: int = 2000) -> list[bytes]:
    """Return encoded images of a set, to measure decoding from memory."""
    from vit_scaling.data.examples import feature_values, read_example

    index = source.index()
    step = max(1, index.num_records // at_most)
    key = source.features.image
    numbers = range(0, index.num_records, step)
    return [feature_values(read_example(index, n), key)[0] for n in numbers]


def _decode_from_memory(images: list[bytes], args: argparse.Namespace) -> Any:
    """Return the limit: crop, decode, resize and flip images in memory, on all cores.

    Nothing is read, parsed, copied into batches or put in an order.
    """
    import tensorflow as tf

    from vit_scaling.data.preprocessing import InceptionCrop

    crop = InceptionCrop()
    with tf.device("/cpu:0"):
        encoded_images = tf.constant(images)

    def crop_one(number: tf.Tensor) -> tf.Tensor:
        encoded = encoded_images[number % len(images)]
        seed = tf.stack([number, tf.constant(0, tf.int64)])
        return crop(encoded, args.image_size, seed)[0, 0]

    crops = tf.data.Dataset.range(tf.int64.max).map(
        crop_one, num_parallel_calls=os.cpu_count(), deterministic=False
    )
    return crops.batch(args.batch_size)


def _plain_loop(source: Any, args: argparse.Namespace) -> Any:
    """Return batches as most programs make them: shuffled by a buffer, unrepeatable.

    It decodes, crops, resizes, flips, scales and batches the same files, by one map.
    """
    import tensorflow as tf

    size, keys = args.image_size, source.features

    def make_image(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        spec = {
            keys.image: tf.io.FixedLenFeature([], tf.string),
            keys.label: tf.io.VarLenFeature(tf.int64),
        }
        example = tf.io.parse_single_example(record, spec)
        encoded, labels = example[keys.image], example[keys.label].values
        begin, part, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(encoded),
            tf.zeros([1, 0, 4]),
            min_object_covered=0.0,
            aspect_ratio_range=(0.75, 4 / 3),
            area_range=(0.05, 1.0),
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.stack([begin[0], begin[1], part[0], part[1]])
        image = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
        image = tf.image.resize(image, [size, size])
        image = tf.image.random_flip_left_right(image) / 127.5 - 1.0
        return image, tf.reduce_max(tf.one_hot(labels, _classes(source)), axis=0)

    files = [shard.path for shard in source.shards]
    records = tf.data.TFRecordDataset(files).repeat().shuffle(args.shuffle_window)
    images = records.map(make_image, num_parallel_calls=os.cpu_count())
    return images.batch(args.batch_size).prefetch(2)


def _repeat(source: Any, times: int) -> Any:
    """Return a source whose index lists the files `times` times."""
    from vit_scaling.data.record_index import RecordIndex

    return types.SimpleNamespace(
        features=source.features,
        class_names=source.class_names,
        class_names_by_folder=source.class_names_by_folder,
        index=functools.partial(RecordIndex, source.shards * times),
    )


def _make_data(source: Any, args: argparse.Namespace) -> Any:
    from vit_scaling.data.pipeline import TrainData

    return TrainData(
        source,
        image_size=args.image_size,
        classes=_classes(source),
        shuffle_window=args.shuffle_window,
    )


def _classes(source: Any) -> int:
    return max(1000, len(source.class_names or ()))


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


def _measure_alternately(
    iterators: Mapping[str, Any], args: argparse.Namespace
) -> dict[str, Any]:
    """Measure iterators over batches in turn, so that others' load affects all alike.

    Returns:
        Images/s and milliseconds of processor time per image of each, and the
        pipeline's ratios to the others: medians over the rounds, and spreads of rates.
    """
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in iterators}
    for _ in range(_ROUNDS):
        for name, iterator in iterators.items():
            measured[name].append(
                measure(iterator, args.batch_size, args.seconds / _ROUNDS)
            )
    result: dict[str, Any] = {"images_per_second": {}, "rate_over": {}}
    own_rates = [rate for rate, _ in measured["pipeline"]]
    for name, values in measured.items():
        rates, times = zip(*values, strict=True)
        result["images_per_second"][name] = spread(rates)
        result["rate_over"][name] = ratio_spread(own_rates, rates)
        result[f"{name}_images_per_second"] = statistics.median(rates)
        result[f"{name}_cpu_ms_per_image"] = statistics.median(times)
    for other in ("limit", "plain_loop"):
        pairs = list(zip(measured["pipeline"], measured[other], strict=True))
        result[f"rate_over_{other}"] = statistics.median(
            own[0] / its[0] for own, its in pairs
        )
        result[f"cpu_time_over_{other}"] = statistics.median(
            own[1] / its[1] for own, its in pairs
        )
    return result


def measure(iterator: Any, batch_size: int, seconds: float) -> tuple[float, float]:
    """Return images/s, and milliseconds of processor time per image.

    Processor time includes that of filling the buffers again; without it, images that
    were made before would count as free.
    """
    begin_cpu, batches = time.process_time(), 5
    for _ in range(batches):  # The buffers are emptied before the clock starts.
        next(iterator)
    begin, first = time.perf_counter(), batches
    while time.perf_counter() - begin < seconds:
        next(iterator)
        batches += 1
    rate = (batches - first) * batch_size / (time.perf_counter() - begin)
    _wait_until_idle()
    cpu = time.process_time() - begin_cpu
    return rate, 1000 * cpu / (batches * batch_size)


def _wait_until_idle(at_most: float = 30.0) -> None:
    """Return when this process uses no processor time: its buffers are full."""
    end, pause = time.perf_counter() + at_most, 0.25
    while time.perf_counter() < end:
        begin = time.process_time()
        time.sleep(pause)
        if time.process_time() - begin < 0.02 * pause:
            return


def _measure_memory(args: argparse.Namespace, times: int) -> dict[str, float]:
    """Measure the peak memory of this process while it reads some shuffle windows."""
    from vit_scaling.data.tfrecords import TFRecords

    before = status_bytes("VmRSS")
    data = _make_data(_repeat(TFRecords(args.pattern), times), args)
    iterator, _ = _start(data, args)
    for _ in range(_WINDOWS * args.shuffle_window // args.batch_size):
        next(iterator)
    return {
        "times": times,
        "images": data.num_examples,
        "before_mib": before / 2**20,
        "peak_mib": status_bytes("VmHWM") / 2**20,
    }


def _measure_reading(data: Any, args: argparse.Namespace) -> dict[str, float]:
    """Measure reading and shuffling without decoding."""
    import tensorflow as tf

    from vit_scaling.data.image_data import Host

    stream, _ = data.make_stream_and_decoder(Host(), 0)
    chunks = stream.dataset(start=0, epochs=None, chunk_records=args.batch_size)
    batches = chunks.map(lambda chunk: tf.gather(chunk["data"], chunk["rows"]))
    rate, cpu = measure(iter(batches), args.batch_size, args.seconds)
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
