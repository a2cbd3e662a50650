"""Policies of rematerialisation: the parts of blocks recomputed going backward."""
# SPDX-License-Identifier: Apache-2.0

import re

PARTS = ("none", "attention", "mlp", "all")  # Of one block.


def recomputed_parts(policy: str, depth: int) -> list[str]:
    """Return the recomputed part of each block, one of `PARTS`.

    Args:
        policy: "none"; "all" keeps only a block's input; "attention" or "mlp" keeps the
            input of that branch and the other branch's activations; "every_N" is "all"
            for blocks 0, N, 2N, … and "none" for the others.
        depth: Number of blocks.

    Raises:
        ValueError: `policy` is not one of these.
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
