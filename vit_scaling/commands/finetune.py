"""Fine-tune at several learning rates; a held-out part of the training set chooses."""
# SPDX-License-Identifier: Apache-2.0

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli, finetuning_flags

_EXPERIMENT = "experiments/finetune.gin"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = cli.make_parser(__doc__ or "")
    finetuning_flags.add_run_flags(parser, _EXPERIMENT)
    add = parser.add_argument_group("learning rate").add_argument
    add(
        "--learning_rates",
        type=float,
        nargs="+",
        default=[0.03, 0.01],
        help="candidates",
    )
    add("--held_out", type=float, default=0.02, help="fraction of the training images")
    add(
        "--retrain",
        action="store_true",
        help="train once more at the chosen rate, on all training images",
    )
    finetuning_flags.add_preset_flags(parser)
    return cli.run(parser, argv, _finetune, _show)


def _finetune(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from vit_scaling import gin_files
    from vit_scaling.scaling.studies.learning_rate_search import choose_learning_rate

    files, bindings = finetuning_flags.read_presets(arguments)
    return choose_learning_rate(
        [*(arguments.gin_file or [_EXPERIMENT]), *files],
        [*bindings, *arguments.gin_param],
        output_dir=arguments.output_dir,
        learning_rates=arguments.learning_rates,
        held_out=arguments.held_out,
        retrain=arguments.retrain,
        find_file=gin_files.find,
    )


def _show(report: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{run['learning_rate']:g}",
            *(
                f"{100 * run[name]:.2f}" if name in run else "failed"
                for name in ("held_out", "eval")
            ),
        ]
        for run in report["runs"]
    ]
    return "\n".join(
        [
            cli.table(rows, ["learning rate", "held out %", "evaluation %"]),
            f"Chosen: {report['learning_rate']:g}; top-1 {100 * report['top1']:.2f} % "
            f"by {report['model_dir']}",
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
