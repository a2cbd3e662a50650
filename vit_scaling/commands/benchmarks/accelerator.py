"""Speed and peak memory of training and inference on this machine's accelerator."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import json
import pathlib
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands.benchmarks import records, step
from vit_scaling.commands.benchmarks.alternation import spread, time_alternating
from vit_scaling.commands.benchmarks.records import Table

TORCH_WORKER = pathlib.Path(__file__).with_name("torch_worker.py")
# Images per step; G/14 is only used for inference.
TRAINING = {"Ti/16": 256, "S/16": 128, "B/16": 64, "L/16": 32}
INFERENCE_ONLY = {"G/14": 8}
TINY = {"mu/16": 2}
PEER = "timm, torch.compile"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags: the device, the comparison and the files to write."""
    add = parser.add_argument
    add(
        "--device",
        default="gpu",
        choices=("gpu", "cpu"),
        help="cpu: one tiny model, to try the command without a GPU",
    )
    add("--steps", type=int, default=20, help="measured steps; the median is reported")
    add(
        "--torch_python",
        metavar=records.PYTHON,
        help="a Python with torch and timm, to compare with",
    )
    add(
        "--preflight",
        metavar="FILE",
        help="JSON file of vit-scaling preflight --json for B/16 and as many images, "
        "whose memory is compared with the measured",
    )
    add(
        "--output_dir",
        metavar="FOLDER",
        help="write accelerator.json and accelerator.md to this folder",
    )


def run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Return rows of a model, a mode, images per second and peak memory.

    Raises:
        ValueError: TensorFlow sees no GPU.
    """
    rows = []
    on_gpu = arguments.device == "gpu"
    device = _find_device(on_gpu)
    for shape, batch in (TRAINING if on_gpu else TINY).items():
        rows += _measure(arguments, shape, batch, ("training", "inference"), on_gpu)
    for shape, batch in INFERENCE_ONLY.items() if on_gpu else ():
        rows += _measure(arguments, shape, batch, ("inference",), on_gpu)
    result = {
        "device": device,
        "rows": rows,
        "preflight": _compare_memory(arguments.preflight, rows),
    }
    if arguments.output_dir:
        folder = pathlib.Path(arguments.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "accelerator.json").write_text(json.dumps(result, indent=1))
        (folder / "accelerator.md").write_text(_markdown(result))
    return result


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return speed and memory next to timm's, and the preflight's memory."""
    peers = {
        (row["shape"], row["mode"]): row["images_per_second"]
        for row in result["rows"]
        if row["engine"] == PEER
    }
    rows = []
    for row in result["rows"]:
        peer = peers.get((row["shape"], row["mode"]))
        speed = row["images_per_second"] / peer if peer else None
        cells = {**row, **row["seconds"], "batch": str(row["batch"]), "speed": speed}
        rows.append(cells)
    columns = {name: name for name in ("shape", "batch", "mode", "engine")}
    columns |= {**records.SECONDS, "images_per_second": "images/s"}
    columns |= {"peak_memory_gib": "peak GiB", "speed": "speed over timm's, medians"}
    title = f"Training and inference on {result['device']}"
    found = [records.make_table("accelerator", "Training", title, columns, rows)]
    if result["preflight"] is not None:
        columns = {"compiled_gib": "preflight, GiB", "measured_gib": "measured, GiB"}
        columns["ratio"] = "ratio"
        title = "Memory of B/16's training step, compiled and measured"
        rows = [result["preflight"]]
        name = "accelerator_memory"
        found.append(records.make_table(name, "Planning", title, columns, rows))
    return found


def _find_device(on_gpu: bool) -> str:
    import tensorflow as tf

    from vit_scaling.training.strategy import grow_gpu_memory

    gpus = tf.config.list_physical_devices("GPU")
    if on_gpu and not gpus:
        raise ValueError(
            "`--device=gpu` needs a GPU, and TensorFlow sees none: vit-scaling doctor "
            "says why. --device=cpu tries the command on a tiny model."
        )
    grow_gpu_memory()
    if not on_gpu:
        return platform.processor() or platform.machine()
    details = tf.config.experimental.get_device_details(gpus[0])
    return str(details.get("device_name"))


def _measure(
    arguments: argparse.Namespace,
    shape: str,
    batch: int,
    modes: tuple[str, ...],
    on_gpu: bool,
) -> list[dict[str, Any]]:
    """Return rows of this package, and of timm if it is compared."""
    import keras
    import tensorflow as tf

    settings = argparse.Namespace(
        shape=shape,
        head="map",
        image_size=224 if on_gpu else 32,
        classes=1000 if on_gpu else 10,
        batch_size=batch,
        dtype="mixed_bfloat16" if on_gpu else "float32",
        jit_compile=True,
        rematerialize="none",
    )
    rows = []
    for mode in modes:
        keras.backend.clear_session()
        if on_gpu:
            tf.config.experimental.reset_memory_stats("GPU:0")
        train, infer = step.make_programs(settings, trains="training" in modes)
        program = {"training": train, "inference": infer}[mode]
        samples = time_alternating({mode: program}, rounds=arguments.steps)
        peak = None
        if on_gpu:
            peak = tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**30
        seconds = samples[mode]
        rate = batch / statistics.median(seconds)
        rows.append(_row(shape, batch, mode, "vit_scaling", rate, peak, seconds))
    if arguments.torch_python:
        for found in _measure_timm(arguments, settings, modes, on_gpu):
            rows.append(_row(shape, batch, engine=PEER, **found))
    return rows


def _measure_timm(
    arguments: argparse.Namespace,
    settings: argparse.Namespace,
    modes: tuple[str, ...],
    on_gpu: bool,
) -> list[dict[str, Any]]:
    request = {
        **vars(settings),
        "modes": modes,
        "steps": arguments.steps,
        "device": "cuda" if on_gpu else "cpu",
    }
    done = subprocess.run(
        [arguments.torch_python, str(TORCH_WORKER), json.dumps(request)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"timm could not be measured: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def _row(
    shape: str,
    batch: int,
    mode: str,
    engine: str,
    images_per_second: float,
    peak_memory_gib: float | None,
    seconds: Sequence[float] = (),
) -> dict[str, Any]:
    return {
        "shape": shape,
        "batch": batch,
        "mode": mode,
        "engine": engine,
        "images_per_second": images_per_second,
        "peak_memory_gib": peak_memory_gib,
        "seconds": spread(seconds) if seconds else {},
    }


def _compare_memory(
    path: str | None, rows: list[dict[str, Any]]
) -> dict[str, float] | None:
    """Return the preflight's memory of B/16's training step next to the measured."""
    measured = [
        row["peak_memory_gib"]
        for row in rows
        if (row["shape"], row["mode"], row["engine"])
        == ("B/16", "training", "vit_scaling")
    ]
    if path is None or not measured or measured[0] is None:
        return None
    report = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    compiled = report["total_bytes"] / 2**30
    return {
        "compiled_gib": compiled,
        "measured_gib": measured[0],
        "ratio": measured[0] / compiled,
    }


def _markdown(result: Mapping[str, Any]) -> str:
    table = tables(result)[0]
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"{result['device']}\n\n{text}\n"
