"""A lowered training step as text: mend it for the compiler, name it, look into it."""
# SPDX-License-Identifier: Apache-2.0

import hashlib
import re
from collections import Counter
from collections.abc import Mapping

# `mhlo.copy` is no operation of StableHLO; a reshape to the same shape does the same.
_COPY = re.compile(r"mhlo\.copy (%\S+) : (tensor<[^>]*>)")
# Where a line of the program came from: says nothing of what it computes.
_LOCATION = re.compile(r"^#loc.*\n| loc\((?:[^()\"]|\"[^\"]*\"|\([^()]*\))*\)", re.M)
# A name that TensorFlow chose; what a custom call names is what it computes.
_SYMBOL = re.compile(r"(?<!custom_call )(?:@[\w.$\-]+|@\"[^\"]*\")")
_CUSTOM_CALL = re.compile(r"stablehlo\.custom_call @([\w.$\-]+)")
_TENSOR = re.compile(r"tensor<(?:([\dx]+)x)?([a-z]\w*)>")
_BITS = re.compile(r"\d+$")
# Custom calls that the TPU compiler knows (they direct it, or it expands them).
TPU_CUSTOM_CALLS = frozenset({"Sharding", "TopK", "SPMDFullToShardShape", "annotate"})


class UnsupportedError(ValueError):
    """The step has operations that XLA cannot compile, for a TPU or otherwise.

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
    """A batch that the step's micro-batches cannot share evenly.

    Attributes:
        micro_batches: How many there are.
    """

    def __init__(self, message: str, micro_batches: int) -> None:
        super().__init__(message)
        self.micro_batches = micro_batches


def mended(text: str) -> str:
    """Return a program of TensorFlow's with nothing in it but StableHLO.

    Args:
        text: What `experimental_get_compiler_ir(…)(stage="stablehlo")` gave.

    Raises:
        ValueError: An operation of another dialect is left.
    """
    text = _COPY.sub(r"stablehlo.reshape \1 : (\2) -> \2", text)
    foreign = sorted(set(re.findall(r"= \"?((?:mhlo|chlo|tf)\.\w+)", text)))
    if foreign:
        raise ValueError(
            f"The lowered step holds operations that are not StableHLO: "
            f"{', '.join(foreign)}. They cannot be handed to the TPU compiler."
        )
    return text


def fingerprint(text: str) -> str:
    """Return a hash of what a program computes: no locations, no chosen names."""
    bare = _LOCATION.sub("", text)
    names: dict[str, str] = {}
    bare = _SYMBOL.sub(lambda m: names.setdefault(m[0], f"@{len(names)}"), bare)
    return hashlib.sha256(bare.encode()).hexdigest()


def operations(text: str) -> dict[str, int]:
    """Return how often each operation occurs, the most frequent first."""
    found = Counter(re.findall(r"(?<==\s)\"?(\w+\.\w+)", text))
    return dict(found.most_common())


def foreign_calls(text: str) -> list[str]:
    """Return the custom calls in a program that the TPU compiler does not know."""
    return sorted(set(_CUSTOM_CALL.findall(text)) - TPU_CUSTOM_CALLS)


def argument_bytes(text: str) -> int:
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
        tensor_bytes(shape, dtype)
        for shape, dtype in _TENSOR.findall(_LOCATION.sub("", text[start.end() : end]))
    )


def tensor_bytes(shape: str, dtype: str) -> int:
    """Return the bytes of a tensor such as ("64x192", "bf16")."""
    count = 1
    for size in filter(None, shape.split("x")):
        count *= int(size)
    bits = _BITS.search(dtype)
    return count * (max(int(bits[0]), 8) // 8 if bits else 1)


def is_final(error: str | None) -> bool:
    """Return whether a program gets the same answer, or error, each time.

    So it is with what the TPU's memory or instructions lack; another error may come of
    this machine: its own memory, its files, a package.
    """
    if error is None or needed(error) is not None:
        return True
    return error.startswith(("INVALID_ARGUMENT", "UNIMPLEMENTED")) or lacks_hbm(error)


def lacks_hbm(error: str) -> bool:
    """Return whether an error says that the TPU's memory does not suffice."""
    return "RESOURCE_EXHAUSTED" in error and "hbm" in error.lower()


def needed(message: str) -> Mapping[str, float] | None:
    """Return the bytes that the compiler's error names, or None if it names none.

    Args:
        message: Of a RESOURCE_EXHAUSTED error; the bytes in it are rounded to 0.01 of
            their unit.

    Returns:
        {"used_bytes", "limit_bytes"}.
    """
    for pattern in _EXHAUSTED:
        found = pattern.search(message)
        if found is not None:
            used, limit = (
                float(text.rstrip("KMG")) * _UNITS[text.lstrip("0123456789.")]
                for text in found.groups()
            )
            return {"used_bytes": used, "limit_bytes": limit}
    return None


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_SIZE = r"([\d.]+[KMG]?)"
_EXHAUSTED = (
    re.compile(rf"[Uu]sed {_SIZE} of {_SIZE} hbm"),
    re.compile(rf"temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)"),
)
