"""Latency and images per second of the SavedModel, compared with other engines."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vit_scaling.commands.benchmarks import alternation, records
from vit_scaling.commands.benchmarks.records import Table
from vit_scaling.modeling.head_specs import POOLING_HEADS

WORKER = pathlib.Path(__file__).with_name("inference_worker.py")
OURS = {"saved_model": False, "saved_model_xla": True}  # Whether XLA compiles it.
IMAGES = "images.npy"
PEERS = ("onnxruntime", "torch_compile")
# Far above what orders of summation, and 8 bits, do to logits of size 1.
TOLERANCE = {"onnxruntime_int8": 0.3}
DEFAULT_TOLERANCE = 1e-3
CONVERTED = {  # Of an engine: the kind of file, whether in 8 bits, and what it needs.
    "onnxruntime": ("onnx", False, ("tf2onnx", "onnxruntime")),
    "onnxruntime_int8": ("onnx", True, ("tf2onnx", "onnxruntime")),
    "litert": ("litert", False, ("ai_edge_litert",)),
}
ENGINES = {
    "saved_model": "SavedModel",
    "saved_model_xla": "SavedModel, `--jit_compile`",
    "onnxruntime": "ONNX Runtime",
    "onnxruntime_int8": "ONNX Runtime, `--int8`",
    "litert": "LiteRT",
    "torch_compile": "torch.compile (timm)",
}
PACKAGES = (*records.PACKAGES, "onnxruntime", "tf2onnx", "ai-edge-litert")
IMPORTS = ("import keras", "import vit_scaling.applications")
PERCENTILES = (50, 90, 99)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags: what to measure and how often."""
    add = parser.add_argument
    add("--shapes", nargs="+", default=["S/16", "B/16"], help="shapes' names")
    add("--batch_sizes", type=int, nargs="+", default=[1, 8, 32], help="images asked")
    add("--head", default="map", choices=POOLING_HEADS, help="pooling")
    add("--image_size", type=int, default=224, help="side of the images, pixels")
    add("--repeats", type=int, default=20, help="measured requests of each batch")
    add("--threads", type=int, help="of each engine (default: one per processor)")
    add(
        "--clock",
        default="wall",
        choices=alternation.CLOCKS,
        help="time to count; a machine with other work needs processor time, of one "
        "thread: several wait actively",
    )
    add(
        "--starts",
        type=int,
        default=3,
        help="processes started to time the first result",
    )
    add("--imports", type=int, default=5, help="processes started to import")
    add(
        "--torch_python",
        metavar=records.PYTHON,
        default=os.environ.get("VIT_SCALING_TORCH_PYTHON"),
        help="interpreter that has torch and timm; default: leave them out",
    )


def run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Return latencies by shape, engine and batch, start-up and import times.

    Every engine has the same weights and a separate process; they take turns request
    by request, so that a change in the machine's clock or load meets all of them. A
    request goes from a NumPy array to a NumPy array of logits.
    """
    alternation.check_positive(arguments, ("repeats", "starts", "imports"))
    if min(arguments.batch_sizes) < 1:
        raise ValueError(
            f"`--batch_sizes` must be at least 1; received {arguments.batch_sizes}."
        )
    result: dict[str, Any] = {"image_size": arguments.image_size, "shapes": {}}
    for shape in arguments.shapes:
        with tempfile.TemporaryDirectory() as folder:
            files = _write_models(shape, arguments, pathlib.Path(folder))
            result["shapes"][shape] = _measure(files, arguments)
    result["imports"] = _measure_imports(arguments.imports)
    return result


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return latencies next to the best peer's, times to a first result, imports."""
    latencies, starts = [], []
    for shape, measured in result["shapes"].items():
        for batch, engines in measured["batches"].items():
            for engine, row in engines.items():
                milliseconds = {k: 1000 * v for k, v in row["seconds"].items()}
                latencies.append(
                    {
                        "shape": shape,
                        "batch": str(batch),
                        "engine": ENGINES[engine],
                        "rate": row["images_per_second"],
                        "p50": alternation.spread_text(milliseconds, digits=1),
                        "p90": 1000 * row["p90_seconds"],
                        "ratio": row.get("ratio"),
                    }
                )
        for engine, seconds in measured["first_answer_spread"].items():
            cells = {"shape": shape, "engine": ENGINES[engine], "seconds": seconds}
            starts.append(cells)
    columns = {"shape": "shape", "batch": "batch", "engine": "engine"}
    columns |= {"rate": "images/s", "p50": "p50 (least to most), ms", "p90": "p90, ms"}
    columns["ratio"] = "time over the best peer's"
    start_columns = {"shape": "shape", "engine": "engine"}
    start_columns["seconds"] = "median (least to most), s"
    imports = [
        {"statement": f"`{statement}`", **seconds, "ratio": ratio}
        for (statement, seconds), ratio in zip(
            result["imports"]["seconds"].items(),
            (1.0, result["imports"]["ratio_of_rounds"]),
            strict=True,
        )
    ]
    import_columns = {"statement": "statement", **records.SECONDS}
    import_columns["ratio"] = "time over Keras'"
    titles = {
        "inference": "Inference next to other engines",
        "inference_start": "Inference: seconds to the first result",
        "inference_imports": "Seconds of imports next to Keras'",
    }
    contents = (columns, latencies), (start_columns, starts), (import_columns, imports)
    topic = "Export and inference"
    return [
        records.make_table(name, topic, title, *content)
        for (name, title), content in zip(titles.items(), contents, strict=True)
    ]


