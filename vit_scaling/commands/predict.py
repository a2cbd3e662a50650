"""Predict the classes of images with a run or an exported model: flags -> table."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
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
    parser.add_argument("--images", nargs="+", help="image files, folders or globs")
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
    return cli.run(parser, argv, _predict, _show)


def _predict(arguments: argparse.Namespace) -> Mapping[str, Any]:
    # TensorFlow only after the flags.
    from vit_scaling.export import clients, prediction

    if (arguments.images is None) == (arguments.tfrecords is None):
        raise ValueError("Give either --images or --tfrecords.")
    given = _given(arguments, "model_dir", "saved_model", "server")
    if len(given) != 1:
        raise ValueError("Give one of --model_dir, --saved_model and --server.")
    _check_flags(arguments)
    if arguments.images is not None:
        images = prediction.read_image_files(arguments.images)
    else:
        images = prediction.read_tfrecord_images(
            arguments.tfrecords,
            **_given(arguments, "image_key", "label_key"),
        )
    if arguments.server is not None:
        predict_images = clients.make_server_predictor(
            arguments.server, **_given(arguments, "model", "version")
        )
    elif arguments.model_dir is not None:
        predict_images = prediction.make_run_predictor(
            arguments.model_dir, top_k=arguments.top or 5
        )
    else:
        predict_images = prediction.make_local_predictor(arguments.saved_model)
    limited = itertools.islice(images, arguments.limit)
    predictions = prediction.predict(
        limited, predict_images, batch_size=arguments.batch_size
    )
    return {"predictions": [_limit_classes(row, arguments.top) for row in predictions]}


def _check_flags(arguments: argparse.Namespace) -> None:
    """Raise if a flag has no effect with the others, or is not positive."""
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
