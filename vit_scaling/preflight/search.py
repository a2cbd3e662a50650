"""Find the largest batch that fits, in few compilations."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable

# From a batch to (whether it fits, bytes in all, bytes there are); None: not known.
Probe = Callable[[int], tuple[bool, float | None, float]]


def largest_batch(probe: Probe, *, multiple: int = 8, start: int | None = None) -> int:
    """Return the largest batch that fits among 1, 2, 4, … and multiples of `multiple`.

    Memory grows all but linearly with the batch, so two probes foretell the third; what
    is foretold is probed, and the gap between what fits and what does not is halved
    until it is one multiple.

    Args:
        probe: Compiles for a batch.
        multiple: Steps of the search; 8 rows make a tile on TPU. A power of two.
        start: First batch to probe; default `multiple`.

    Returns:
        The batch, or 0 if not even 1 fits.

    Raises:
        ValueError: `multiple` is not a power of two, or `start` no multiple of it.
    """
    check_multiple(multiple)
    start = multiple if start is None else start
    if start < multiple or start % multiple:
        raise ValueError(f"`start` must be a multiple of {multiple}; received {start}.")
    below, above = 0, None  # Largest that fits and smallest that does not.
    known: dict[int, tuple[float | None, float]] = {}
    batch = start
    while True:
        fits, used, limit = probe(batch)
        known[batch] = used, limit
        below, above = (batch, above) if fits else (below, batch)
        if above is not None and above - below <= multiple:
            break
        batch = _next(known, below, above, multiple)
    if below or multiple == 1:
        return below
    return _smaller(probe, multiple // 2)


def check_multiple(multiple: int, name: str = "multiple") -> None:
    """Refuse a step of the search that does not halve down to one.

    Raises:
        ValueError: It is not a power of two.
    """
    if multiple < 1 or multiple & (multiple - 1):
        raise ValueError(f"`{name}` must be a power of two; received {multiple}.")


def _next(
    known: dict[int, tuple[float | None, float]],
    below: int,
    above: int | None,
    multiple: int,
) -> int:
    """Return the batch to probe next, strictly between what is known."""
    guess = _foretold(known)
    if guess is None or not below:
        guess = 2 * below if above is None else (below + above) / 2
    batch = int(guess // multiple) * multiple
    # The line may err: never leave the gap, nor grow more than eight-fold at once.
    highest = 8 * max(below, multiple) if above is None else above - multiple
    return min(max(batch, below + multiple), highest)


def _foretold(known: dict[int, tuple[float | None, float]]) -> float | None:
    """Return where a line through the last two sizes reaches the limit."""
    points = [(b, used, limit) for b, (used, limit) in known.items() if used]
    if len(points) < 2:
        return None
    (b1, u1, _), (b2, u2, limit) = points[-2:]
    slope = (u2 - u1) / (b2 - b1)
    return b2 + (limit - u2) / slope if slope > 0 else None


def _smaller(probe: Probe, batch: int) -> int:
    """Return the largest power of two up to `batch` that fits, or 0."""
    while batch and not probe(batch)[0]:
        batch //= 2
    return batch