def make_random_model(shape: str, head: str, image_size: int) -> Any:
    """Return a Keras model of 1,000 classes whose logits differ."""
    import numpy as np

    from vit_scaling.modeling.vit import vit

    model = vit(shape, head, image_size=image_size, classes=1000)
    generator = np.random.default_rng(0)
    kernel = model.get_layer("head").kernel  # Zero at first: all logits were alike.
    kernel.assign(generator.normal(size=kernel.shape, scale=0.05))
    return model


def write_for_timm(model: Any, path: pathlib.Path) -> None:
    """Write what `inference_worker.load_timm_model` reads: weights, and arguments."""
    from vit_scaling.applications.weights import export_weights

    written = export_weights(model, str(path))
    path.with_suffix(".json").write_text(json.dumps(written["arguments"]))


def _write_models(
    shape: str, arguments: argparse.Namespace, folder: pathlib.Path
) -> dict[str, pathlib.Path]:
    """Write one random model for every available engine; return the engines' files."""
    import numpy as np

    from vit_scaling.export import onnx_litert, saved_model
    from vit_scaling.run_record import RunRecord

    size = arguments.image_size
    model = make_random_model(shape, arguments.head, size)
    record = RunRecord(tuple(map(str, range(1000))), (size, size))
    files = {engine: folder / engine for engine in OURS}
    for engine, jit_compile in OURS.items():
        saved_model.export_model(model, files[engine], record, jit_compile=jit_compile)
    for engine, (kind, int8, modules) in CONVERTED.items():
        if all(importlib.util.find_spec(name) for name in modules):
            onnx_litert.export_model(
                model, folder / engine, record, kind=kind, int8=int8
            )
            files[engine] = folder / engine / onnx_litert.FILES[kind]
    if arguments.torch_python:
        files["torch_compile"] = folder / "timm.safetensors"
        write_for_timm(model, files["torch_compile"])
    largest = max(arguments.batch_sizes)
    images = saved_model.make_random_images(largest, record, seed=0)
    np.save(folder / IMAGES, images)
    np.save(folder / "expected.npy", model(images[:1]))
    return files


