"""Remove training images that are near-duplicates of evaluation images."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = cli.make_parser(__doc__ or "")
    add = parser.add_argument_group("sets").add_argument
    add("--train", help="manifest or glob of the training shards")
    add(
        "--against",
        action="append",
        default=[],
        help="manifest or glob of an evaluation set; repeat it, or use commas",
    )
    add("--output_dir", help="folder of the cleaned set and of report.html")
    add("--repeats", action="store_true", help="also duplicates inside --train")
    add(
        "--report",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write report.html: the pairs side by side",
    )
    add(
        "--exceptions",
        help="CSV with rows of an earlier removed.csv; these records are kept",
    )
    add = parser.add_argument_group("thresholds").add_argument
    add("--distance", type=int, default=10, help="largest between hashes, in bits")
    add("--likeness", type=float, default=0.94, help="smallest of pixels, 0 to 1")
    cli.add_feature_flags(parser.add_argument)
    add("--against_image_key", help="of the evaluation sets; default: --image_key")
    add = parser.add_argument_group("Apache Beam").add_argument
    add("--runner", help="search with Apache Beam on this runner")
    add("--beam_option", action="append", default=[], help="NAME=VALUE for the runner")
    add = parser.add_argument_group("study of planted copies").add_argument
    add(
        "--study",
        help="instead: plant altered copies among the images of this folder, and "
        "print recall and precision",
    )
    add("--copies", type=int, default=2000, help="number of planted copies in a study")
    return cli.run(parser, argv, _run, _show)


def _run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from vit_scaling.data.deduplication import cleaning, local_driver, planted_copies
    from vit_scaling.data.deduplication.matching import Thresholds
    from vit_scaling.data.deduplication.search import Search
    from vit_scaling.data.tfrecords import TFRecords

    thresholds = Thresholds(arguments.distance, arguments.likeness)
    if arguments.study:
        images = planted_copies.read_images(arguments.study)
        copies = arguments.copies
        return planted_copies.measure(images, copies=copies, thresholds=thresholds)
    if not (arguments.train and arguments.output_dir):
        raise ValueError("Give --train and --output_dir, or --study.")
    features = cli.features_from_flags(arguments)
    image_key = arguments.against_image_key or features.image
    against_features = dataclasses.replace(features, image=image_key)
    patterns = [part for text in arguments.against for part in text.split(",")]
    search = Search(
        TFRecords(arguments.train, features),
        [TFRecords(pattern, against_features) for pattern in patterns],
        thresholds,
        include_internal=arguments.repeats,
    )
    driver: cleaning.Driver = local_driver.LocalDriver(cli.make_progress_printer())
    if arguments.runner:
        from vit_scaling.data.deduplication.beam_driver import BeamDriver

        folder = arguments.output_dir
        driver = BeamDriver(arguments.runner, arguments.beam_option, folder)
    return cleaning.clean(
        search,
        output_dir=arguments.output_dir,
        report=arguments.report,
        exceptions=arguments.exceptions,
        driver=driver,
    )


def _show(result: Mapping[str, Any]) -> str:
    if "recall" in result:
        estimates = {**result["recall"], "precision": result["precision"]}
        columns = ("share", "low", "high")
        rows = [
            [kind, row["found"], row["of"], *(f"{row[name]:.3f}" for name in columns)]
            for kind, row in estimates.items()
        ]
        return cli.table(rows, ["kind", "found", "of", "share", "95 % from", "to"])
    lines = [f"{result['removed']} of {result['records']} images removed:"]
    lines += [f"  {n} near {name}" for name, n in result["removed_by_set"].items()]
    if result["exceptions"]:
        lines.append(f"  {result['exceptions']} kept as exceptions")
    lines.append(
        f"Not decoded: {result['unreadable']} training images (kept), "
        f"{result['unreadable_against']} evaluation images."
    )
    return "\n".join([*lines, "Look at report.html; removed.csv lists all."])


if __name__ == "__main__":
    raise SystemExit(main())
