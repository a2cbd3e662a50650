"""The command vit-scaling: its list, its subcommands, and misspelt ones."""
# SPDX-License-Identifier: Apache-2.0

import subprocess
import sys
from pathlib import Path

import pytest

from vit_scaling.commands import main as program

COMMANDS_FOLDER = Path(program.__file__).parent


def run(*arguments):
    code = "from vit_scaling.commands.main import main; raise SystemExit(main())"
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_module_with_a_main_is_a_command():
    with_main = {
        path.stem
        for path in COMMANDS_FOLDER.glob("*.py")
        if "\ndef main(" in path.read_text(encoding="utf-8")
    }
    listed = {command.module for command in program.COMMANDS.values()}
    assert listed == with_main - {"main"}


@pytest.mark.parametrize("name", program.COMMANDS)
def test_each_command_prints_its_help_without_tensorflow(name):
    done = run(*name.split(), "--help")
    assert done.returncode == 0 and f"vit-scaling {name}" in done.stdout.replace(
        "benchmark.py", "vit-scaling benchmark"
    )
    assert "tensorflow" not in done.stderr


def test_the_list_names_all_commands_by_group(capsys):
    assert program.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in program.COMMANDS)
    assert all(f"{title}:" in text for title in program.GROUPS)


def test_help_of_a_word_lists_its_commands_alone(capsys):
    assert program.main(["weights", "--help"]) == 0
    text = capsys.readouterr().out
    assert "  weights list " in text and "  weights import " in text
    assert "  train " not in text and "Prepare data" not in text


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [(["trian"], "train"), (["data", "wirte"], "data write"), (["data"], None)],
)
def test_unknown_commands_are_rejected_with_the_nearest(arguments, nearest, capsys):
    assert program.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("vit-scaling: error: No command is called ")
    assert nearest is None or f"Did you mean {nearest!r}?" in error


def test_a_reader_that_stops_early_gets_no_traceback():
    code = "from vit_scaling.commands.main import main; raise SystemExit(main())"
    program = f"{sys.executable} -c '{code}' weights list --json | head -c 5"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert len(done.stdout) == 5
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
