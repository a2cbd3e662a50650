"""Export a training run or a file of weights for serving: flags -> export -> report."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli

# Flags that only some formats have, and why.
_FLAGS_OF_FORMATS = {
    "serving_kit": (("saved_model",), "serves a SavedModel"),
    "jit_compile": (("saved_model",), "compiles a SavedModel"),
    "top_k": (("saved_model",), "lists classes in a SavedModel"),
    "int8": (("onnx", "litert"), "makes an ONNX or LiteRT file smaller"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = cli.make_parser("Export a model, compared with it after writing.")
    add = parser.add_argument_group("model (a run or weights)").add_argument
    add("--model_dir", help="folder of the training run")
    add(
        "--model",
        help="in place of a run: .keras, or a file, address or published name of "
        "weights that `vit-scaling weights import` reads without more flags",
    )
    add("--step", type=int, help="checkpoint to take (default: newest)")
    cli.add_averages_flag(add)
    add(
        "--class_names", help="file with a name a line (with --model; default: its own)"
    )
    add(
        "--loss",
        choices=("softmax_cross_entropy", "sigmoid_cross_entropy"),
        help="what makes probabilities (with --model; default: the former)",
    )
    add(
        "--value_range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="of pixels (with --model; default: the weights', or -1 1)",
    )
    add = parser.add_argument_group("export").add_argument
    add("--output_dir", required=True, help="folder to write: new, or a kit")
    add(
        "--format",
        choices=("saved_model", "onnx", "litert"),
        default="saved_model",
        help="what to write",
    )
    add(
        "--int8",
        action="store_true",
        help="store matrices of ONNX or LiteRT in 8 bits: a quarter of the bytes",
    )
    add("--top_k", type=int, help="best classes listed (default: 5)")
    add(
        "--preprocess",
        choices=("central_crop", "resize", "squash_and_crop"),
        help="of images sent as bytes (default: the run's, or central_crop)",
    )
    add("--resize", type=int, help="smaller side before the crop")
    add(
        "--jit_compile",
        action="store_true",
        help="have XLA compile the SavedModel where it runs, once per size of a batch",
    )
    add(
        "--serving_kit",
        metavar="NAME",
        help="write the next version of a served model NAME into output_dir/NAME",
    )
    add("--version", type=int, help="of the serving kit (default: next)")
    return cli.run(parser, argv, _export, _show)


def _export(arguments: argparse.Namespace) -> Mapping[str, Any]:
    _check_flags(arguments)
    from vit_scaling.export import onnx_litert, saved_model, serving_kit

    assumed: Sequence[str] = ()
    write: Callable[..., dict[str, Any]]
    write_portable: Callable[..., dict[str, Any]]
    if arguments.model is None:
        names = ("averages", "step", "preprocess", "resize")
        options = {name: getattr(arguments, name) for name in ("model_dir", *names)}
        write, write_portable = saved_model.export_run, onnx_litert.export_run
    else:
        options, assumed = _load_model_and_record(arguments)
        write, write_portable = saved_model.export_model, onnx_litert.export_model
    if arguments.format != "saved_model":
        report = write_portable(
            output_dir=arguments.output_dir,
            kind=arguments.format,
            int8=arguments.int8,
            **options,
        )
        return {**report, "assumed": list(assumed)}
    top_k = 5 if arguments.top_k is None else arguments.top_k
    write_model = functools.partial(
        write, top_k=top_k, jit_compile=arguments.jit_compile, **options
    )
    if arguments.serving_kit is None:
        report = write_model(output_dir=arguments.output_dir)
    else:
        report = serving_kit.write_version(
            write_model,
            arguments.output_dir,
            name=arguments.serving_kit,
            version=arguments.version,
        )
    return {**report, "assumed": list(assumed)}


def _load_model_and_record(
    arguments: argparse.Namespace,
) -> tuple[dict[str, Any], Sequence[str]]:
    """Return the arguments of `export_model` for a file, and all assumptions."""
    from vit_scaling.applications.weights import (
        check_takes_default_range,
        load_for_serving,
    )
    from vit_scaling.data.tfrecords import read_class_names
    from vit_scaling.export import records, run_loading
    from vit_scaling.export.serving_signatures import has_classifier

    model, known, assumed = load_for_serving(arguments.model)
    if arguments.value_range is None and known is None:
        check_takes_default_range(model)
    names = ("loss", "value_range", "preprocess", "resize")
    fields = {name: getattr(arguments, name) for name in names}
    record = records.make_record(
        model.input_shape,
        model.output_shape[-1] if has_classifier(model) else 0,
        arguments.class_names and read_class_names(arguments.class_names),
        known,
        **{name: value for name, value in fields.items() if value is not None},
    )
    options = {"model": run_loading.convert_to_float32(model), "record": record}
    return options, assumed


def _check_flags(arguments: argparse.Namespace) -> None:
    if (arguments.model is None) == (arguments.model_dir is None):
        raise ValueError("Give either --model_dir, a training run, or --model, a file.")
    without_use = {
        "model": ("step", "averages"),
        "model_dir": ("class_names", "loss", "value_range"),
    }
    source = "model_dir" if arguments.model is None else "model"
    for name in without_use[source]:
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name} has no effect with --{source}.")
    if arguments.version is not None and arguments.serving_kit is None:
        raise ValueError("--version needs --serving_kit=NAME.")
    for name, (kinds, purpose) in _FLAGS_OF_FORMATS.items():
        given = getattr(arguments, name) not in (None, False)
        if given and arguments.format not in kinds:
            raise ValueError(
                f"--{name} {purpose}; it has no effect with "
                f"--format={arguments.format}. Leave one of them out."
            )


def _show(report: Mapping[str, Any]) -> str:
    rows = [[name, f"{value:g}"] for name, value in report["max_difference"].items()]
    weights = f"{report['weights']} weights, " if report.get("weights") else ""
    lines = [
        f"Wrote {report['output_dir']}: step {report['step']}, {weights}"
        f"{report['parameters']:,} parameters, {report['classes'] or 'no'} classes, "
        f"{report['bytes'] / 2**20:.1f} MiB.",
        cli.table(rows, ["output", "largest difference from the model"]),
    ]
    lines += [f"  assumed: {what}" for what in report.get("assumed", ())]
    if "max_difference_to_run_precision" in report:
        difference = report["max_difference_to_run_precision"]["logits"]
        lines.append(f"Logits differ from the run's own precision by {difference:g}.")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
