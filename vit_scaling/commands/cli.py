"""What every command shares: a parser, one JSON object on request, errors as text."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vit_scaling.io_files import json_text

EXPECTED_ERRORS = (ValueError, OSError, ImportError, RuntimeError, KeyError)


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with `--json`; abbreviations are off: a typo is refused."""
    made = argparse.ArgumentParser(
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object on standard output, all else on standard error",
    )
    return made


def add_feature_flags(made: argparse.ArgumentParser) -> None:
    """Add the flags of `features`: the keys of sets that others have written."""
    made.add_argument("--image_key", help="of the image; default: image/encoded")
    made.add_argument("--label_key", help="of the labels; default: image/class/label")
    made.add_argument(
        "--key",
        help="of what names a record; default: image/filename; may be the image",
    )
    made.add_argument(
        "--label_offset", type=int, help="added to labels; -1 if they count from 1"
    )


def features(arguments: argparse.Namespace) -> Any:
    """Return the `Features` that the flags of `add_feature_flags` name."""
    from vit_scaling.data.tfrecords import Features

    given = {
        "image": arguments.image_key,
        "label": arguments.label_key,
        "key": arguments.key,
        "label_offset": arguments.label_offset,
    }
    return Features(
        **{name: value for name, value in given.items() if value is not None}
    )


def run(
    made: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    command: Callable[[argparse.Namespace], Mapping[str, Any]],
    show: Callable[[Mapping[str, Any]], str],
) -> int:
    """Parse, run and print; return the exit code, 0 only on success.

    Args:
        made: What `parser` returned, with the command's own flags.
        argv: Arguments without the program's name; None takes `sys.argv[1:]`.
        command: From parsed flags to the result, a mapping that JSON can hold. Whatever
            it prints goes to standard error.
        show: From the result to the text for people (without `--json`).
    """
    arguments = made.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            result = command(arguments)
    except Exception as error:
        expected = isinstance(error, (*EXPECTED_ERRORS, *_tensorflow_errors()))
        if not expected or os.environ.get("VIT_SCALING_TRACEBACK"):
            raise
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        text = getattr(error, "message", text)  # TensorFlow's, without the graph.
        print(f"{made.prog}: error: {text}", file=sys.stderr)
        return 1
    print(json_text(result).rstrip() if arguments.json else show(result))
    return 0


def _tensorflow_errors() -> tuple[type[Exception], ...]:
    """Return TensorFlow's own error, which is none of Python's, if it can be raised."""
    errors = getattr(sys.modules.get("tensorflow"), "errors", None)
    return (errors.OpError,) if errors else ()


def progress() -> Callable[[int, int], None]:
    """Return what prints images done, their rate and the time left."""
    first: list[tuple[float, int]] = []  # What a former run has done costs no time.

    def show(done: int, total: int) -> None:
        now = time.monotonic()
        first[:] = first or [(now, done)]
        rate = (done - first[0][1]) / max(now - first[0][0], 1e-9)
        left = f"{(total - done) / rate:.0f} s left" if rate else "…"
        print(f"{done}/{total} images, {rate:.0f}/s, {left}", file=sys.stderr)

    return show


def table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> str:
    """Return rows as aligned text columns, numbers to the right."""
    texts = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = []
    for number, line in enumerate(texts):
        cells = [
            cell.rjust(width)
            if number and _is_number(rows[number - 1][column])
            else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _is_number(cell: Any) -> bool:
    try:
        float(str(cell).rstrip("%x").replace(",", ""))
    except ValueError:
        return False
    return True
