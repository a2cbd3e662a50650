"""The command `vit-scaling SUBCOMMAND`: its subcommands, and their list."""
# SPDX-License-Identifier: Apache-2.0

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from vit_scaling.naming import unknown_name_message

PROGRAM = "vit-scaling"


class Command(NamedTuple):
    """A subcommand: the module whose `main` runs it, and what it is for."""

    module: str
    purpose: str


# By what a user wants; the order is that of `vit-scaling --help`.
GROUPS: dict[str, dict[str, Command]] = {
    "Train": {
        "train": Command("train", "train on a folder of images, or by gin files"),
        "finetune": Command("finetune", "fine-tune at several learning rates"),
        "vtab": Command("vtab", "fine-tune on VTAB-1k's tasks; means by group"),
        "evaluate": Command("evaluate", "evaluate a run's checkpoint"),
        "fewshot": Command("evaluate_fewshot", "few-shot accuracy and probes"),
    },
    "Use a trained model": {
        "predict": Command("predict", "classes of images"),
        "export": Command("export", "SavedModel, ONNX or LiteRT for serving"),
        "serve": Command("serve", "gRPC and REST server of an export, for development"),
        "weights list": Command("list_weights", "published weights, by name"),
        "weights import": Command("import_weights", "published weights into Keras"),
        "weights export": Command("export_weights", "a run's weights into a file"),
    },
    "Prepare data": {
        "data write": Command("write_tfrecords", "write images into TFRecords"),
        "data verify": Command("verify_tfrecords", "check every record of a set"),
        "data index": Command("index_tfrecords", "positions and keys of other sets"),
        "data stats": Command("inspect_tfrecords", "classes, sizes, copies, as a page"),
        "data deduplicate": Command("deduplicate", "remove near-duplicate images"),
        "data serve": Command("data_service", "decode images on other machines"),
    },
    "Plan and study": {
        "plan": Command("plan", "parameters, memory and time of a run"),
        "preflight": Command("preflight", "compile a run's step with no TPU attached"),
        "sweep": Command("sweep", "train a grid of models, data sizes and durations"),
        "fit": Command("fit_power_law", "fit a scaling law to a table of runs"),
        "curve-benchmark": Command("curve_benchmark", "score laws on learning curves"),
        "compare": Command("compare_runs", "compare variants of a study"),
        "optimizer-state": Command("optimizer_state", "memory of optimizers' state"),
    },
    "This installation": {
        "doctor": Command("doctor", "versions, devices, conflicts and their fixes"),
        "benchmark": Command("benchmark", "measure speed and memory"),
    },
}
COMMANDS = {
    name: command for group in GROUPS.values() for name, command in group.items()
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name, rest = _split(arguments)
    group, _, last = name.rpartition(" ")
    if last in ("", "help", "-h", "--help"):
        print(help_text(f"{group} " if group else ""))
        return 0
    if name not in COMMANDS:
        message = unknown_name_message("command", name, COMMANDS)
        print(f"{PROGRAM}: error: {message}", file=sys.stderr)
        return 2
    sys.argv[0] = f"{PROGRAM} {name}"  # The name in its --help and messages.
    module = importlib.import_module(f"vit_scaling.commands.{COMMANDS[name].module}")
    try:
        code = module.main(rest)
        sys.stdout.flush()
    except BrokenPipeError:  # The reader has seen enough, such as `| head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def help_text(prefix: str = "") -> str:
    """Return the list of the subcommands, by group, whose names have the prefix."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"usage: {PROGRAM} COMMAND [FLAGS]"]
    for title, commands in GROUPS.items():
        shown = {n: c.purpose for n, c in commands.items() if n.startswith(prefix)}
        lines += ["", f"{title}:"] if shown else []
        lines += [f"  {name:{width}}{purpose}" for name, purpose in shown.items()]
    return "\n".join([*lines, "", f"{PROGRAM} COMMAND --help lists its flags."])


def _split(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Return the subcommand, of one word or two, and its arguments."""
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if len(arguments) >= words and name in COMMANDS:
            return name, list(arguments[words:])
    groups = {name.partition(" ")[0] for name in COMMANDS if " " in name}
    words = 2 if arguments and arguments[0] in groups else 1
    return " ".join(arguments[:words]), list(arguments[words:])


if __name__ == "__main__":
    sys.exit(main())
