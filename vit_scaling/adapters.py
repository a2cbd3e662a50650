"""Low-rank adapters (LoRA, Hu et al. 2022) as arrays by variable path; no TensorFlow.

A kernel W that has an adapter acts as W + scale · A B. The adapter's variables are next
to the kernel: `block_00/mlp/dense_0/lora_a`, `…/lora_b` and `…/lora_scale`.
"""
# SPDX-License-Identifier: Apache-2.0

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

A, B, SCALE = "lora_a", "lora_b", "lora_scale"
ADAPTED = re.compile(r"(.*/)?block_\d+/.*/kernel")  # Of attention and MLP (§4.2 there).
TRAINED = (rf".*/({A}|{B})", r"(.*/)?head/.*")  # Adapters and classifier.

_VARIABLE = re.compile(rf".*/({A}|{B}|{SCALE})")
Shape = tuple[int, ...]


def adapter_shapes(kernel: Sequence[int], outputs: int, rank: int) -> dict[str, Shape]:
    """Return the shapes of an adapter's variables by name.

    Args:
        kernel: Shape of the kernel: axes of the inputs, then of the outputs.
        outputs: Number of axes of the outputs.
        rank: Columns of A, rows of B.

    Example:
        >>> adapter_shapes((192, 3, 64), outputs=2, rank=8)
        {'lora_a': (192, 8), 'lora_b': (8, 3, 64), 'lora_scale': ()}
    """
    inputs = len(kernel) - outputs
    return {A: (*kernel[:inputs], rank), B: (rank, *kernel[inputs:]), SCALE: ()}


def with_adapters(variables: Mapping[str, Shape], rank: int) -> dict[str, Shape]:
    """Return a ViT's variables (path: shape) with those of adapters of a rank."""
    shapes = dict(variables)
    for path, kernel in variables.items():
        if ADAPTED.fullmatch(path):
            layer = path.removesuffix("/kernel")
            outputs = len(variables[f"{layer}/bias"])
            for name, shape in adapter_shapes(kernel, outputs, rank).items():
                shapes[f"{layer}/{name}"] = shape
    return shapes


def is_adapter(path: str) -> bool:
    """Whether a path is of an adapter's variable."""
    return bool(_VARIABLE.fullmatch(path))


def is_trained(path: str, patterns: Iterable[str] = TRAINED) -> bool:
    """Whether a pattern matches all of a variable's path."""
    return any(re.fullmatch(pattern, path) for pattern in patterns)


def merge(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return values by path with every adapter merged into its kernel.

    Sums are computed in float32. Values without adapters are returned as they are.
    """
    merged = {path: value for path, value in values.items() if not is_adapter(path)}
    for path in values:
        layer, _, name = path.rpartition("/")
        if name == A:
            parts = [values[f"{layer}/{part}"] for part in (A, B, SCALE)]
            a, b, scale = (np.asarray(part, np.float32) for part in parts)
            kernel = values[f"{layer}/kernel"]
            change = scale * np.tensordot(a, b, axes=1)
            merged[f"{layer}/kernel"] = (kernel + change).astype(kernel.dtype)
    return merged
