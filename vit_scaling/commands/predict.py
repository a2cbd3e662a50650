"""Predict the classes of images with an exported model: flags -> answers -> table."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    made = cli.parser("Predict the classes of images with an exported model.")
    made.add_argument("--saved_model", help="SavedModel, or its versions")
    made.add_argument("--server", help="grpc://host:8500 or http://host:8501")
    made.add_argument("--model", default="vit", help="name of the served model")
    made.add_argument("--version", type=int, help="of the served model; newest if none")
    made.add_argument("--images", nargs="+", help="image files, folders or globs")
    made.add_argument("--tfrecords", help="glob of TFRecord files")
    made.add_argument(
        "--image_key", default="image/encoded", help="feature of the image's bytes"
    )
    made.add_argument(
        "--label_key", default="image/class/label", help="feature of the class"
    )
    made.add_argument("--top", type=int, help="classes shown (default: all answered)")
    made.add_argument("--limit", type=int, help="images at most")
    made.add_argument(
        "--batch_size",
        type=int,
        default=16,
        help="images per request; a kit's server takes at most 32",
    )
    return cli.run(made, argv, _predict, _show)


def _predict(arguments: argparse.Namespace) -> Mapping[str, Any]:
    # TensorFlow only after the flags.
    from vit_scaling.export import clients, prediction

    if (arguments.images is None) == (arguments.tfrecords is None):
        raise ValueError("Give either --images or --tfrecords.")
    if (arguments.saved_model is None) == (arguments.server is None):
        raise ValueError("Give either --saved_model or --server.")
    if arguments.saved_model is not None and arguments.version is not None:
        raise ValueError(
            "--version is of a served model (--server); for --saved_model name the "
            "version's own folder."
        )
    if arguments.images is not None:
        images = prediction.images_of_files(arguments.images)
    else:
        images = prediction.images_of_tfrecords(
            arguments.tfrecords,
            image_key=arguments.image_key,
            label_key=arguments.label_key,
        )
    if arguments.server is not None:
        answer = clients.server_answer(
            arguments.server, model=arguments.model, version=arguments.version
        )
    else:
        answer = prediction.local_answer(arguments.saved_model)
    limited = itertools.islice(images, arguments.limit)
    answers = prediction.predict(limited, answer, batch_size=arguments.batch_size)
    return {"predictions": [_limited(made, arguments.top) for made in answers]}


def _limited(made: Any, top: int | None) -> dict[str, Any]:
    best = {"classes": made.classes[:top], "probabilities": made.probabilities[:top]}
    return {**dataclasses.asdict(made), **best}


def _show(result: Mapping[str, Any]) -> str:
    rows = [
        [made["name"], "" if made["label"] is None else made["label"], *pair]
        for made in result["predictions"]
        for pair in zip(
            made["classes"],
            (f"{value:.4f}" for value in made["probabilities"]),
            strict=True,
        )
    ]
    return cli.table(rows, ["image", "label", "predicted", "probability"])
