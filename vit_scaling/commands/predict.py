"""Predict the classes of images with a run or an exported model: flags -> rows."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import csv
import dataclasses
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TextIO

from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 only if every image has a prediction."""
    parser = cli.make_parser(
        "Predict the classes of images with a run or an exported model."
    )
    parser.add_argument("--model_dir", help="folder of a training run")
    parser.add_argument("--saved_model", help="SavedModel, or its versions")
    parser.add_argument("--server", help="grpc://host:8500 or http://host:8501")
    parser.add_argument("--model", help="name of the served model (default: vit)")
    parser.add_argument(
        "--version", type=int, help="of the served model; newest if none"
    )
    parser.add_argument(
        "--images",
        nargs="+",
        help="image files, folders or globs, in every format that training reads",
    )
    parser.add_argument("--tfrecords", help="glob of TFRecord files")
    parser.add_argument(
        "--image_key", help="feature of the image's bytes (default: image/encoded)"
    )
    parser.add_argument(
        "--label_key", help="feature of the class (default: image/class/label)"
    )
    parser.add_argument("--top", type=int, help="classes shown (default: all returned)")
    parser.add_argument("--limit", type=int, help="images at most")
    parser.add_argument(
        "--batch_size",
        type=int,
        default=16,
        help="images per request; a kit's server takes at most 32",
    )
    parser.add_argument(
        "--format",
        choices=("table", *_WRITERS),
        default="table",
        help="csv (a line per image and class) and jsonl (JSON, a line per image) are "
        "printed batch by batch",
    )
    output = sys.stdout  # Replaced while the command runs.
    result: dict[str, Any] = {}

    def predict(arguments: argparse.Namespace) -> Mapping[str, Any]:
        result.update(_predict(arguments, output))
        return result

    code = cli.run(parser, argv, predict, _show)
    return code or int(bool(result["failed"]))


def _predict(arguments: argparse.Namespace, output: TextIO) -> Mapping[str, Any]:
    _check_flags(arguments)
    # TensorFlow only after the flags.
    from tqdm import tqdm

    from vit_scaling.export import prediction

    total = None
    if arguments.images is not None:
        files = prediction.list_image_files(arguments.images)[: arguments.limit]
        total = len(files)
        images = prediction.read_image_files(files)
    else:
        images = prediction.read_tfrecord_images(
            arguments.tfrecords,
            class_names=_class_names(arguments),
            **_given(arguments, "image_key", "label_key"),
        )
    predictions = prediction.predict(
        itertools.islice(images, arguments.limit),
        _make_predictor(arguments),
        batch_size=arguments.batch_size,
    )
    shown = tqdm(predictions, total=total, unit="image", mininterval=1.0)
    rows: Iterable[dict[str, Any]]
    rows = (_limit_classes(row, arguments.top) for row in shown)
    if arguments.format in _WRITERS:
        rows = _WRITERS[arguments.format](rows, output)
    result = _sort_rows(rows, keep=arguments.format == "table")
    _report_failures(result)
    if result["classes"] < (arguments.top or 0):
        print(
            f"The model returned {result['classes']} classes: all that it has, or the "
            "--top_k of its export."
        )
    return result


