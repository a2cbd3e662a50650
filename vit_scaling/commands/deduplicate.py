"""Remove training images that are near-duplicates of evaluation images."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    made = cli.make_parser(__doc__ or "")
    made.add_argument("--train", help="manifest or glob of the training shards")
    made.add_argument(
        "--against",
        action="append",
        default=[],
        help="manifest or glob of an evaluation set; repeat it, or use commas",
    )
    made.add_argument("--output_dir", help="the set without them, and report.html")
    made.add_argument(
        "--repeats", action="store_true", help="also repeats inside the training set"
    )
    made.add_argument(
        "--report",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="report.html: the pairs side by side",
    )
    made.add_argument("--distance", type=int, default=10, help="of hashes, in bits")
    made.add_argument("--likeness", type=float, default=0.94, help="of pixels, 0 to 1")
    cli.add_feature_flags(made)
    made.add_argument(
        "--against_image_key", help="of the evaluation sets; default: --image_key"
    )
    made.add_argument("--runner", help="search with Apache Beam on this runner")
    made.add_argument(
        "--beam_option", action="append", default=[], help="NAME=VALUE for the runner"
    )
    made.add_argument(
        "--study",
        help="instead: plant altered copies among the images of this folder, and "
        "print recall and precision",
    )
    made.add_argument("--copies", type=int, default=2000, help="planted in a study")
    return cli.run(made, argv, _run, _show)


_SHARES = ("share", "low", "high")


def _run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from vit_scaling.data.deduplication import cleaning, planted_copies
    from vit_scaling.data.deduplication.matching import Thresholds
    from vit_scaling.data.tfrecords import TFRecords

    thresholds = Thresholds(arguments.distance, arguments.likeness)
    if arguments.study:
        return planted_copies.measure(
            planted_copies.images_below(arguments.study),
            copies=arguments.copies,
            thresholds=thresholds,
        )
    if not (arguments.train and arguments.output_dir):
        raise ValueError("Give --train and --output_dir, or --study.")
    patterns = [part for text in arguments.against for part in text.split(",")]
    features = cli.features_from_flags(arguments)
    theirs = dataclasses.replace(
        features, image=arguments.against_image_key or features.image
    )
    worker: cleaning.Worker = cleaning.InProcess(cli.make_progress_printer())
    if arguments.runner:
        from vit_scaling.data.deduplication.beam_driver import BeamWorker

        worker = BeamWorker(arguments.runner, arguments.beam_option)
    return cleaning.clean(
        TFRecords(arguments.train, features),
        [TFRecords(pattern, theirs) for pattern in patterns],
        output_dir=arguments.output_dir,
        thresholds=thresholds,
        repeats=arguments.repeats,
        report=arguments.report,
        worker=worker,
    )


def _show(result: Mapping[str, Any]) -> str:
    if "recall" in result:
        rows = [
            [kind, row["found"], row["of"], *(f"{row[k]:.3f}" for k in _SHARES)]
            for kind, row in {
                **result["recall"],
                "precision": result["precision"],
            }.items()
        ]
        return cli.table(rows, ["kind", "found", "of", "share", "95 % from", "to"])
    lines = [f"{result['removed']} of {result['records']} images removed:"]
    lines += [f"  {n} near {name}" for name, n in result["removed_by_set"].items()]
    lines.append(
        f"Not decoded: {result['unreadable']} training images (kept), "
        f"{result['unreadable_against']} evaluation images."
    )
    return "\n".join([*lines, "Look at report.html; removed.csv lists all."])
