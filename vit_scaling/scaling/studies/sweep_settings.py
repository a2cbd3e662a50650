"""What runs were started with, so that they are not gone on with otherwise."""
# SPDX-License-Identifier: Apache-2.0

import io
import json
import os
import pathlib
import re
import tokenize
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vit_scaling.scaling.studies.sweep import Job

SETTINGS_FILE = "job.json"
# Which steps a trunk keeps for branches: it changes no number of the run.
_HARMLESS = "--branch_at="
_INCLUDE = re.compile(r"^include\s+['\"](.+)['\"]\s*$")
_SHOWN = 4  # Differences that an error names.
Find = Callable[[str], pathlib.Path]


def settings(arguments: Sequence[str], find: Find = pathlib.Path) -> dict[str, Any]:
    """Return arguments, and the lines of their gin files and what they include.

    Args:
        arguments: Of the training binary.
        find: From a gin file's name to its path, as the training binary finds it.
    """
    left = [
        word.partition("=")[2] for word in arguments if word.startswith("--gin_file=")
    ]
    files: dict[str, list[str]] = {}
    while left:
        name = left.pop(0)
        if name not in files and (path := _found(name, find)) is not None:
            files[name] = _lines(path.read_text(encoding="utf-8"))
            includes = (_INCLUDE.match(line) for line in files[name])
            left += [match[1] for match in includes if match]
    return {
        "arguments": [w for w in arguments if not w.startswith(_HARMLESS)],
        "gin_files": files,
    }


def check_settings(
    jobs: Iterable[Job], work: pathlib.Path, find: Find = pathlib.Path
) -> None:
    """Refuse to go on with a run, or to count it, under other settings than its own.

    A folder in which nothing was trained yet, or without job.json, is accepted.

    Raises:
        ValueError: A run was started otherwise; the message names what differs.
    """
    for job in jobs:
        path = work / job.trunk / SETTINGS_FILE
        if not job.is_branch and has_trained(path.parent):
            check_same(
                path,
                settings(job.arguments, find),
                "One table must not mix them: give another --output_dir (and "
                "--work_dir, where you give one), or take the former settings back.",
            )


def check_same(path: pathlib.Path, now: Mapping[str, Any], remedy: str) -> None:
    """Refuse other settings than those in a file; there may be no such file.

    Raises:
        ValueError: They differ; the message names in what, and the remedy.
    """
    if not path.is_file():
        return
    was = json.loads(path.read_text(encoding="utf-8"))
    if differences := _differences(was, now):
        more = len(differences) - _SHOWN
        told = "; ".join(differences[:_SHOWN])
        raise ValueError(
            f"{path.parent} was started with other settings: {told}"
            + (f"; and {more} more" if more > 0 else "")
            + f". {remedy}"
        )


def write_settings(path: pathlib.Path, record: Mapping[str, Any]) -> None:
    """Write settings into a folder, before its run starts or goes on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(record, indent=1) + "\n")


def write_whole(path: pathlib.Path, text: str) -> None:
    """Write a text file under another name and rename it: whole, or not at all."""
    working = path.with_name(f".writing_{path.name}")
    working.write_text(text, encoding="utf-8")
    os.replace(working, path)


def has_trained(folder: pathlib.Path) -> bool:
    """Return whether a run has left figures or checkpoints in its folder."""
    return (folder / "metrics.jsonl").is_file() or any(folder.glob("checkpoints/*"))


def _found(name: str, find: Find) -> pathlib.Path | None:
    try:
        path = find(name)
    except FileNotFoundError:  # The training binary says so, with the nearest name.
        return None
    return path if path.is_file() else None


def _lines(text: str) -> list[str]:
    """Return the lines of a gin file without comments: they bind nothing."""
    lines = text.splitlines()
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                row, column = token.start
                lines[row - 1] = lines[row - 1][:column]
    except (tokenize.TokenError, SyntaxError):  # Gin will say so.
        pass
    return [line.rstrip() for line in lines if line.strip()]


def _differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    before, after = _flat(was), _flat(now)
    names = dict.fromkeys([*before, *after])
    return [
        f"{name}: {before.get(name, 'not given')}, now {after.get(name, 'not given')}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def _flat(record: Mapping[str, Any]) -> dict[str, str]:
    """Return {what is set: to what}; repeated names, as of flags, are joined."""
    lines = [word.removeprefix("--gin_param=") for word in record["arguments"]]
    for file, bindings in record["gin_files"].items():
        lines += [f"{file}: {line}" for line in bindings]
    found: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition("=")
        found.setdefault(name.strip(), []).append(value.strip() or "given")
    return {name: " | ".join(values) for name, values in found.items()}
