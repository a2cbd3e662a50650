"""Measure the images/s of writing TFRecords and of copying the same bytes."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.checks import check_at_least
from vit_scaling.commands.benchmarks import alternation, records
from vit_scaling.commands.benchmarks.records import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `benchmark.py writing`."""
    parser.add_argument(
        "--source", metavar="SOURCE", required=True, help="as for write_tfrecords.py"
    )
    parser.add_argument("--split", default="train", help="split of digits or TFDS")
    parser.add_argument("--workers", type=int, help="processes; default: one per core")
    parser.add_argument("--num_shards", type=int, default=16)
    parser.add_argument(
        "--folder",
        metavar="FOLDER",
        help="folder on the disk to measure; default: a temporary one",
    )
    parser.add_argument(
        "--rounds", type=int, default=2, help="repetitions; the best counts"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure copying, checking and writing alternately."""
    from vit_scaling.data.writing.image_sources import parse_source

    check_at_least(1, **{"--rounds": args.rounds})
    source = parse_source(args.source, split=args.split)
    entries = source.entries()
    _copy(source, entries, os.devnull)  # Now the files are in the page cache.
    rates: dict[str, list[float]] = {"copy": [], "check": [], "write": []}
    total = 0
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for number in range(args.rounds):
            begin = time.perf_counter()
            total = _copy(source, entries, os.path.join(folder, "copy"))
            rates["copy"].append(len(entries) / (time.perf_counter() - begin))
            rates["check"].append(_check_rate(source, entries))
            begin = time.perf_counter()
            _write(source, args, os.path.join(folder, str(number)))
            rates["write"].append(len(entries) / (time.perf_counter() - begin))
    best = {name: max(values) for name, values in rates.items()}
    return {
        "images": len(entries),
        "mean_image_bytes": total / len(entries),
        "cores": os.cpu_count(),
        "copy_images_per_second": best["copy"],
        "write_images_per_second": best["write"],
        "write_share_of_copy": best["write"] / best["copy"],
        # Decoding, which copying does not do.
        "check_images_per_second_per_core": best["check"],
        "images_per_second": {
            name: alternation.spread(values) for name, values in rates.items()
        },
        "rate_over_copy": {
            name: alternation.ratio_spread(values, rates["copy"])
            for name, values in rates.items()
        },
    }


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return the rates of writing and of checking, next to copying."""
    programs = {
        "copy": "copy the same bytes",
        "check": "decode, one core",
        "write": "write TFRecords",
    }
    rows = [
        {"program": programs[name], **rates, "over": result["rate_over_copy"][name]}
        for name, rates in result["images_per_second"].items()
    ]
    columns = {"program": "program", **records.RATES, "over": "rate over copying"}
    title = "Writing TFRecords next to copying"
    return [records.make_table("writing", "Data", title, columns, rows)]


def _copy(source: Any, entries: Sequence[Any], path: str) -> int:
    """Copy all images into one file, flush it, and return its size in bytes."""
    total = 0
    with open(path, "wb") as file:
        for entry in entries:
            total += file.write(source.read(entry))
        file.flush()
        if path != os.devnull:
            os.fsync(file.fileno())
    return total


def _check_rate(source: Any, entries: Sequence[Any], at_most: int = 500) -> float:
    from vit_scaling.data.writing.image_checks import UnusableImage, check_image

    some = [source.read(entry) for entry in entries[:at_most]]
    begin = time.perf_counter()
    for encoded in some:
        try:
            check_image(encoded, max_pixels=100_000_000)
        except UnusableImage:
            continue
    return len(some) / (time.perf_counter() - begin)


def _write(source: Any, args: argparse.Namespace, folder: str) -> None:
    from vit_scaling.data.writing.split_writer import write_tfrecords

    write_tfrecords(
        source,
        output_dir=folder,
        split=args.split,
        num_shards=args.num_shards,
        workers=args.workers,
    )
