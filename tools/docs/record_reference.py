"""Write the reference pages that follow from the code: commands, macros, memory.

A test compares the committed pages with what this script gives.
"""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import pathlib
import re
import subprocess
import sys

from vit_scaling.commands.main import GROUPS

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / "vit_scaling" / "docs"
_MACRO = re.compile(
    r"^(?P<name>[A-Z][A-Z0-9_]+) = (?P<value>[^#\n]+?)\s*(?:# (?P<text>.*))?$"
)
_CONTINUED = re.compile(r"^\s+# (?P<text>.*)$")
_MEMORY = "plan --shape=G/14 --head=map --optimizer=adafactor --batch=8 --device=tpu_v3"


def run(command: str) -> str:
    """Return the standard output of a subcommand of vit-scaling."""
    program = [sys.executable, "-m", "vit_scaling.commands.main", *command.split()]
    environment = {**os.environ, "COLUMNS": "88"}
    done = subprocess.run(
        program, capture_output=True, text=True, check=True, env=environment, cwd=ROOT
    )
    return done.stdout


def commands_page() -> str:
    """Return the page of all subcommands and their flags."""
    parts = ["# Commands", "", "```text", run("--help").rstrip(), "```"]
    for title, commands in GROUPS.items():
        parts += ["", f"## {title}"]
        for name in commands:
            parts += ["", f"### vit-scaling {name}", "", "```text"]
            parts += [run(f"{name} --help").rstrip(), "```"]
    return "\n".join(parts) + "\n"


def macros_page() -> str:
    """Return the page of all macros: default, meaning, and the file that sets them."""
    parts = [
        "# Gin macros",
        "",
        "A macro is a setting in capitals. Override it with",
        "`--gin_param='NAME = VALUE'`. A misspelt name raises an error.",
        "What happens at divergence, and what may change when a run resumes:",
        "[Resume, exactly](../resume.md). Lengths and rates:",
        "[Optimizers, schedules and decay](optimizers.md).",
    ]
    for folder in (
        "runtime",
        "models",
        "optimizers",
        "schedules",
        "data",
        "evaluation",
    ):
        for path in sorted((ROOT / "gin" / folder).glob("*.gin")):
            rows = read_macros(path)
            if rows:
                parts += ["", f"## {folder}/{path.name}", ""]
                parts += ["| macro | default | meaning |", "|---|---|---|"]
                parts += [f"| `{n}` | `{v}` | {text} |" for n, v, text in rows]
    return "\n".join(parts) + "\n"


def read_macros(path: pathlib.Path) -> list[tuple[str, str, str]]:
    """Return name, default and comment of each macro that a gin file sets."""
    rows: list[tuple[str, str, str]] = []
    follows = False
    for line in path.read_text(encoding="utf-8").splitlines():
        macro, continued = _MACRO.match(line), _CONTINUED.match(line)
        if macro:
            text = (macro["text"] or "").replace("|", "\\|")
            value = macro["value"].replace("%gin.REQUIRED", "required")
            rows.append((macro["name"], value, text))
        elif continued and follows:
            name, value, text = rows[-1]
            rows[-1] = name, value, f"{text} {continued['text']}"
        follows = bool(macro or (continued and follows))
    return rows


def memory_figure() -> str:
    """Return a bar chart of the memory of a step by term, as SVG."""
    terms = json.loads(run(f"{_MEMORY} --json"))["memory_bytes"]
    shown = [
        (name.replace("_", " "), count / 2**30)
        for name, count in terms.items()
        if name != "total"
    ]
    shown.sort(key=lambda term: -term[1])
    scale = 360 / max(value for _, value in shown)
    height = 26 * len(shown) + 50
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="720" height="100%" fill="#ffffff"/>',
        '<text x="10" y="20" font-weight="bold">G/14, 8 images on a TPU v3 core, '
        "Adafactor: GiB by term</text>",
    ]
    for row, (name, value) in enumerate(shown):
        y = 36 + 26 * row
        lines += [
            f'<text x="230" y="{y + 14}" text-anchor="end">{name}</text>',
            f'<rect x="240" y="{y}" width="{value * scale:.0f}" height="18" '
            'fill="#4a6fa5"/>',
            f'<text x="{248 + value * scale:.0f}" y="{y + 14}">{value:.2f}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


PAGES = {
    "reference/commands.md": commands_page,
    "reference/macros.md": macros_page,
    "images/memory.svg": memory_figure,
}


def main() -> None:
    """Write the pages."""
    for name, make in PAGES.items():
        (DOCS / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
