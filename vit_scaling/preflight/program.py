"""Parse and normalise the text of a lowered training step."""
# SPDX-License-Identifier: Apache-2.0

import hashlib
import re

# `mhlo.copy` is not in StableHLO; a reshape to the same shape is equivalent.
_COPY = re.compile(r"mhlo\.copy (%\S+) : (tensor<[^>]*>)")
# The source of a line of the program, which does not change what it computes.
_LOCATION = re.compile(r"^#loc.*\n| loc\((?:[^()\"]|\"[^\"]*\"|\([^()]*\))*\)", re.M)
# A name that TensorFlow chose. The name in a custom call is what it computes.
_SYMBOL = re.compile(r"(?<!custom_call )(?:@[\w.$\-]+|@\"[^\"]*\")")
_CUSTOM_CALL = re.compile(r"stablehlo\.custom_call @([\w.$\-]+)")
_TENSOR = re.compile(r"tensor<(?:([\dx]+)x)?([a-z]\w*)>")
_BITS = re.compile(r"\d+$")
# Custom calls that the TPU compiler supports (directives, or expanded by it).
TPU_CUSTOM_CALLS = frozenset({"Sharding", "TopK", "SPMDFullToShardShape", "annotate"})


class UnsupportedError(ValueError):
    """The step has operations that XLA cannot compile for any device.

    Attributes:
        operations: Their names.
    """

    def __init__(self, operations: list[str]) -> None:
        super().__init__(
            f"XLA, and so a TPU, cannot run: {', '.join(operations)}. Move them to the "
            "input pipeline, or leave them out."
        )
        self.operations = operations


class IndivisibleBatchError(ValueError):
    """The batch is not divisible by the number of micro-batches.

    Attributes:
        micro_batches: The number of micro-batches.
    """

    def __init__(self, message: str, micro_batches: int) -> None:
        super().__init__(message)
        self.micro_batches = micro_batches


def make_pure_stablehlo(text: str) -> str:
    """Replace the operations in TensorFlow's output that are not StableHLO.

    Args:
        text: The result of `experimental_get_compiler_ir(…)(stage="stablehlo")`.

    Raises:
        ValueError: An operation of another dialect has no replacement.
    """
    text = _COPY.sub(r"stablehlo.reshape \1 : (\2) -> \2", text)
    foreign = sorted(set(re.findall(r"= \"?((?:mhlo|chlo|tf)\.\w+)", text)))
    if foreign:
        raise ValueError(
            f"The lowered step has operations that are not StableHLO: "
            f"{', '.join(foreign)}. The TPU compiler does not support them."
        )
    return text


def compute_fingerprint(text: str) -> str:
    """Return a hash of what a program computes, without locations and chosen names."""
    bare = _LOCATION.sub("", text)
    names: dict[str, str] = {}
    bare = _SYMBOL.sub(lambda m: names.setdefault(m[0], f"@{len(names)}"), bare)
    return hashlib.sha256(bare.encode()).hexdigest()


def find_unsupported_calls(text: str) -> list[str]:
    """Return the custom calls in a program that the TPU compiler does not support."""
    return sorted(set(_CUSTOM_CALL.findall(text)) - TPU_CUSTOM_CALLS)


def count_argument_bytes(text: str) -> int:
    """Return the bytes of a program's arguments, without padding.

    Raises:
        ValueError: The program has no public `main`.
    """
    start = re.search(r"func\.func (?:public )?@main\(", text)
    if start is None:
        raise ValueError("The lowered step has no function `main`.")
    depth, end = 1, start.end()
    while depth:
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        end += 1
    return sum(
        count_tensor_bytes(shape, dtype)
        for shape, dtype in _TENSOR.findall(_LOCATION.sub("", text[start.end() : end]))
    )


def count_tensor_bytes(shape: str, dtype: str) -> int:
    """Return the bytes of a tensor such as ("64x192", "bf16")."""
    count = 1
    for size in filter(None, shape.split("x")):
        count *= int(size)
    bits = _BITS.search(dtype)
    return count * (max(int(bits[0]), 8) // 8 if bits else 1)


def is_reproducible(error: str | None) -> bool:
    """Whether a program has the same result, or error, at every compilation.

    This holds if the TPU lacks memory or instructions. Another error may be caused by
    this machine: its memory, its files, a package.
    """
    if error is None or parse_memory_error(error) is not None:
        return True
    is_invalid = error.startswith(("INVALID_ARGUMENT", "UNIMPLEMENTED"))
    return is_invalid or is_out_of_memory(error)


def is_out_of_memory(error: str) -> bool:
    """Whether an error says that the TPU's memory is too small."""
    return "RESOURCE_EXHAUSTED" in error and "hbm" in error.lower()


def parse_memory_error(message: str) -> tuple[float, float] | None:
    """Return the bytes used and available in a compiler's error, or None without any.

    Args:
        message: Of a RESOURCE_EXHAUSTED error. Its bytes are rounded to 0.01 of their
            unit.
    """
    for pattern in _OUT_OF_MEMORY:
        match = pattern.search(message)
        if match is not None:
            return _parse_bytes(match[1]), _parse_bytes(match[2])
    return None


def _parse_bytes(text: str) -> float:
    return float(text.rstrip("KMG")) * _UNITS[text.lstrip("0123456789.")]


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_SIZE = r"([\d.]+[KMG]?)"
_OUT_OF_MEMORY = (
    re.compile(rf"[Uu]sed {_SIZE} of {_SIZE} hbm"),
    re.compile(rf"temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)"),
)
