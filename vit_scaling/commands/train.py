"""Train on a folder of images, or by gin files and the training binary's flags."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from vit_scaling.commands import cli, finetuning_flags
from vit_scaling.library_messages import hide_library_messages

# Steps that measure the time of a step for --minutes; the first loop compiles.
_MEASURED_LOOP = 10
_EPILOG = """FOLDER has train/CLASS/* and val/CLASS/* or test/CLASS/*; or CLASS/*, of
which a tenth is held out. All other flags are those of the training binary, listed by
python -m vit_scaling.train --help; --mode=check tests the settings and stops. Without
--data, --gin_file is needed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    data = parser.add_argument_group("images")
    data.add_argument(
        "--data",
        metavar="IMAGES",
        help="folder of images by class, or FILE.csv with columns path and labels",
    )
    data.add_argument(
        "--cache_dir",
        help="of the images as TFRecords; default: "
        "$VIT_SCALING_CACHE or ~/.cache/vit_scaling",
    )
    run = parser.add_argument_group("run")
    run.add_argument("--model_dir", required=True, help="folder of the run")
    run.add_argument("--shape", help="such as Ti/16; default: by the images' size")
    run.add_argument(
        "--init",
        metavar="WEIGHTS",
        help="fine-tune trained weights: a run's folder, a file, an address, a name of "
        "vit-scaling weights list, or imagenet (of --shape)",
    )
    run.add_argument(
        "--minutes", type=float, help="length of the run, by a measured step time"
    )
    run.add_argument("--gin_file", action="append", default=[], help="more gin files")
    run.add_argument("--gin_param", action="append", default=[], help="gin bindings")
    finetuning_flags.add_preset_flags(parser)
    arguments, flags = parser.parse_known_args(argv)
    files, bindings = finetuning_flags.read_presets(arguments)
    arguments.gin_file += files
    arguments.gin_param[:0] = bindings
    if (
        arguments.data
        and not arguments.init
        and (arguments.lora_rank or arguments.head_only)
    ):
        parser.error("--lora_rank and --head_only need trained weights: --init.")
    if arguments.data is None:
        for name in ("shape", "init", "minutes"):
            if getattr(arguments, name) is not None:
                parser.error(f"--{name} has no effect without --data.")
        command = binary_flags(
            arguments.model_dir, arguments.gin_file, arguments.gin_param
        )
        return run_binary(command + flags)
    try:
        return _train_folder(arguments, flags)
    except cli.EXPECTED_ERRORS as error:
        return cli.report_error(parser, error)


def _train_folder(arguments: argparse.Namespace, flags: list[str]) -> int:
    hide_library_messages()  # Before TensorFlow is imported.
    from vit_scaling import recipes
    from vit_scaling.data.writing.folder_sets import write_folder

    choose = _recipe(arguments.shape, arguments.init)
    _say(f"Images of {arguments.data} to TFRecords, once:")
    sets = write_folder(
        arguments.data,
        cache=arguments.cache_dir,
        progress=lambda split: cli.make_progress_printer(),
    )
    held_out = 0.0 if sets.eval_pattern else recipes.HELD_OUT
    train_images = round(sets.train_images * (1 - held_out))
    options: dict[str, Any] = {
        "classes": sets.classes,
        "train_images": train_images,
        "median_side": sets.median_side,
    }
    choices = choose(**options)
    patterns = [f"TRAIN_PATTERN = {sets.train_pattern!r}"]
    files = recipes.gin_files(choices)
    if sets.eval_pattern:
        patterns.append(f"EVAL_PATTERN = {sets.eval_pattern!r}")
    else:
        files.append("data/split_off.gin")
    files += arguments.gin_file
    if arguments.minutes is not None:
        bindings = [*patterns, *(choice.binding for choice in choices)]
        bindings += arguments.gin_param
        steps = _steps_in(arguments.minutes, files, bindings, flags)
        choices = choose(**options, total_steps=steps)
    images, evaluated = f"{train_images:,}", f"{sets.eval_name}/"
    if not sets.eval_name:  # A hash of their names decides which images are held out.
        images, evaluated = f"About {images}", f"{held_out:.0%} held out"
    _say(f"{images} images of {sets.classes} classes; evaluated on {evaluated}.")
    rows = [[choice.name, choice.value, choice.reason] for choice in choices]
    _say(cli.table(rows, ["setting", "value", "because"]))
    _say("Override a setting with --gin_param='NAME = VALUE'.")
    bindings = [*patterns, *(choice.binding for choice in choices)]
    code = run_binary(
        binary_flags(arguments.model_dir, files, [*bindings, *arguments.gin_param])
        + flags
    )
    if code == 0:
        _say(
            f"Next: vit-scaling predict --model_dir={arguments.model_dir} "
            "--images FILES, or vit-scaling export --model_dir="
            f"{arguments.model_dir} --output_dir=EXPORT"
        )
    return code


def _recipe(shape: str | None, source: str | None) -> Callable[..., list[Any]]:
    """Return the function that chooses a run's settings.

    Raises:
        ValueError: Both a shape and weights are given, or the weights are of no ViT.
        OSError: The weights cannot be read or fetched.
    """
    from vit_scaling import recipes
    from vit_scaling.applications import published

    if source == published.IMAGENET:
        source, shape = published.imagenet_default(shape), None
    if source is None:
        return functools.partial(recipes.choose_settings, shape=shape)
    if shape is not None:
        raise ValueError(
            f"--init={source} has a shape of its own; leave out --shape={shape}."
        )
    from vit_scaling.applications.weights import read_weights

    _say(f"Reading the weights of {source}:")
    weights = read_weights(source)
    return functools.partial(
        recipes.choose_finetuning,
        os.path.abspath(source) if os.path.exists(source) else source,
        weights.arguments,
        value_range=weights.record.value_range if weights.record else (-1.0, 1.0),
    )


def _steps_in(
    minutes: float, files: list[str], bindings: list[str], flags: list[str]
) -> int:
    """Return how many steps fit into some minutes, from a few measured ones."""
    _say("Measuring the time of a step:")
    with tempfile.TemporaryDirectory() as folder:
        short = {
            "TOTAL_STEPS": 3 * _MEASURED_LOOP,
            "STEPS_PER_LOOP": _MEASURED_LOOP,
            "WARMUP_STEPS": 1,
            "COOLDOWN_STEPS": 1,
        }
        bound = {binding.partition(" ")[0] for binding in bindings}
        lengths = [f"{name} = {short[name]}" for name in short if name in bound]
        command = [sys.executable, "-m", "vit_scaling.train", "--mode=train"]
        command += binary_flags(folder, files, [*bindings, *lengths]) + flags
        subprocess.run(command, check=True, stdout=sys.stderr)
        rows = [
            json.loads(line)
            for line in (pathlib.Path(folder) / "metrics.jsonl").open(encoding="utf-8")
        ]
    times = [row["step_seconds_p50"] for row in rows if "step_seconds_p50" in row]
    if not times:
        raise ValueError("No step time was measured. Give TOTAL_STEPS instead.")
    return max(1, int(minutes * 60 / times[-1]))


def binary_flags(
    model_dir: str, files: Sequence[str], bindings: Sequence[str]
) -> list[str]:
    """Return the training binary's flags."""
    return [
        f"--model_dir={model_dir}",
        *(f"--gin_file={file}" for file in files),
        *(f"--gin_param={binding}" for binding in bindings),
    ]


def run_binary(flags: Sequence[str]) -> int:
    """Run the training binary in this process; return its exit code."""
    from vit_scaling import train

    sys.argv = [sys.argv[0], *flags]
    try:
        train.main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
