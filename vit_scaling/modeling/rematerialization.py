"""Which parts of which blocks are computed again in the backward pass."""
# SPDX-License-Identifier: Apache-2.0

import re

PARTS = ("none", "attention", "mlp", "all")  # Of one block.


def recomputed_parts(policy: str, depth: int) -> list[str]:
    """Return which part of each block is computed again: one of `PARTS` per block.

    Args:
        policy: "none"; "all" keeps only a block's input; "attention" or "mlp" keep the
            other branch's activations and the input of the one named; "every_N" is
            "all" for blocks 0, N, 2N, … and "none" for the rest.
        depth: Number of blocks.

    Raises:
        ValueError: The policy is none of these.
    """
    match = re.fullmatch(r"every_([1-9][0-9]*)", str(policy))
    if match:
        return ["none" if n % int(match[1]) else "all" for n in range(depth)]
    if policy not in PARTS:
        raise ValueError(
            "`rematerialize` must be 'none', 'all', 'attention', 'mlp' or 'every_N' "
            f"(every N-th block); received {policy!r}."
        )
    return [policy] * depth
