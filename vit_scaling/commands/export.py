"""Export a training run for serving: flags -> export -> report."""
# SPDX-License-Identifier: Apache-2.0

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    made = cli.parser("Export a training run, compared with the model after writing.")
    made.add_argument("--model_dir", required=True, help="folder of the training run")
    made.add_argument(
        "--output_dir", required=True, help="folder to write: new, or a kit"
    )
    made.add_argument(
        "--format",
        choices=("saved_model", "onnx", "litert"),
        default="saved_model",
        help="what to write",
    )
    made.add_argument("--step", type=int, help="checkpoint to take (default: newest)")
    made.add_argument("--averages", action="store_true", help="take Polyak averages")
    made.add_argument("--top_k", type=int, help="best classes listed (default: 5)")
    made.add_argument(
        "--preprocess",
        choices=("central_crop", "resize"),
        help="of images sent as bytes (default: the run's, or central_crop)",
    )
    made.add_argument("--resize", type=int, help="smaller side before the crop")
    made.add_argument(
        "--jit_compile",
        action="store_true",
        help="have XLA compile the SavedModel where it runs, once per size of a batch",
    )
    made.add_argument(
        "--serving_kit",
        metavar="NAME",
        help="write the next version of a served model NAME into output_dir/NAME",
    )
    made.add_argument("--version", type=int, help="of the serving kit (default: next)")
    return cli.run(made, argv, _export, _show)


def _export(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from vit_scaling.export import saved_model  # TensorFlow only after the flags.

    if arguments.version is not None and arguments.serving_kit is None:
        raise ValueError("--version is of a serving kit: give --serving_kit=NAME too.")
    names = ("averages", "step", "preprocess", "resize")
    options = {name: getattr(arguments, name) for name in names}
    if arguments.format != "saved_model":
        if arguments.serving_kit is not None:
            raise ValueError(
                "--serving_kit serves a SavedModel; leave out --format="
                f"{arguments.format}."
            )
        if arguments.top_k is not None:
            raise ValueError(
                "--top_k lists classes in a SavedModel; an "
                f"{arguments.format} file answers all probabilities."
            )
        if arguments.jit_compile:
            raise ValueError(
                "--jit_compile is of a SavedModel; leave out --format="
                f"{arguments.format}."
            )
        from vit_scaling.export import portable

        return portable.export_run(
            arguments.model_dir, arguments.output_dir, kind=arguments.format, **options
        )
    options["top_k"] = 5 if arguments.top_k is None else arguments.top_k
    options["jit_compile"] = arguments.jit_compile
    if arguments.serving_kit is None:
        return saved_model.export_run(
            arguments.model_dir, arguments.output_dir, **options
        )
    from vit_scaling.export import serving_kit

    return serving_kit.write_kit(
        arguments.model_dir,
        arguments.output_dir,
        name=arguments.serving_kit,
        version=arguments.version,
        **options,
    )


def _show(report: Mapping[str, Any]) -> str:
    rows = [[name, f"{value:g}"] for name, value in report["max_difference"].items()]
    lines = [
        f"Wrote {report['output_dir']}: step {report['step']}, "
        f"{report['parameters']:,} parameters, {report['classes']} classes, "
        f"{report['bytes'] / 2**20:.1f} MiB.",
        cli.table(rows, ["output", "largest difference from the model"]),
    ]
    if "max_difference_to_run_precision" in report:
        difference = report["max_difference_to_run_precision"]["logits"]
        lines.append(f"Logits differ from the run's own precision by {difference:g}.")
    return "\n".join(lines)
