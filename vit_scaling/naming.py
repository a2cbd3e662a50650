"""Suggestions for misspelt names in error messages."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterable, Sequence

_SAME_BEGINNING = 1  # Distance of names of which one begins with the other.


def nearest(name: object, known: Iterable[str], *, count: int = 1) -> list[str]:
    """Return at most `count` known names that are close to `name`, the closest first.

    Close are names that begin or end with `name`, or it with them, and names that
    differ from it by one typing error in three characters. Case is ignored. Where more
    than `count` names are equally close, they are left out unless they begin alike: a
    far-fetched suggestion is worse than none.

    Example:
        >>> nearest("adafacter", ["Adam", "Adafactor"])
        ['Adafactor']
        >>> nearest("Q/16", ["S/16", "L/16"])
        []
    """
    by_distance: dict[int, list[str]] = {}
    for one in known:
        distance = _distance(str(name).casefold(), one.casefold())
        if distance is not None:
            by_distance.setdefault(distance, []).append(one)
    names: list[str] = []
    for distance, equal in sorted(by_distance.items()):
        if distance > _SAME_BEGINNING and len(names) + len(equal) > count:
            break
        names += equal
    return names[:count]


def _distance(wanted: str, name: str) -> int | None:
    """Return how far a known name is from the wanted one; None: it is not close."""
    errors = _count_typing_errors(wanted, name)
    shorter, longer = sorted([wanted, name], key=len)
    if errors and 3 * len(shorter) >= len(longer):
        if name.startswith(wanted):
            return _SAME_BEGINNING
        if longer.endswith(shorter):
            return _SAME_BEGINNING + 1
    allowed = min(max(1, len(name) // 3), len(wanted) - 1)
    if errors <= allowed:
        return 2 * errors
    return 2 * errors + 1 if wanted.startswith(name) else None


def _count_typing_errors(text: str, other: str) -> int:
    """Return how many characters to insert, delete, replace or swap (Damerau 1964)."""
    before, row = [0] * (len(other) + 1), list(range(len(other) + 1))
    for i, a in enumerate(text):
        before, last, row = row, before, [i + 1]
        for j, b in enumerate(other):
            row.append(min(before[j] + (a != b), before[j + 1] + 1, row[j] + 1))
            if i and j and a == other[j - 1] and text[i - 1] == b:
                row[-1] = min(row[-1], last[j - 1] + 1)
    return row[-1]


def did_you_mean(name: object, known: Iterable[str], *, count: int = 1) -> str:
    """Return " Did you mean 'X'?" for an error message, or "" if nothing is close.

    Example:
        >>> did_you_mean("L/61", ["B/16", "L/16"])
        " Did you mean 'L/16'?"
    """
    names = [repr(one) for one in nearest(name, known, count=count)]
    return f" Did you mean {' or '.join(names)}?" if names else ""


def list_some(names: Sequence[str], count: int = 5) -> str:
    """Return the first `count` names for a message, with "…" if there are more."""
    return ", ".join(names[:count]) + (" …" if len(names) > count else "")


def unknown_name_message(kind: str, name: object, known: Iterable[str]) -> str:
    """Return an error message: no such name, the nearest one, and all known names.

    Example:
        >>> unknown_name_message("law", "powr", ["power", "log"])
        "No law is called 'powr'. Did you mean 'power'? Known: power, log."
    """
    names = [str(one) for one in known]
    suggestion = did_you_mean(name, names)
    return f"No {kind} is called {name!r}.{suggestion} Known: {', '.join(names)}."


def check_known(argument: str, value: object, known: Iterable[str]) -> None:
    """Raise unless `value` is one of the known names.

    Raises:
        ValueError: It is not. The message names the argument, the value, the nearest
            known name and all known names.
    """
    names = list(known)
    if value not in names:
        raise ValueError(
            f"`{argument}` must be one of {', '.join(names)}; received {value!r}."
            f"{did_you_mean(value, names)}"
        )