def _measure(
    files: Mapping[str, pathlib.Path], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Return latencies by batch and engine, and the time to the first result."""
    first: dict[str, list[float]] = {engine: [] for engine in files}
    for _ in range(arguments.starts - 1):
        for engine, file in files.items():
            with _worker(engine, file, arguments) as (_, seconds, _):
                first[engine].append(seconds)
    batches: dict[int, dict[str, Any]] = {}
    differs_by = {}
    with contextlib.ExitStack() as stack:
        workers = {}
        for engine, file in files.items():
            worker = _worker(engine, file, arguments)
            workers[engine], seconds, differs_by[engine] = stack.enter_context(worker)
            first[engine].append(seconds)
        for batch in arguments.batch_sizes:
            taken = _take_turns(workers, batch, arguments.repeats)
            batches[batch] = {
                engine: statistics_of(batch, seconds)
                for engine, seconds in taken.items()
            }
            add_ratios(batches[batch], taken)
    return {
        "batches": batches,
        "first_answer_seconds": {
            engine: statistics.median(seconds) for engine, seconds in first.items()
        },
        "first_answer_spread": {
            engine: alternation.spread(seconds) for engine, seconds in first.items()
        },
        "logits_differ_by": differs_by,
    }


def _take_turns(
    workers: Mapping[str, subprocess.Popen], batch: int, repeats: int
) -> dict[str, list[float]]:
    """Return each engine's seconds of `repeats` requests, after two that warm it up."""
    for worker in workers.values():
        _ask(worker, f"{batch} 2\n")
    taken: dict[str, list[float]] = {engine: [] for engine in workers}
    for _ in range(repeats):
        for engine, worker in workers.items():
            taken[engine] += _ask(worker, f"{batch} 1\n")
    return taken


def statistics_of(batch: int, seconds: Sequence[float]) -> dict[str, Any]:
    """Return percentiles of requests' seconds, and images per second at the median."""
    import numpy as np

    found = dict(zip(PERCENTILES, np.percentile(seconds, PERCENTILES), strict=True))
    return {
        "images_per_second": batch / float(found[50]),
        **{f"p{name}_seconds": float(value) for name, value in found.items()},
        "seconds": alternation.spread(seconds),
    }


def add_ratios(
    engines: dict[str, dict[str, Any]], seconds: Mapping[str, Sequence[float]]
) -> None:
    """Add to each engine its time over the best peer's, if there is a peer.

    `time_over_best_peer` is of medians, `ratio` its spread over the rounds.
    """
    peers = {name: engines[name]["p50_seconds"] for name in PEERS if name in engines}
    if not peers:
        return
    best = min(peers, key=peers.__getitem__)
    for name, row in engines.items():
        row["time_over_best_peer"] = row["p50_seconds"] / peers[best]
        row["ratio"] = alternation.ratio_spread(seconds[name], seconds[best])


@contextlib.contextmanager
def _worker(
    engine: str, file: pathlib.Path, arguments: argparse.Namespace
) -> Iterator[tuple[subprocess.Popen, float, float]]:
    """Context manager: a process after its first result, its seconds and difference.

    Raises:
        RuntimeError: The process failed, or its logits are not the model's.
    """
    python = sys.executable
    if engine == "torch_compile":
        python = arguments.torch_python
    images = next(
        parent / IMAGES for parent in file.parents if (parent / IMAGES).is_file()
    )
    started = time.perf_counter()
    command = [python, str(WORKER), engine, str(file), str(images)]
    command += [str(arguments.threads or ""), arguments.clock]
    # Leaving the block closes its input, which ends the process.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        response = json.loads(_line(worker) or "{}")
        seconds = time.perf_counter() - started
        difference = response.get("differs_by", float("nan"))
        if not difference <= TOLERANCE.get(engine, DEFAULT_TOLERANCE):
            raise RuntimeError(
                f"{engine} under {python} differs from the model by {difference}. "
                "Its output is above."
            )
        yield worker, seconds, difference


def _line(worker: subprocess.Popen) -> str:
    return worker.stdout.readline()  # type: ignore[union-attr]


def _ask(worker: subprocess.Popen, line: str) -> list[float]:
    worker.stdin.write(line)  # type: ignore[union-attr]
    worker.stdin.flush()  # type: ignore[union-attr]
    response = _line(worker)
    if not response:
        raise RuntimeError("An engine's process ended before it gave a result.")
    return json.loads(response)


def _measure_imports(number: int) -> dict[str, Any]:
    """Return the seconds of both imports in fresh processes, and their ratio."""
    taken: dict[str, list[float]] = {statement: [] for statement in IMPORTS}
    for attempt in range(number + 1):
        for statement, seconds in taken.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            if attempt:  # The first reads files from the disk.
                seconds.append(time.perf_counter() - started)
    keras, ours = (statistics.median(taken[statement]) for statement in IMPORTS)
    return {
        "keras_seconds": keras,
        "applications_seconds": ours,
        "ratio": ours / keras,
        "seconds": {name: alternation.spread(values) for name, values in taken.items()},
        "ratio_of_rounds": alternation.ratio_spread(
            *(taken[name] for name in IMPORTS[::-1])
        ),
    }
