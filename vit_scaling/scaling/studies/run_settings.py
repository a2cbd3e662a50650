"""Record the settings of a training run, and detect that they have changed."""
# SPDX-License-Identifier: Apache-2.0

import io
import re
import tokenize
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from vit_scaling.io_files import read_json

# The steps that a trunk keeps for branches do not change its results.
_HARMLESS = "--branch_at="
_INCLUDE = re.compile(r"^include\s+['\"](.+)['\"]\s*$")
_MAX_SHOWN = 4  # Differences that an error names.
FindFile = Callable[[str], epath.Path]


def collect_settings(
    arguments: Sequence[str], find_file: FindFile = epath.Path
) -> dict[str, Any]:
    """Return a run's arguments and the lines of its gin files, includes among them.

    Args:
        arguments: Of the training binary.
        find_file: Maps a gin file's name to its path, as the training binary does.
    """
    pending = [
        word.partition("=")[2] for word in arguments if word.startswith("--gin_file=")
    ]
    files: dict[str, list[str]] = {}
    while pending:
        name = pending.pop(0)
        if name not in files and (path := _existing_path(name, find_file)) is not None:
            files[name] = _code_lines(path.read_text(encoding="utf-8"))
            includes = (_INCLUDE.match(line) for line in files[name])
            pending += [match[1] for match in includes if match]
    return {
        "arguments": [w for w in arguments if not w.startswith(_HARMLESS)],
        "gin_files": files,
    }


def check_unchanged(path: epath.Path, settings: Mapping[str, Any], remedy: str) -> None:
    """Raise if `settings` differ from those in a file. The file may be missing.

    Raises:
        ValueError: They differ; the message names the differences and the remedy.
    """
    if path.is_file() and (differences := _differences(read_json(path), settings)):
        more = len(differences) - _MAX_SHOWN
        raise ValueError(
            f"{path.parent} was started with other settings: "
            + "; ".join(differences[:_MAX_SHOWN])
            + (f"; and {more} more" if more > 0 else "")
            + f". {remedy}"
        )


def has_trained(folder: epath.Path) -> bool:
    """Whether a run has written metrics or checkpoints into its folder."""
    return (folder / "metrics.jsonl").is_file() or any(folder.glob("checkpoints/*"))


def _existing_path(name: str, find_file: FindFile) -> epath.Path | None:
    try:
        path = find_file(name)
    except FileNotFoundError:  # The training binary reports it with the nearest name.
        return None
    return path if path.is_file() else None


def _code_lines(text: str) -> list[str]:
    """Return the lines of a gin file without comments, which bind nothing."""
    lines = text.splitlines()
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                row, column = token.start
                lines[row - 1] = lines[row - 1][:column]
    except (tokenize.TokenError, SyntaxError):  # Gin reports it.
        pass
    return [line.rstrip() for line in lines if line.strip()]


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    old, new = _values_by_name(before), _values_by_name(now)
    return [
        f"{name}: {old.get(name, 'not given')}, now {new.get(name, 'not given')}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def _values_by_name(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return {name: value} of all settings; values of repeated flags are joined."""
    lines = [word.removeprefix("--gin_param=") for word in settings["arguments"]]
    for file, bindings in settings["gin_files"].items():
        lines += [f"{file}: {line}" for line in bindings]
    values: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition("=")
        values.setdefault(name.strip(), []).append(value.strip() or "given")
    return {name: " | ".join(found) for name, found in values.items()}