def _class_names(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the names of the model's classes; () where they are unknown."""
    from vit_scaling import run_record
    from vit_scaling.export import prediction, saved_model

    if arguments.server is not None:
        return ()
    if arguments.model_dir is not None:
        return run_record.load_run_record(arguments.model_dir).class_names
    folder = prediction.find_version_folder(arguments.saved_model)
    try:
        names = saved_model.read_record(folder).class_names
    except FileNotFoundError:  # Of another program.
        return ()
    return () if names == tuple(map(str, range(len(names)))) else names


def _make_predictor(arguments: argparse.Namespace) -> Any:
    """Return the predictor of a server, a run or a SavedModel."""
    from vit_scaling.export import clients, prediction

    if arguments.server is not None:
        return clients.make_server_predictor(
            arguments.server, **_given(arguments, "model", "version")
        )
    if arguments.model_dir is not None:
        return prediction.make_run_predictor(
            arguments.model_dir, top_k=arguments.top or 5
        )
    return prediction.make_local_predictor(arguments.saved_model)


def _sort_rows(rows: Iterable[dict[str, Any]], *, keep: bool) -> dict[str, Any]:
    """Return the predictions, kept only for a table, and the failed images."""
    result: dict[str, Any] = {"predictions": [], "failed": [], "images": 0}
    result["classes"] = 0  # Shown for each image.
    for row in rows:
        result["images"] += 1
        error = row.pop("error")
        result["classes"] = max(result["classes"], len(row["classes"]))
        if error is not None:
            result["failed"].append({"name": row["name"], "error": error})
        elif keep:
            result["predictions"].append(row)
    return result


def _report_failures(result: Mapping[str, Any]) -> None:
    if not result["failed"]:
        return
    print(f"{len(result['failed'])} of {result['images']} images failed:")
    for row in result["failed"]:
        print(f"  {row['name']}: {row['error']}")


def _write_csv(
    rows: Iterable[dict[str, Any]], output: TextIO
) -> Iterable[dict[str, Any]]:
    """Print a line per image and class, a failed image with its error; yield rows."""
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(["image", "label", "rank", "class", "probability", "error"])
    for row in rows:
        start = [row["name"], row["label"]]
        pairs = zip(row["classes"], row["probabilities"], strict=True)
        for rank, pair in enumerate(pairs, 1):
            writer.writerow([*start, rank, *pair, None])
        if row["error"] is not None:
            writer.writerow([*start, None, None, None, row["error"]])
        output.flush()
        yield row


def _write_json_lines(
    rows: Iterable[dict[str, Any]], output: TextIO
) -> Iterable[dict[str, Any]]:
    """Print a JSON object per image; yield the rows."""
    for row in rows:
        print(json.dumps(row, ensure_ascii=False), file=output, flush=True)
        yield row


_WRITERS: dict[
    str, Callable[[Iterable[dict[str, Any]], TextIO], Iterable[dict[str, Any]]]
] = {"csv": _write_csv, "jsonl": _write_json_lines}


def _check_flags(arguments: argparse.Namespace) -> None:
    """Raise if flags are missing, exclude each other or are not positive."""
    if (arguments.images is None) == (arguments.tfrecords is None):
        raise ValueError("Give either --images or --tfrecords.")
    if len(_given(arguments, "model_dir", "saved_model", "server")) != 1:
        raise ValueError("Give one of --model_dir, --saved_model and --server.")
    if arguments.json and arguments.format != "table":
        raise ValueError(
            f"--json prints one object; leave out --format={arguments.format}."
        )
    uses = {
        "model": ("server", "saved_model"),
        "version": ("server", "saved_model"),
        "image_key": ("tfrecords", "images"),
        "label_key": ("tfrecords", "images"),
    }
    for name, (owner, other) in uses.items():
        if getattr(arguments, name) is not None and getattr(arguments, owner) is None:
            more = " (name the version's own folder)" if name == "version" else ""
            raise ValueError(
                f"--{name} has no effect with --{other}{more}: it goes with --{owner}."
            )
    for name, value in _given(arguments, "top", "limit").items():
        if value < 1:
            raise ValueError(f"--{name} must be at least 1; received {value}.")


def _given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return the flags that were given."""
    found = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _limit_classes(row: Any, top: int | None) -> dict[str, Any]:
    best = {"classes": row.classes[:top], "probabilities": row.probabilities[:top]}
    return {**dataclasses.asdict(row), **best}


def _show(result: Mapping[str, Any]) -> str:
    if not result["predictions"]:
        return ""  # All lines were printed on the way, or every image failed.
    rows = [
        [row["name"], "" if row["label"] is None else row["label"], *pair]
        for row in result["predictions"]
        for pair in zip(
            row["classes"],
            (f"{value:.4f}" for value in row["probabilities"]),
            strict=True,
        )
    ]
    return cli.table(rows, ["image", "label", "predicted", "probability"])


if __name__ == "__main__":
    raise SystemExit(main())
