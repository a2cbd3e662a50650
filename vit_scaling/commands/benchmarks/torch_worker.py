"""Measure timm's model of a shape; run by a Python that has torch and timm.

PYTHON torch_worker.py '{"shape": …, "modes": […], …}'   (prints rows as JSON)
PYTHON torch_worker.py --serve '{"shape": …, …}'   (trains as many steps as it reads)

It imports nothing of this package, and needs not be installed with TensorFlow.
"""
# SPDX-License-Identifier: Apache-2.0

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

# Width, depth, heads, MLP ratio, patch; this package's table, which is not imported.
SHAPES = {
    "mu/16": (32, 1, 2, 4.0, 16),
    "Ti/16": (192, 12, 3, 4.0, 16),
    "S/16": (384, 12, 6, 4.0, 16),
    "B/16": (768, 12, 12, 4.0, 16),
    "L/16": (1024, 24, 16, 4.0, 16),
    "G/14": (1664, 48, 16, 8192 / 1664, 14),
}


def measure(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each mode's images per second, peak memory and seconds of all steps."""
    import torch

    device = torch.device(request["device"])
    model, train, infer = _programs(torch, request, device)
    rows = []
    for mode in request["modes"]:
        model.train(mode == "training")
        step = {"training": train, "inference": infer}[mode]
        seconds, peak = _time(torch, step, request["steps"], device)
        rate = request["batch_size"] / statistics.median(seconds)
        row = {"mode": mode, "images_per_second": rate, "peak_memory_gib": peak}
        rows.append({**row, "seconds": seconds})
    return rows


def serve(request: dict[str, Any]) -> None:
    """Read numbers of training steps from standard input, and print their seconds."""
    import torch

    model, train, _ = _programs(torch, request, torch.device("cpu"))
    model.train()
    is_wall = request["clock"] == "wall"
    clock = time.perf_counter if is_wall else time.process_time
    for line in sys.stdin:
        started = clock()
        for _ in range(int(line)):
            train()
        print(json.dumps({"seconds": clock() - started}), flush=True)


def _programs(
    torch: Any, request: dict[str, Any], device: Any
) -> tuple[Any, Callable[[], None], Callable[[], None]]:
    """Return timm's model, a training step and an inference step."""
    from torchvision_operators import define_missing_operators  # In this folder.

    define_missing_operators(torch)
    from timm.models.vision_transformer import VisionTransformer

    width, depth, heads, ratio, patch = SHAPES[request["shape"]]
    model = VisionTransformer(
        img_size=request["image_size"],
        patch_size=patch,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=ratio,
        num_classes=request["classes"],
        class_token=False,
        global_pool="map",
    ).to(device)
    side = request["image_size"]
    images = torch.rand(request["batch_size"], 3, side, side, device=device)
    labels = torch.zeros(request["batch_size"], request["classes"], device=device)
    compiled = torch.compile(model) if request.get("torch_compile", True) else model
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    dtype = torch.bfloat16 if request["dtype"] == "mixed_bfloat16" else None

    def forward() -> Any:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            return compiled(images)

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        logits = forward().float()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, labels, reduction="none"
        )
        loss.sum(dim=-1).mean().backward()
        optimizer.step()

    def infer() -> None:
        with torch.no_grad():
            forward()

    return model, train, infer


def _time(
    torch: Any, step: Callable[[], None], steps: int, device: Any
) -> tuple[list[float], float | None]:
    """Return the seconds of each step, and the peak memory in GiB."""
    on_gpu = device.type == "cuda"

    def wait() -> None:
        if on_gpu:
            torch.cuda.synchronize()

    for _ in range(3):  # Compiles.
        step()
    wait()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(steps):
        started = time.perf_counter()
        step()
        wait()
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None
    return seconds, peak


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(json.loads(sys.argv[2]))
    else:
        print(json.dumps(measure(json.loads(sys.argv[1]))))
