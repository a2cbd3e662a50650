"""Write images into checked TFRecord shards, in parallel, resumable."""
# SPDX-License-Identifier: Apache-2.0

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = cli.make_parser(__doc__ or "")
    add = parser.add_argument
    add(
        "--source",
        required=True,
        help="folder:PATH (a subfolder per class), csv:FILE (columns path, labels; "
        "several by ;), tar:GLOB, tfds:NAME[:SPLIT], tfrecords:PATTERN, digits, and "
        "ImageNet's test sets as published: imagenet-val:FOLDER, -real, -v2, -a, -r, "
        "-sketch, objectnet:FOLDER",
    )
    add("--output_dir", required=True, help="folder of the set")
    add("--split", default="train", help="prefix of the shards' names")
    add("--num_shards", type=int, help="default: by --shard_mib")
    add("--shard_mib", type=int, default=200, help="wanted shard size, MiB")
    add("--workers", type=int, help="processes; default: one per core")
    add = parser.add_argument_group("images").add_argument
    add("--reencode", choices=["jpeg", "png"], help="re-encode all images")
    add("--quality", type=int, default=95, help="of re-encoded JPEGs")
    add(
        "--max_pixels", type=int, default=100_000_000, help="larger images are left out"
    )
    add(
        "--min_side",
        type=int,
        default=1,
        help="images with a smaller side, in pixels, are left out",
    )
    add("--keep_order", action="store_true", help="do not shuffle")
    add("--overwrite", action="store_true", help="write a finished split again")
    add = parser.add_argument_group("sources of TFDS and TFRecords").add_argument
    add("--tfds_data_dir", help="TFDS' folder")
    add("--fraction", type=float, help="nested subset of an existing set")
    add("--num_images", type=int, help="the same as a number of images")
    cli.add_feature_flags(add)
    add = parser.add_argument_group("Apache Beam").add_argument
    add("--runner", help="write with Apache Beam on this runner")
    add("--beam_option", action="append", default=[], help="NAME=VALUE for the runner")
    return cli.run(parser, argv, _write, _format)


def _write(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from vit_scaling.data.writing.source_names import check_source

    check_source(arguments.source)  # Before TensorFlow is imported.
    from vit_scaling.data.writing import image_sources, shard_writer, split_writer

    subset = cli.select_flags(arguments, "fraction", "num_images")
    source = image_sources.parse_source(
        arguments.source,
        split=arguments.split,
        tfds_data_dir=arguments.tfds_data_dir,
        features=cli.features_from_flags(arguments),
        **subset,
    )
    checks = ("max_pixels", "min_side", "reencode", "quality")
    settings = shard_writer.Settings(
        **cli.select_flags(arguments, *checks), shuffle=not arguments.keep_order
    )
    outputs = ("output_dir", "split", "num_shards", "overwrite")
    options: dict[str, Any] = {
        **cli.select_flags(arguments, *outputs),
        "shard_bytes": arguments.shard_mib * 2**20,
        "settings": settings,
    }
    if arguments.runner:
        from vit_scaling.data.writing import beam_driver

        return beam_driver.write_with_beam(
            source, runner=arguments.runner, options=arguments.beam_option, **options
        )
    progress = cli.make_progress_printer()
    return split_writer.write_tfrecords(
        source, workers=arguments.workers, progress=progress, **options
    )


def _format(manifest: Mapping[str, Any]) -> str:
    from vit_scaling.data.writing.image_entries import format_summary

    lines = [
        f"{manifest['records']} images of {len(manifest['class_counts'])} classes in "
        f"{len(manifest['shards'])} shards, {manifest['bytes'] / 2**20:.1f} MiB.",
    ]
    if "listing" in manifest:  # Manifests of earlier versions have none.
        lines.append(format_summary(manifest["listing"]))
    empty = [name for name, count in manifest["class_counts"].items() if not count]
    if empty:
        names = ", ".join(empty[:5]) + (", …" if len(empty) > 5 else "")
        lines.append(f"{len(empty)} classes have no image: {names}")
    if manifest.get("converted"):
        lines.append(f"{manifest['converted']} images converted to PNG")
    if manifest["left_out"]:
        lines.append(f"{manifest['left_out']} images left out:")
        named = manifest["left_out_named"][:20]
        lines += [f"  {row['key']}: {row['reason']}" for row in named]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
