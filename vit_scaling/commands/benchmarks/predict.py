"""Images per second of predictions on image files, next to a torch DataLoader."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import contextlib
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vit_scaling.commands.benchmarks import alternation, inference, records
from vit_scaling.commands.benchmarks.records import Table

WORKER = pathlib.Path(__file__).with_name("predict_worker.py")
PEER = "torch_dataloader"
OURS = "predict"
PROGRAMS = {
    OURS: "`vit-scaling predict`, `TrainedRun.predict`",
    PEER: "DataLoader, Pillow, torch.compile (timm)",
}
MIN_AGREEMENT = 0.9  # Random weights have near ties, and decoders round.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags: what to measure and how often."""
    add = parser.add_argument
    add("--shape", default="S/16", help="a shape's name")
    add("--image_size", type=int, default=224, help="side of the model's images")
    add("--files", type=int, default=128, help="JPEG files, 500 x 375 pixels each")
    add("--batch_size", type=int, default=16, help="images of a batch")
    add("--rounds", type=int, default=5, help="measured rounds over all files")
    add(
        "--torch_python",
        metavar=records.PYTHON,
        default=os.environ.get("VIT_SCALING_TORCH_PYTHON"),
        help="interpreter that has torch, timm and Pillow; default: leave it out",
    )


def run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Return images per second of both programs, from files to best classes.

    Both have the same weights. They take turns, a pass over all files each. This
    package's is `prediction.predict`, as `TrainedRun.predict` and `vit-scaling predict`
    call it. The other one is a DataLoader with a worker per processor, Pillow's decoder
    and torch.compile.
    """
    alternation.check_positive(arguments, ("files", "batch_size", "rounds"))
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        pythons = {OURS: sys.executable, PEER: arguments.torch_python}
        _write_inputs(arguments, folder)
        workers = {
            engine: stack.enter_context(_worker(python, engine, arguments, folder))
            for engine, python in pythons.items()
            if python
        }
        answers: dict[str, list[list[int]]] = {}

        def ask(engine: str) -> None:
            answers[engine] = _ask(workers[engine])

        programs = {engine: functools.partial(ask, engine) for engine in workers}
        seconds = alternation.time_alternating(
            programs, rounds=arguments.rounds, warmup_rounds=1
        )
    result: dict[str, Any] = {
        "files": arguments.files,
        "images_per_second": {
            engine: arguments.files / alternation.spread(taken)["median"]
            for engine, taken in seconds.items()
        },
        "seconds": {e: alternation.spread(taken) for e, taken in seconds.items()},
    }
    if PEER in seconds:
        ratio = alternation.ratio_spread(seconds[PEER], seconds[OURS])
        result["speed_over_peer"] = ratio
        result["best_class_found"] = _agreement(answers[OURS], answers[PEER])
    return result


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return the seconds of a pass over the files, next to the peer's."""
    speed = {OURS: result.get("speed_over_peer"), PEER: 1.0}
    rows = [
        {
            "program": PROGRAMS[engine],
            **seconds,
            "rate": result["images_per_second"][engine],
            "speed": speed[engine],
        }
        for engine, seconds in result["seconds"].items()
    ]
    columns = {
        "program": "program",
        **records.SECONDS,
        "rate": "images/s",
        "speed": "speed over the DataLoader's",
    }
    topic, title = "Export and inference", "Predictions on image files"
    return [records.make_table("predict", topic, title, columns, rows)]


def _agreement(ours: Sequence[Sequence[int]], peers: Sequence[Sequence[int]]) -> float:
    """Return the share of files whose best class of the peer is one of our best five.

    Raises:
        RuntimeError: It is low: the programs do different work.
    """
    found = [peer[0] in five for five, peer in zip(ours, peers, strict=True)]
    share = sum(found) / len(found)
    if share < MIN_AGREEMENT:
        raise RuntimeError(
            f"The peer's best class is one of the five best for {share:.0%} of the "
            f"files only; expected at least {MIN_AGREEMENT:.0%}."
        )
    return share


def _write_inputs(arguments: argparse.Namespace, folder: pathlib.Path) -> None:
    """Write a random model for both programs, and JPEG files of smooth noise."""
    import numpy as np
    import tensorflow as tf

    model = inference.make_random_model(arguments.shape, "map", arguments.image_size)
    model.save(folder / "model.keras")
    inference.write_for_timm(model, folder / "timm.safetensors")
    generator = np.random.default_rng(0)
    (folder / "files").mkdir()
    for number in range(arguments.files):
        noise = generator.uniform(0, 255, size=(24, 32, 3)).astype(np.float32)
        pixels = tf.cast(tf.image.resize(noise, (375, 500), "bicubic"), tf.uint8)
        content = tf.io.encode_jpeg(pixels, quality=90).numpy()
        (folder / "files" / f"{number:05}.jpg").write_bytes(content)


@contextlib.contextmanager
def _worker(
    python: str, engine: str, arguments: argparse.Namespace, folder: pathlib.Path
) -> Iterator[subprocess.Popen]:
    """Context manager: a process that makes a pass over the files for each line."""
    command = [python, str(WORKER), engine, str(folder)]
    command += [str(arguments.image_size), str(arguments.batch_size)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        yield worker


def _ask(worker: subprocess.Popen) -> list[list[int]]:
    """Return the five best classes of each file, after a pass."""
    worker.stdin.write("pass\n")  # type: ignore[union-attr]
    worker.stdin.flush()  # type: ignore[union-attr]
    answer = worker.stdout.readline()  # type: ignore[union-attr]
    if not answer:
        raise RuntimeError("A program ended before its result; its output is above.")
    return json.loads(answer)
