"""Records have the tables of the benchmarks, and a command without this machine."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import importlib
import json
import pathlib
import sys

import pytest

from tests.commands.benchmarks.example_results import RESULTS, SPREAD
from vit_scaling.commands import benchmark, cli
from vit_scaling.commands.benchmarks import inference, parity, records, step, writing

DOCS = pathlib.Path(records.__file__).resolve().parents[2] / "docs"
TOPICS = json.loads((DOCS / "topics.json").read_text(encoding="utf-8"))
ORIGIN = {"command": "c", "date": "d", "machine": "m", "versions": "v"}
TABLE = records.Table("fit_speed", "Data", "A title", ("program", "s"), (("a", "1"),))


def tables_of(name):
    module = importlib.import_module(f"vit_scaling.commands.benchmarks.{name}")
    return [table for result in RESULTS[name] for table in module.tables(result)]


@pytest.mark.parametrize("name", benchmark.BENCHMARKS)
def test_every_benchmark_has_tables_and_their_records_have_the_same_columns(name):
    tables = tables_of(name)
    assert tables
    for table in tables:
        assert table.topic in TOPICS and table.title and table.rows
        for row in table.rows:
            assert len(row) == len(table.columns)
            assert all(isinstance(cell, str) for cell in row)
        path = DOCS / "results" / f"{table.name}.json"
        if path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
            assert record["columns"] == list(table.columns), path
            assert record["topic"] == table.topic, path


def test_no_two_tables_have_the_same_record():
    names = [one.name for name in benchmark.BENCHMARKS for one in tables_of(name)]
    assert len(names) == len(set(names))
    # Other values of `step --measure` give `training_MEASURE`.
    written_by_hand = {path.stem for path in (DOCS / "results").glob("*.json")}
    others = {f"training_{one}" for one in ("strategies", "checkpoints", "depths")}
    assert not others & (written_by_hand | set(names))


def test_every_record_is_complete_and_under_a_topic_of_the_page():
    keys = {"topic", "title", "columns", "rows", *ORIGIN}
    for path in (DOCS / "results").glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        assert keys <= record.keys() <= keys | {"note", "figure"}, path
        assert record["topic"] in TOPICS, path
        assert {len(row) for row in record["rows"]} == {len(record["columns"])}, path


def test_a_record_keeps_note_and_figure_and_nothing_else(tmp_path, capsys):
    path = tmp_path / "fit_speed.json"
    earlier = dict.fromkeys(("topic", "title", "columns", "rows", *ORIGIN), "earlier")
    path.write_text(json.dumps({**earlier, "note": "a note", "figure": "a figure"}))
    records.write_records(str(tmp_path), [TABLE], ORIGIN)
    record = json.loads(path.read_text())
    assert record.pop("note") == "a note"
    assert record.pop("figure") == "a figure"
    assert record == {
        "topic": "Data",
        "title": "A title",
        "columns": ["program", "s"],
        "rows": [["a", "1"]],
        **ORIGIN,
    }
    message = capsys.readouterr().err
    assert "keeps its note; check it: a note" in message
    assert "keeps its figure; check it: a figure" in message
    path.unlink()
    records.write_records(str(tmp_path), [TABLE], ORIGIN)
    assert "note" not in json.loads(path.read_text())
    assert not capsys.readouterr().err


def test_cells_have_three_digits_and_spreads_their_ends():
    values = [None, "text", 30000, 0.0, 12420.4, 106.6, 3.25, 0.01344, SPREAD]
    texts = ["", "text", "30,000", "0", "12,420", "107", "3.25", "0.0134"]
    assert [records.cell_text(v) for v in values] == [*texts, "2.00 (1.00 to 4.00)"]


def test_a_table_shows_its_title_and_aligned_rows():
    assert records.show([TABLE, TABLE]).count("A title\nprogram  s\n") == 2


def command_of(module, *flags, **environment):
    parser = cli.make_parser("")
    parser.add_argument("--record", metavar="FOLDER")
    module.add_arguments(parser)
    arguments = parser.parse_args(flags)
    return records.command_text("NAME", parser, arguments, environment)


def test_the_command_has_the_typed_flags_and_the_numbers_of_threads():
    flags = ["--shapes", "S/16", "--batch_sizes", "1", "8", "--repeats=5", "--json"]
    flags += ["--record=/home/me/results", "--verbosity=1", "--torch_python="]
    text = command_of(inference, *flags, OPENBLAS_NUM_THREADS="1", HOME="/home/me")
    assert text == (
        "OPENBLAS_NUM_THREADS=1 vit-scaling benchmark NAME --shapes S/16 "
        "--batch_sizes 1 8 --repeats=5"
    )
    text = command_of(step, "--jit_compile", "--warmup_steps=0", "--torch_python=")
    assert text == "vit-scaling benchmark NAME --jit_compile --warmup_steps=0"


@pytest.mark.parametrize(
    ("module", "flags", "expected"),
    [
        (inference, ["--torch_python=/home/me/python"], "--torch_python=PYTHON"),
        (step, ["--measure=peers", "--torch_python=python3"], "--torch_python=PYTHON"),
        (step, ["--measure=loops", "--torch_python=/home/me/python"], "loops"),
        (writing, ["--source=folder:/home/me/images"], "--source=folder:SOURCE"),
        (writing, ["--source=digits", "--folder=/home/me"], "=digits --folder=FOLDER"),
        (
            parity,
            ["--images=/home/me/i.tar", "--big_vision=/home/me/b", "--python=/home/me"],
            "--images=FILE --big_vision=FOLDER --python=PYTHON",
        ),
    ],
)
def test_the_command_has_no_path_of_this_machine(module, flags, expected):
    text = command_of(module, *flags)
    assert text.endswith(expected) and "/home" not in text


def test_the_environments_interpreter_is_in_the_command(monkeypatch):
    monkeypatch.setenv("VIT_SCALING_TORCH_PYTHON", "/home/me/python")
    assert command_of(inference).endswith("NAME --torch_python=PYTHON")


def test_a_flag_for_a_path_has_a_metavar():
    for name in benchmark.BENCHMARKS:
        module = importlib.import_module(f"vit_scaling.commands.benchmarks.{name}")
        parser = cli.make_parser("")
        module.add_arguments(parser)
        for action in parser._actions:
            words = str(action.help).split()
            paths = {"folder", "file", "files", "manifest", "interpreter", "tar", "CSV"}
            free_text = action.type is None and action.nargs is None
            if free_text and action.choices is None and paths & set(words):
                assert action.metavar, (name, action.dest)


def test_versions_are_of_the_packages_and_of_the_peers_interpreter():
    class Module:
        PACKAGES = ("numpy", "absent", "SciPy")
        PEER_PACKAGES = ("keras",)

    arguments = argparse.Namespace(torch_python=sys.executable)
    names = records.versions_text(Module, arguments).split(", ")
    assert [name.split()[0] for name in names] == ["numpy", "SciPy", "keras"]
    arguments.torch_python = None
    assert "keras" not in records.versions_text(Module, arguments)


def test_an_interpreter_that_fails_is_named_before_anything_is_measured(
    tmp_path, capsys
):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no such module' >&2\nexit 1\n")
    python.chmod(0o755)
    flags = [f"--record={tmp_path}", f"--torch_python={python}"]
    assert benchmark.main(["predict", *flags]) == 1
    assert "does not list its packages: no such module" in capsys.readouterr().err


def test_a_benchmark_writes_its_records(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    flags = ["--runs=60", "--resamples=20", "--rounds=2", f"--record={tmp_path}/new"]
    assert benchmark.main(["fit", *flags]) == 0
    shown = capsys.readouterr().out
    record = json.loads((tmp_path / "new" / "fit_speed.json").read_text())
    assert "Bootstrap of a law next to curve_fit\nprogram" in shown
    assert all(row[1] in shown for row in record["rows"])
    assert record["command"] == (
        "OPENBLAS_NUM_THREADS=1 vit-scaling benchmark fit --runs=60 --resamples=20 "
        "--rounds=2"
    )
    assert "scipy" in record["versions"] and "core" in record["machine"]


def test_a_file_is_no_folder_for_records(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert benchmark.main(["fit", f"--record={tmp_path}/file"]) == 1
    assert "`--record` must be a folder" in capsys.readouterr().err
