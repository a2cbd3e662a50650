"""Add pages to the site: one for each module, the results, and the changelog."""
# SPDX-License-Identifier: Apache-2.0

import ast
import json
import pathlib

import mkdocs_gen_files

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "vit_scaling"
RESULTS = PACKAGE / "docs" / "results"


def add_modules() -> None:
    """Add a page for each module, and a table of contents."""
    lines = ["# Python modules", "", "| module | what it holds |", "|---|---|"]
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        text = path.read_text(encoding="utf-8")
        if path.name == "__main__.py" or not text.strip():
            continue
        name = name.removesuffix(".__init__")
        summary = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
        if not summary:
            raise SystemExit(f"{path} has no docstring.")
        page = f"api/{name}.md"
        with mkdocs_gen_files.open(f"reference/{page}", "w") as file:
            file.write(f"# {name.removeprefix('vit_scaling.')}\n\n::: {name}\n")
        lines.append(f"| [{name}]({page}) | {summary} |")
    with mkdocs_gen_files.open("reference/modules.md", "w") as file:
        file.write("\n".join(lines) + "\n")


def add_results() -> None:
    """Add the page of results: by topic, a table for each record in docs/results."""
    topics = json.loads((PACKAGE / "docs" / "topics.json").read_text(encoding="utf-8"))
    tables: dict[str, list[str]] = {topic: [] for topic in topics}
    for path in sorted(RESULTS.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        tables[record["topic"]].append(results_table(record))
    parts = [(PACKAGE / "docs" / "results.md").read_text(encoding="utf-8")]
    for topic, found in tables.items():
        parts += [f"## {topic}", *found] if found else []
    with mkdocs_gen_files.open("results.md", "w") as file:
        file.write("\n\n".join(parts) + "\n")


def add_changelog() -> None:
    """Add the package's changelog as it is."""
    text = (PACKAGE / "CHANGELOG.md").read_text(encoding="utf-8")
    with mkdocs_gen_files.open("changelog.md", "w") as file:
        file.write(text)


def results_table(record: dict) -> str:
    """Return a record's heading, table and command in Markdown."""
    columns = record["columns"]
    rows = [columns, ["---"] * len(columns), *record["rows"]]
    table = "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
    table = table.replace(" %", "\N{NO-BREAK SPACE}%")
    origin = f"{record['date']}, {record['machine']}; {record['versions']}."
    parts = [f"### {record['title']}", record.get("note", ""), table]
    if "figure" in record:
        parts.append(f"![{record['title']}]({record['figure']})")
    return "\n\n".join([*parts, f"`{record['command']}`", origin])


add_modules()
add_results()
add_changelog()
