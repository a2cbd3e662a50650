"""Find the largest batch that fits, with few compilations."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable

# From a batch to (whether it fits, bytes used or None if unknown, bytes available).
Probe = Callable[[int], tuple[bool, float | None, float]]


def find_largest_batch(probe: Probe, *, multiple: int = 8) -> int:
    """Return the largest batch that fits among 1, 2, 4, … and multiples of `multiple`.

    Memory grows almost linearly with the batch, so two probes predict the next one. The
    gap between what fits and what does not is narrowed until it is one multiple.

    Args:
        probe: Compiles for a batch.
        multiple: Step of the search and first batch to probe, a power of two. On a TPU
            a tile has 8 rows.

    Returns:
        The batch, or 0 if not even 1 fits.

    Raises:
        ValueError: `multiple` is not a power of two.
    """
    check_multiple(multiple)
    below, above = 0, None  # The largest that fits and the smallest that does not.
    used_bytes: list[tuple[int, float]] = []
    batch = multiple
    while True:
        fits, used, limit = probe(batch)
        if used:
            used_bytes.append((batch, used))
        below, above = (batch, above) if fits else (below, batch)
        if above is not None and above - below <= multiple:
            break
        predicted = _predict_largest(used_bytes, limit) if below else None
        batch = _choose_batch(predicted, below, above, multiple)
    if below or multiple == 1:
        return below
    batch = multiple // 2
    while batch and not probe(batch)[0]:
        batch //= 2
    return batch


def check_multiple(multiple: int, name: str = "multiple") -> None:
    """Raise unless the step of the search is a power of two.

    Raises:
        ValueError: It is not; the message gives its `name`.
    """
    if multiple < 1 or multiple & (multiple - 1):
        raise ValueError(f"`{name}` must be a power of two; received {multiple}.")


def _predict_largest(used_bytes: list[tuple[int, float]], limit: float) -> float | None:
    """Return the batch at which a line through the last two sizes reaches the limit."""
    if len(used_bytes) < 2:
        return None
    (batch1, used1), (batch2, used2) = used_bytes[-2:]
    slope = (used2 - used1) / (batch2 - batch1)
    return batch2 + (limit - used2) / slope if slope > 0 else None


def _choose_batch(
    predicted: float | None, below: int, above: int | None, multiple: int
) -> int:
    """Return the next batch to probe, strictly between `below` and `above`."""
    if predicted is None:
        predicted = 2 * below if above is None else (below + above) / 2
    batch = int(predicted // multiple) * multiple
    # The prediction may be wrong: stay in the gap, and grow at most eight-fold.
    highest = 8 * max(below, multiple) if above is None else above - multiple
    return min(max(batch, below + multiple), highest)
