"""Time one inference engine in a separate process; run by its path.

`python inference_worker.py ENGINE FILE IMAGES.npy` loads FILE, runs the first image,
prints {"differs_by": …} of its logits from those in `expected.npy` in the folder of
IMAGES, then for each line "BATCH REPEATS" of standard input a JSON list of seconds.
It imports nothing of this package: the interpreter may have only the engine.
"""
# SPDX-License-Identifier: Apache-2.0

import json
import pathlib
import sys
import time
from collections.abc import Callable

import numpy as np

Engine = Callable[[np.ndarray], np.ndarray]


def saved_model(path: str) -> Engine:
    """Return the SavedModel's float signature, asked as a server asks it."""
    import tensorflow as tf

    from vit_scaling.export import serving_signatures as signatures

    signature = signatures.load_signature(path, signatures.FLOAT_SIGNATURE)
    return lambda images: signature(images=tf.constant(images))["logits"].numpy()


def onnxruntime(path: str) -> Engine:
    """Return the ONNX file under ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["logits"], {"images": images})[0]


def litert(path: str) -> Engine:
    """Return the LiteRT file under its interpreter, on every core."""
    import os

    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(path, num_threads=os.cpu_count()).get_signature_runner()
    return lambda images: runner(images=images)["logits"]


def torch_compile(path: str) -> Engine:
    """Return timm's model with the same weights under torch.compile."""
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:  # Built for another torch; timm asks only for its names.
        sys.modules.pop("torchvision", None)
        operators = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            operators.define(f"{operator}(Tensor a, Tensor b, float c) -> Tensor")
    from safetensors.torch import load_file
    from timm.models.vision_transformer import VisionTransformer

    arguments = json.loads(pathlib.Path(path).with_suffix(".json").read_text())
    model = VisionTransformer(**arguments).eval()
    model.load_state_dict(load_file(path), strict=True)
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
    "litert": litert,
    "torch_compile": torch_compile,
}


def main(engine: str, path: str, images_file: str) -> None:
    """Serve lines of standard input until it ends."""
    out, sys.stdout = sys.stdout, sys.stderr  # The engine's own output is not a result.
    images = np.load(images_file)
    run = ENGINES[engine](path)
    first = run(images[:1])
    expected = np.load(pathlib.Path(images_file).with_name("expected.npy"))
    differs_by = float(np.abs(first - expected[:1]).max())
    print(json.dumps({"differs_by": differs_by}), file=out, flush=True)
    for line in sys.stdin:
        batch, repeats = map(int, line.split())
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            run(images[:batch])
            seconds.append(time.perf_counter() - started)
        print(json.dumps(seconds), file=out, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
