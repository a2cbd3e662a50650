"""Time one inference engine in a separate process; run by its path.

`python inference_worker.py ENGINE FILE IMAGES.npy [THREADS [CLOCK]]` loads FILE, runs
the first image on THREADS threads (default: one per processor) and prints
{"differs_by": …} of its logits from those in `expected.npy` in the folder of IMAGES.
For each line "BATCH REPEATS" of standard input it prints a JSON list of seconds.
It imports nothing of this package: the interpreter may have only the engine.
"""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Engine = Callable[[np.ndarray], np.ndarray]


def saved_model(path: str, threads: int) -> Engine:
    """Return the SavedModel's float signature, asked as a server asks it."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    from vit_scaling.export import serving_signatures as signatures

    signature = signatures.load_signature(path, signatures.FLOAT_SIGNATURE)
    return lambda images: signature(images=tf.constant(images))["logits"].numpy()


def onnxruntime(path: str, threads: int) -> Engine:
    """Return the ONNX file under ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )
    return lambda images: session.run(["logits"], {"images": images})[0]


def litert(path: str, threads: int) -> Engine:
    """Return the LiteRT file under its interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(path, num_threads=threads).get_signature_runner()
    return lambda images: runner(images=images)["logits"]


def load_timm_model(path: pathlib.Path) -> Any:
    """Return timm's model of a file of weights and of its arguments, in `path`.json."""
    import torch
    from torchvision_operators import define_missing_operators  # In this folder.

    define_missing_operators(torch)
    from safetensors.torch import load_file
    from timm.models.vision_transformer import VisionTransformer

    arguments = json.loads(path.with_suffix(".json").read_text())
    model = VisionTransformer(**arguments).eval()
    model.load_state_dict(load_file(path), strict=True)
    return model


def torch_compile(path: str, threads: int) -> Engine:
    """Return timm's model with the same weights under torch.compile."""
    import torch

    torch.set_num_threads(threads)
    model = load_timm_model(pathlib.Path(path))
    compiled = torch.compile(model, dynamic=False)  # Each batch its own program.

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            shown = torch.from_numpy(images).permute(0, 3, 1, 2)
            return compiled(shown).numpy()

    return run


ENGINES = {
    "saved_model": saved_model,
    "saved_model_xla": saved_model,
    "onnxruntime": onnxruntime,
    "onnxruntime_int8": onnxruntime,
    "litert": litert,
    "torch_compile": torch_compile,
}


def main(
    engine: str, path: str, images_file: str, threads: str = "", clock: str = "wall"
) -> None:
    """Serve lines of standard input until it ends."""
    out, sys.stdout = sys.stdout, sys.stderr  # The engine's own output is not a result.
    images = np.load(images_file)
    run = ENGINES[engine](path, int(threads or os.cpu_count() or 1))
    now = {"wall": time.perf_counter, "processor": time.process_time}[clock]
    first = run(images[:1])
    expected = np.load(pathlib.Path(images_file).with_name("expected.npy"))
    differs_by = float(np.abs(first - expected[:1]).max())
    print(json.dumps({"differs_by": differs_by}), file=out, flush=True)
    for line in sys.stdin:
        batch, repeats = map(int, line.split())
        seconds = []
        for _ in range(repeats):
            started = now()
            run(images[:batch])
            seconds.append(now() - started)
        print(json.dumps(seconds), file=out, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
