"""Suggestions for misspelt names in error messages."""
# SPDX-License-Identifier: Apache-2.0

import difflib
from collections.abc import Iterable


def nearest(name: object, known: Iterable[str], *, count: int = 1) -> list[str]:
    """Return at most `count` known names that are close to `name`, the closest first.

    Case is ignored. Names that begin with `name` come first. The list is empty where
    nothing is close: a far-fetched suggestion is worse than none.

    Example:
        >>> nearest("adafacter", ["Adam", "Adafactor"])
        ['Adafactor']
        >>> nearest("zzz", ["Adam", "Adafactor"])
        []
    """
    by_folded = {one.casefold(): one for one in known}
    wanted = str(name).casefold()
    longer = [folded for folded in by_folded if wanted and folded.startswith(wanted)]
    close = difflib.get_close_matches(wanted, by_folded, n=count, cutoff=0.6)
    return [by_folded[folded] for folded in dict.fromkeys([*longer, *close])][:count]


def did_you_mean(name: object, known: Iterable[str], *, count: int = 1) -> str:
    """Return " Did you mean 'X'?" for an error message, or "" if nothing is close.

    Example:
        >>> did_you_mean("L/61", ["B/16", "L/16"])
        " Did you mean 'L/16'?"
    """
    names = [repr(one) for one in nearest(name, known, count=count)]
    return f" Did you mean {' or '.join(names)}?" if names else ""


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
