"""Write images into verified TFRecord shards, in parallel, resumable."""
# SPDX-License-Identifier: Apache-2.0

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    made = cli.make_parser(__doc__ or "")
    made.add_argument(
        "--source",
        required=True,
        help="folder:PATH (a subfolder per class), csv:FILE (columns path, labels; "
        "several by ;), tar:GLOB, tfds:NAME[:SPLIT], tfrecords:PATTERN, digits",
    )
    made.add_argument("--output_dir", required=True, help="folder of the set")
    made.add_argument("--split", default="train", help="begins the shards' names")
    made.add_argument("--num_shards", type=int, help="default: by --shard_mib")
    made.add_argument("--shard_mib", type=int, default=200, help="wanted shard size")
    made.add_argument("--workers", type=int, help="processes; default: one per core")
    made.add_argument("--reencode", choices=["jpeg", "png"], help="write images anew")
    made.add_argument("--quality", type=int, default=95, help="of re-encoded JPEGs")
    made.add_argument("--max_pixels", type=int, default=100_000_000)
    made.add_argument("--min_side", type=int, default=1, help="smaller: left out")
    made.add_argument("--keep_order", action="store_true", help="do not shuffle")
    made.add_argument("--overwrite", action="store_true", help="a finished split too")
    made.add_argument("--tfds_data_dir", help="TFDS' folder")
    made.add_argument("--fraction", type=float, help="nested subset of a finished set")
    made.add_argument("--num_images", type=int, help="the same, by number")
    cli.add_feature_flags(made)
    made.add_argument("--runner", help="write with Apache Beam on this runner")
    made.add_argument(
        "--beam_option", action="append", default=[], help="NAME=VALUE for the runner"
    )
    return cli.run(made, argv, _write, _show)


def _write(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from vit_scaling.data.writing import image_sources, shard_writer, split_writer

    source = image_sources.parse_source(
        arguments.source,
        split=arguments.split,
        tfds_data_dir=arguments.tfds_data_dir,
        fraction=arguments.fraction,
        num_images=arguments.num_images,
        features=cli.features_from_flags(arguments),
    )
    settings = shard_writer.Settings(
        max_pixels=arguments.max_pixels,
        min_side=arguments.min_side,
        reencode=arguments.reencode,
        quality=arguments.quality,
        shuffle=not arguments.keep_order,
    )
    options: dict[str, Any] = {
        "output_dir": arguments.output_dir,
        "split": arguments.split,
        "num_shards": arguments.num_shards,
        "shard_bytes": arguments.shard_mib * 2**20,
        "settings": settings,
        "overwrite": arguments.overwrite,
    }
    if arguments.runner:
        from vit_scaling.data.writing import beam_driver

        return beam_driver.write_with_beam(
            source, runner=arguments.runner, options=arguments.beam_option, **options
        )
    return split_writer.write_tfrecords(
        source,
        workers=arguments.workers,
        progress=cli.make_progress_printer(),
        **options,
    )


def _show(manifest: Mapping[str, Any]) -> str:
    lines = [
        f"{manifest['records']} images of {len(manifest['class_counts'])} classes in "
        f"{len(manifest['shards'])} shards, {manifest['bytes'] / 2**20:.1f} MiB.",
    ]
    if manifest["left_out"]:
        lines.append(f"{manifest['left_out']} images left out:")
        named = manifest["left_out_named"][:20]
        lines += [f"  {row['key']}: {row['reason']}" for row in named]
    return "\n".join(lines)
