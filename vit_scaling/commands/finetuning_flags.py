"""Flags of the commands that fine-tune: their runs, and presets in gin/finetuning."""
# SPDX-License-Identifier: Apache-2.0

import argparse

# Flag: gin file, and the macro that takes the flag's value.
PRESETS = {
    "lora_rank": ("finetuning/lora.gin", "LORA_RANK"),
    "head_only": ("finetuning/head_only.gin", None),
    "layerwise_decay": ("finetuning/layerwise_decay.gin", "LAYERWISE_DECAY"),
    "mixup": ("finetuning/mixup.gin", "MIXUP"),
    "label_smoothing": ("finetuning/label_smoothing.gin", "LABEL_SMOOTHING"),
}


def add_run_flags(parser: argparse.ArgumentParser, experiment: str) -> None:
    """Add the flags of a command that starts runs; `experiment` is its default."""
    add = parser.add_argument_group("run").add_argument
    add(
        "--gin_file",
        action="append",
        help=f"experiment and overlays; default: {experiment}",
    )
    add("--gin_param", action="append", default=[], help="bindings of all runs")
    add("--output_dir", required=True, help="folder of the runs and their sets")


def add_preset_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each preset; those that choose what is trained are exclusive."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--lora_rank", type=int, help="train adapters and classifier")
    what.add_argument(
        "--head_only", action="store_true", help="train the classifier alone"
    )
    what.add_argument(
        "--layerwise_decay", type=float, help="factor of the rate per block, as 0.9"
    )
    add = parser.add_argument
    add("--mixup", type=float, help="average pairs of images; alpha, such as 0.2")
    add("--label_smoothing", type=float, help="fraction of labels, such as 0.1")


def read_presets(arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return the gin files and the bindings of the presets that flags ask for."""
    values = {name: getattr(arguments, name) for name in PRESETS}
    chosen = {n: v for n, v in values.items() if v is not None and v is not False}
    files = [PRESETS[name][0] for name in chosen]
    macros = {PRESETS[name][1]: value for name, value in chosen.items()}
    return files, [f"{name} = {value}" for name, value in macros.items() if name]
