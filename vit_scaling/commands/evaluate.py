"""Evaluate a run's checkpoint by the run's own configuration."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import os
import sys
from collections.abc import Sequence

from vit_scaling.commands import cli, train
from vit_scaling.library_messages import hide_library_messages


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="All other flags are those of the training binary.",
        allow_abbrev=False,
    )
    parser.add_argument("--model_dir", required=True, help="folder of the run")
    parser.add_argument(
        "--data",
        metavar="IMAGES",
        help="folder of CLASS/*, or FILE.csv, to evaluate on; default: the run's own",
    )
    parser.add_argument(
        "--report",
        metavar="FILE.html",
        help="page with accuracy by class, confusions, calibration and mistakes",
    )
    parser.add_argument("--cache_dir", help="see vit-scaling train")
    parser.add_argument("--gin_param", action="append", default=[], help="gin bindings")
    arguments, flags = parser.parse_known_args(argv)
    bindings = list(arguments.gin_param)
    try:
        if arguments.data is not None:
            hide_library_messages()  # Before TensorFlow is imported.
            from vit_scaling.data.writing.folder_sets import write_folder

            sets = write_folder(arguments.data, cache=arguments.cache_dir)
            pattern = sets.eval_pattern or sets.train_pattern
            bindings += [
                f"EVAL_PATTERN = {pattern!r}",
                "EvalData.beyond_fraction = None",
            ]
    except cli.EXPECTED_ERRORS as error:
        return cli.report_error(parser, error)
    config = os.path.join(arguments.model_dir, "config.gin")
    command = train.binary_flags(arguments.model_dir, [config], bindings)
    if arguments.report is not None:
        command.append(f"--report={arguments.report}")
    return train.run_binary(["--mode=eval", *command, *flags])


if __name__ == "__main__":
    sys.exit(main())
