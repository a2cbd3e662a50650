"""Fine-tune at several learning rates; a held-out part of the training set chooses."""
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
        "--gin_file",
        action="append",
        help="experiment and overlays; default: experiments/finetune.gin",
    )
    add("--gin_param", action="append", default=[], help="bindings of all runs")
    add("--output_dir", required=True, help="folder of the runs")
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
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--lora_rank", type=int, help="train adapters and classifier")
    what.add_argument(
        "--head_only", action="store_true", help="train the classifier alone"
    )
    what.add_argument(
        "--layerwise_decay",
        type=float,
        help="factor of the rate per block, such as 0.9",
    )
    add("--mixup", type=float, help="average pairs of images; alpha, such as 0.2")
    add("--label_smoothing", type=float, help="fraction of labels, such as 0.1")
    return cli.run(parser, argv, _finetune, _show)


# Flag: gin file, and the macro that takes the flag's value.
PRESETS = {
    "lora_rank": ("finetuning/lora.gin", "LORA_RANK"),
    "head_only": ("finetuning/head_only.gin", None),
    "layerwise_decay": ("finetuning/layerwise_decay.gin", "LAYERWISE_DECAY"),
    "mixup": ("finetuning/mixup.gin", "MIXUP"),
    "label_smoothing": ("finetuning/label_smoothing.gin", "LABEL_SMOOTHING"),
}


def _presets(arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return the gin files and the bindings of the presets that flags ask for."""
    values = {name: getattr(arguments, name) for name in PRESETS}
    chosen = {n: v for n, v in values.items() if v is not None and v is not False}
    files = [PRESETS[name][0] for name in chosen]
    macros = {PRESETS[name][1]: value for name, value in chosen.items()}
    return files, [f"{name} = {value}" for name, value in macros.items() if name]


def _finetune(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from vit_scaling import gin_files
    from vit_scaling.scaling.studies.learning_rate_search import choose_learning_rate

    files, bindings = _presets(arguments)
    return choose_learning_rate(
        [*(arguments.gin_file or ["experiments/finetune.gin"]), *files],
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
