"""Shared by all commands: parser, `--json` output, exit codes, progress, tables."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vit_scaling.io_files import json_text
from vit_scaling.library_messages import hide_library_messages

EXPECTED_ERRORS = (ValueError, OSError, ImportError, RuntimeError, KeyError)


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Print defaults other than None, False and empty lists."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, [], ""):
            return action.help
        return super()._get_help_string(action)


def make_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with `--json` and without abbreviated flags."""
    parser = argparse.ArgumentParser(
        description=description,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object on standard output, all else on standard error",
    )
    parser.add_argument(
        "--verbosity",
        type=int,
        default=0,
        help="1: also print the messages of TensorFlow and other libraries",
    )
    return parser


def add_feature_flags(add: Callable[..., Any]) -> None:
    """Add flags for the feature names of TFRecords that other programs have written.

    Args:
        add: `add_argument` of a parser or of a group of flags.
    """
    add("--image_key", help="feature of the image; default: image/encoded")
    add("--label_key", help="feature of the labels; default: image/class/label")
    add(
        "--key",
        help="feature that names a record; default: image/filename; may be the image",
    )
    add("--label_offset", type=int, help="added to labels; -1 if labels start at 1")


def image_size(text: str) -> int | tuple[int, int]:
    """Return a side in pixels, or (height, width) of HEIGHTxWIDTH; a flag's type."""
    sides = [int(side) for side in text.split("x")]
    if len(sides) > 2 or min(sides) < 1:
        raise ValueError(text)
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def add_averages_flag(add: Callable[..., Any]) -> None:
    """Add the flag that chooses between a run's averaged and last weights.

    Args:
        add: `add_argument` of a parser or of a group of flags.
    """
    add(
        "--averages",
        action=argparse.BooleanOptionalAction,
        help="averaged or last weights of a run; default: those that the run evaluates",
    )


def features_from_flags(arguments: argparse.Namespace) -> Any:
    """Return the `Features` that the flags of `add_feature_flags` describe."""
    from vit_scaling.data.examples import Features

    given = {
        "image": arguments.image_key,
        "label": arguments.label_key,
        "key": arguments.key,
        "label_offset": arguments.label_offset,
    }
    return Features(
        **{name: value for name, value in given.items() if value is not None}
    )


def select_flags(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return the values of some flags by name, as keyword arguments."""
    return {name: getattr(arguments, name) for name in names}


def run(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    command: Callable[[argparse.Namespace], Mapping[str, Any]],
    show: Callable[[Mapping[str, Any]], str],
) -> int:
    """Parse, run and print; return the exit code, 0 only on success.

    Args:
        parser: From `make_parser`, with the command's own flags.
        argv: Arguments without the program's name; None takes `sys.argv[1:]`.
        command: Maps the parsed flags to the result, a mapping that can be written as
            JSON. Everything it prints goes to standard error.
        show: Formats the result as text (without `--json`); "" prints nothing.
    """
    arguments = parser.parse_args(argv)
    hide_library_messages(arguments.verbosity)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            result = command(arguments)
    except Exception as error:
        expected = isinstance(error, (*EXPECTED_ERRORS, *_tensorflow_errors()))
        if not expected or os.environ.get("VIT_SCALING_TRACEBACK"):
            raise
        return report_error(parser, error)
    text = json_text(result).rstrip() if arguments.json else show(result)
    if text:
        print(text)
    return 0


def report_error(parser: argparse.ArgumentParser, error: Exception) -> int:
    """Print an error in one line, and return the exit code."""
    if isinstance(error, BrokenPipeError):
        raise error  # The reader has seen enough: `main` ends without a message.
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = getattr(error, "message", text)  # TensorFlow's, without the graph.
    print(f"{parser.prog}: error: {text}", file=sys.stderr)
    return 1


def _tensorflow_errors() -> tuple[type[Exception], ...]:
    """Return TensorFlow's base error class if TensorFlow has been imported."""
    errors = getattr(sys.modules.get("tensorflow"), "errors", None)
    return (errors.OpError,) if errors else ()


def make_progress_printer(
    every_seconds: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
    unit: str = "images",
) -> Callable[[int, int], None]:
    """Return a function of (done, total) that prints the rate and the time left.

    The first call says how much an earlier run has done; it does not count. Nor does
    the time before the first image, in which processes start.

    Args:
        every_seconds: Time between two lines; calls between them print nothing.
        clock: Returns the time in seconds.
        unit: What is counted.
    """
    first: tuple[float, int] | None = None
    last_printed = -math.inf

    def show(done: int, total: int) -> None:
        nonlocal first, last_printed
        now = clock()
        if first is None or done == first[1]:
            first = (now, done)
        if done < total and now - last_printed < every_seconds:
            return
        last_printed = now
        text = f"{done}/{total} {unit}"
        if done > first[1] and now > first[0]:
            rate = (done - first[1]) / (now - first[0])
            text += f", {rate:.3g}/s, {(total - done) / rate:.0f} s left"
        print(text, file=sys.stderr)

    return show


def table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> str:
    """Return rows as aligned text columns, those of numbers alone to the right."""
    columns = [
        [name, *map(str, cells)] for name, *cells in zip(header, *rows, strict=True)
    ]
    adjusted = []
    for column in columns:
        width = max(map(len, column))
        right = all(_is_number(cell) for cell in column[1:] if cell)
        cells = [c.rjust(width) if right else c.ljust(width) for c in column[1:]]
        adjusted.append([column[0].ljust(width), "-" * width, *cells])
    return "\n".join("  ".join(line).rstrip() for line in zip(*adjusted, strict=True))


def _is_number(cell: Any) -> bool:
    try:
        float(str(cell).rstrip("%x").replace(",", ""))
    except ValueError:
        return False
    return True
