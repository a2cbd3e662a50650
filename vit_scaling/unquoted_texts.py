"""Recognise a gin binding whose text lacks quotes."""
# SPDX-License-Identifier: Apache-2.0

import re
from collections.abc import Sequence
from pathlib import Path

# A binding to a word or a path without quotes.
_UNQUOTED = re.compile(
    r"(?P<name>[\w./]+)\s*=\s*(?P<value>(?:[A-Za-z_/~]|\.\.?/)[^'\"#()]*?)\s*(?:#.*)?"
)
_UNPARSED = re.compile(
    "Unable to parse|Failed to parse|malformed node|Expected newline"
)


def explain_unquoted_text(
    error: str, paths: Sequence[Path], bindings: Sequence[str]
) -> str | None:
    """Return a message on the first binding to a text without quotes, if there is one.

    Args:
        error: What gin said. The result is None unless gin could not parse a value.
        paths: Gin files.
        bindings: Bindings from the command line; the advice quotes them for a shell as
            well, which removes a pair of quotes.
    """
    if not _UNPARSED.search(error):
        return None
    lines = [
        (line, f"line {number} of {path}")
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    ]
    for line, place in [*lines, *((text, "--gin_param") for text in bindings)]:
        match = _UNQUOTED.fullmatch(line.strip())
        if match and match["value"] not in ("True", "False", "None"):
            quoted = f"{match['name']} = '{match['value']}'"
            if place == "--gin_param":
                quoted = f'--gin_param="{quoted}"'
            return (
                f"A text needs quotes in gin; received `{line.strip()}` ({place}). "
                f"Write {quoted}."
            )
    return None
