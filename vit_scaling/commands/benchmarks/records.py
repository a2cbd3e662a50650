"""Tables of a benchmark's results, and the records that the results page shows."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import dataclasses
import json
import math
import os
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling import io_files
from vit_scaling.commands import cli, installation
from vit_scaling.commands.benchmarks import alternation

# Columns of `alternation.spread`.
SECONDS = {"min": "least, s", "median": "median, s", "max": "most, s"}
RATES = {"min": "least, images/s", "median": "median", "max": "most"}
PACKAGES = (*installation.TENSORFLOW_BUILDS, "keras")  # Of most benchmarks.
PEER_PACKAGES = ("torch", "timm")
PYTHON = "PYTHON"  # The metavar of a flag for the interpreter of a peer.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
KEPT = ("note", "figure")  # What the author of a record wrote.
_NOT_RECORDED = ("record", "json", "verbosity")
_LIST_PACKAGES = (
    "import importlib.metadata, json; print(json.dumps({str(d.metadata['Name']).lower()"
    ": d.version for d in importlib.metadata.distributions()}))"
)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of a result.

    Attributes:
        name: The record's file name without .json.
        topic: Its heading on the results page, one of docs/topics.json.
        title: What the table compares.
        columns: Their titles, the same in each run of the benchmark.
        rows: The cells of each row.
    """

    name: str
    topic: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def make_table(
    name: str,
    topic: str,
    title: str,
    columns: Mapping[str, str],
    rows: Sequence[Mapping[str, Any]],
) -> Table:
    """Return a table of some values of each row.

    Args:
        name: See `Table`.
        topic: See `Table`.
        title: See `Table`.
        columns: Titles by the values' keys. A key that a row lacks leaves a cell empty.
        rows: Values by key, which `cell_text` formats.
    """
    cells = tuple(tuple(cell_text(row.get(key)) for key in columns) for row in rows)
    return Table(name, topic, title, tuple(columns.values()), cells)


def cell_text(value: Any) -> str:
    """Return text as it is, numbers with three digits, spreads as "1.0 (0.9 to 1.2)".

    Example:
        >>> [cell_text(value) for value in (None, 1600, 0.12345, 2362.9)]
        ['', '1,600', '0.123', '2,363']
    """
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, Mapping):
        return alternation.spread_text(value)
    if isinstance(value, int):
        return f"{value:,}"
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{max(0, digits)}f}"


def titles(*keys: str) -> dict[str, str]:
    """Return columns whose titles are the keys of the values.

    Example:
        >>> titles("records", "host_peak_mib")
        {'records': 'records', 'host_peak_mib': 'host peak MiB'}
    """
    return {key: key.replace("_", " ").replace("mib", "MiB") for key in keys}


def show(tables: Sequence[Table]) -> str:
    """Return the tables as text, each below its title."""
    texts = [f"{one.title}\n{cli.table(one.rows, one.columns)}" for one in tables]
    return "\n\n".join(texts)


def make_folder(path: str) -> None:
    """Make the folder of `--record`, before anything is measured.

    Raises:
        ValueError: The path is a file.
    """
    if os.path.isfile(path):
        raise ValueError(
            f"`--record` must be a folder, into which a file is written for each "
            f"table; received the file {path!r}."
        )
    os.makedirs(path, exist_ok=True)


def write_records(
    folder: str, tables: Sequence[Table], origin: Mapping[str, str]
) -> None:
    """Write a record of each table; an earlier record's note and figure are kept.

    Args:
        folder: Where the records are, such as vit_scaling/docs/results.
        tables: Of the benchmark's result.
        origin: The command, the date, the machine and the versions.
    """
    for table in tables:
        path = pathlib.Path(folder) / f"{table.name}.json"
        earlier = io_files.read_json(path) if path.exists() else {}
        kept = {key: earlier[key] for key in KEPT if key in earlier}
        for key, value in kept.items():
            print(f"{path} keeps its {key}; check it: {value}", file=sys.stderr)
        record = {
            "topic": table.topic,
            "title": table.title,
            **kept,
            "columns": table.columns,
            "rows": table.rows,
            **origin,
        }
        io_files.write_json(path, record)


def command_text(
    name: str,
    parser: argparse.ArgumentParser,
    arguments: argparse.Namespace,
    environment: Mapping[str, str] = os.environ,
) -> str:
    """Return the command that measures again, without paths of this machine.

    It has the flags that differ from their defaults, and the numbers of threads that
    the environment sets. A flag with a metavar takes a path, which it replaces.

    Args:
        name: The benchmark's.
        parser: Has the benchmark's flags.
        arguments: The parsed flags.
        environment: Such as `os.environ`.
    """
    words = [f"{v}={environment[v]}" for v in THREAD_VARIABLES if v in environment]
    words += ["vit-scaling", "benchmark", name]
    for action in parser._actions:
        value = getattr(arguments, action.dest, None)
        flag = action.option_strings[-1]
        if action.metavar == PYTHON:  # Its default may come from the environment.
            words += [f"{flag}={PYTHON}"] if peer_python(arguments) else []
        elif action.dest in _NOT_RECORDED or value in (action.default, None):
            continue
        elif isinstance(value, bool):
            words.append(flag)
        elif isinstance(value, list):
            words += [flag, *(shlex.quote(str(each)) for each in value)]
        else:
            text = _without_path(str(value), str(action.metavar or ""))
            words.append(f"{flag}={shlex.quote(text)}")
    return " ".join(words)


def _without_path(text: str, metavar: str) -> str:
    """Return the metavar in place of a path, which may follow a kind: folder:PATH."""
    kind, colon, path = text.rpartition(":")
    is_path = metavar and (os.sep in path or os.path.exists(path))
    return f"{kind}{colon}{metavar}" if is_path else text


def peer_python(arguments: argparse.Namespace) -> str | None:
    """Return the interpreter of a peer that is measured, or None."""
    if getattr(arguments, "measure", "peers") != "peers":  # Of `benchmark step`.
        return None
    flags = vars(arguments)
    return flags.get("torch_python") or flags.get("python") or None


def versions_text(module: Any, arguments: argparse.Namespace) -> str:
    """Return the versions of the packages that a benchmark uses, and of its peer's.

    Args:
        module: Of the benchmark. Its PACKAGES and PEER_PACKAGES, as pip names them,
            replace the ones of this module. Those that are not installed are left out.
        arguments: The parsed flags.
    """
    found = _find_versions(getattr(module, "PACKAGES", PACKAGES), sys.executable)
    if python := peer_python(arguments):
        found += _find_versions(getattr(module, "PEER_PACKAGES", PEER_PACKAGES), python)
    return ", ".join(found)


def _find_versions(packages: Sequence[str], python: str) -> list[str]:
    done = subprocess.run(
        [python, "-c", _LIST_PACKAGES], check=False, capture_output=True, text=True
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"{python} does not list its packages: {last}")
    found = json.loads(done.stdout)
    names = (name for name in packages if name.lower() in found)
    return [f"{name} {found[name.lower()]}" for name in names]
