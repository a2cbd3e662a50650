"""Run the commands and snippets of the documentation; compare or record their output.

A page's blocks run in the page's order, in one temporary folder:

- ```bash: run by bash; a failure stops the page.
- ```python: run in one Python process for the page.
- ```text after one of them: its output as recorded. Numbers may differ.
- <!-- run: COMMAND -->: a command that readers do not see, such as making images.

Blocks in other languages (console, ini) are only shown. `SOURCE` stands for the
checkout in hidden commands. Images that a page shows from images/recorded/ are taken
from the temporary folder when recording.
"""
# SPDX-License-Identifier: Apache-2.0

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / "vit_scaling" / "docs"
MAX_LINES = 30
_BLOCK = re.compile(
    r"^<!-- run: (?P<hidden>.+?) -->$"
    r"|^```(?P<language>bash|python)\n(?P<code>.*?)^```\n"
    r"(?:\n```text\n(?P<output>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
_IMAGE = re.compile(r"\(images/recorded/([\w.-]+)\)|\(\.\./images/recorded/([\w.-]+)\)")
_SESSION = """
import contextlib, io, json, sys, traceback
scope = {"__name__": "__main__"}
for line in sys.stdin:
    output = io.StringIO()
    failed = False
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            exec(compile(json.loads(line), "<page>", "exec"), scope)
        except BaseException:
            failed = True
            traceback.print_exc()
    print(json.dumps([failed, output.getvalue()]), flush=True)
"""


class PageError(Exception):
    """A block failed, or its output is not the recorded one."""


class Page:
    """A page whose blocks run in a folder."""

    def __init__(self, path: pathlib.Path, folder: pathlib.Path) -> None:
        """Read the page; nothing runs yet."""
        self.path, self.folder = path, folder
        self.text = path.read_text(encoding="utf-8")
        self.session: subprocess.Popen[str] | None = None

    def run(self, *, record: bool) -> str:
        """Run all blocks; return the page with the outputs that they gave.

        Raises:
            PageError: A block failed or, unless recording, gave another output.
        """
        parts, end = [], 0
        try:
            for match in _BLOCK.finditer(self.text):
                parts.append(self.text[end : match.start()])
                parts.append(self._run_block(match, record=record))
                end = match.end()
        finally:
            if self.session is not None:
                self.session.communicate()  # The end of its input ends it.
        return "".join([*parts, self.text[end:]])

    def _run_block(self, match: re.Match[str], *, record: bool) -> str:
        if match["hidden"]:
            self._bash(match["hidden"].replace("SOURCE", str(ROOT)))
            return match[0]
        run = self._bash if match["language"] == "bash" else self._python
        output = shorten(run(match["code"]), str(self.folder))
        if match["output"] is None:
            return match[0]
        if not record and mask(output) != mask(match["output"]):
            raise PageError(
                f"{self.path}: after\n{match['code']}\nrecorded:\n{match['output']}\n"
                f"now:\n{output}\nRecord it: bash tools/docs.sh --execute"
            )
        return f"```{match['language']}\n{match['code']}```\n\n```text\n{output}```"

    def _bash(self, code: str) -> str:
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        # A reader has none of the settings of the tests or of CI.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("TF_", "KERAS_", "CUDA_", "XLA_"))
        }
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", code],
            cwd=self.folder,
            env={**environment, "PATH": path, "HOME": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise PageError(f"{self.path}: failed:\n{code}\n{done.stdout[-3000:]}")
        return done.stdout

    def _python(self, code: str) -> str:
        if self.session is None:
            self.session = subprocess.Popen(
                [sys.executable, "-c", _SESSION],
                cwd=self.folder,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "agg"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        stdin, stdout = self.session.stdin, self.session.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("The Python process has no pipes.")
        stdin.write(json.dumps(code) + "\n")
        stdin.flush()
        failed, output = json.loads(stdout.readline())
        if failed:
            raise PageError(f"{self.path}: failed:\n{code}\n{output}")
        return output


def without_progress(output: str) -> str:
    """Return an output without tqdm's bars, of which a slow machine prints more."""
    return re.sub(r"\r? *\d+%\|[^|\n]*\| [^]\n]*\]", "", output)


def shorten(output: str, folder: str) -> str:
    """Return an output without the folder's name and progress, at most 30 lines."""
    lines = [line.rstrip() for line in without_progress(output).splitlines()]
    lines = [line.replace(folder + "/", "").replace(folder, ".") for line in lines]
    if len(lines) > MAX_LINES:
        half = MAX_LINES // 2
        lines = [*lines[:half], "…", *lines[-half:]]
    return "".join(f"{line}\n" for line in lines)


def mask(output: str) -> list[str]:
    """Return the lines of an output without what differs from run to run."""
    words = re.sub(r"[-+]?\d[\d,.:_e+-]*[%hms]*", "#", without_progress(output))
    return [" ".join(line.split()) for line in words.splitlines() if line.strip("- …")]


def run_page(path: pathlib.Path, *, record: bool) -> None:
    """Run a page; write it with its outputs if they are recorded.

    Raises:
        PageError: A block failed or, unless recording, gave another output.
    """
    with tempfile.TemporaryDirectory() as folder:
        page = Page(path, pathlib.Path(folder).resolve())
        text = page.run(record=record)
        if not record:
            return
        path.write_text(text, encoding="utf-8")
        for match in _IMAGE.finditer(text):
            name = match[1] or match[2]
            shutil.copy(page.folder / name, DOCS / "images" / "recorded" / name)


def pages_with_blocks() -> Iterator[pathlib.Path]:
    """Yield the pages that have something to run."""
    for path in sorted(DOCS.rglob("*.md")):
        if _BLOCK.search(path.read_text(encoding="utf-8")):
            yield path


def main() -> None:
    """Run all pages, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", type=pathlib.Path, help="default: all")
    parser.add_argument("--record", action="store_true", help="write the outputs")
    arguments = parser.parse_args()
    for path in arguments.pages or pages_with_blocks():
        print(path, flush=True)
        run_page(path, record=arguments.record)


if __name__ == "__main__":
    main()
