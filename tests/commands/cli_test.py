"""What every command shares: --json is one object, errors are one line and exit 1."""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from vit_scaling.commands import cli
from vit_scaling.data.examples import Features


def run(capsys, argv, command, show=str):
    made = cli.make_parser("Try.")
    made.add_argument("--size", type=int, default=3)
    code = cli.run(made, argv, command, show)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_json_is_one_object_and_all_else_goes_to_standard_error(capsys):
    def command(arguments):
        print("working")
        return {
            "size": np.float32(arguments.size),
            "rows": [np.arange(2)],
            "no": np.nan,
        }

    code, out, err = run(capsys, ["--size=4", "--json"], command)
    assert code == 0
    assert json.loads(out) == {"size": 4.0, "rows": [[0, 1]], "no": None}
    assert err == "working\n"


def test_without_json_the_text_is_shown(capsys):
    code, out, _ = run(
        capsys, [], lambda flags: {"n": flags.size}, lambda r: f"n={r['n']}"
    )
    assert (code, out) == (0, "n=3\n")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("wrong"),
        KeyError("wrong"),
        FileNotFoundError("wrong"),
        tf.errors.NotFoundError(None, None, "wrong"),
    ],
)
def test_expected_errors_are_one_line_and_exit_code_1(capsys, error, monkeypatch):
    monkeypatch.delenv("VIT_SCALING_TRACEBACK", raising=False)

    def command(_):
        raise error

    code, out, err = run(capsys, ["--json"], command)
    assert (code, out) == (1, "")
    assert err.endswith("error: wrong\n") and err.count("\n") == 1


def test_a_traceback_is_there_for_the_asking(capsys, monkeypatch):
    monkeypatch.setenv("VIT_SCALING_TRACEBACK", "1")

    def command(_):
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        run(capsys, [], command)


def test_flags_are_not_abbreviated(capsys):
    with pytest.raises(SystemExit):
        run(capsys, ["--siz=4"], lambda _: {})


def test_numbers_in_tables_stand_to_the_right():
    lines = cli.table([["a", "5"], ["bcd", "1,200"]], ["name", "n"]).splitlines()
    assert lines == ["name  n", "----  -----", "a         5", "bcd   1,200"]


def test_a_column_with_texts_and_numbers_is_to_the_left():
    lines = cli.table([["a", 5, 1], ["b", "a long text", 20]], ["name", "value", "n"])
    assert lines.splitlines()[2:] == ["a     5             1", "b     a long text  20"]


def test_keys_of_records_come_from_flags_all_commands_share():
    made = cli.make_parser("Try.")
    cli.add_feature_flags(made.add_argument)
    assert cli.features_from_flags(made.parse_args([])) == Features()
    flags = ["--image_key=a", "--label_key=b", "--key=c", "--label_offset=-1"]
    assert cli.features_from_flags(made.parse_args(flags)) == Features(
        "a", "b", "c", -1
    )


# A wrong argument is reported before TensorFlow is imported, which takes seconds.


@pytest.mark.parametrize(
    ("command", "source", "message"),
    [
        ("write_tfrecords", "digts", "`source` must be one of folder:PATH"),
        ("write_tfrecords", "fodler:x", "Did you mean 'folder'?"),
        ("import_weights", "no/such.npz", "No weights found at 'no/such.npz'"),
        ("export_weights", "i1k-s16-90e", "Did you mean 'i1k-s16-90ep'?"),
    ],
)
def test_a_wrong_source_is_rejected_without_tensorflow(
    tmp_path, command, source, message
):
    output = "output_dir" if command == "write_tfrecords" else "output"
    code = f"""
import sys
from vit_scaling.commands import {command}
code = {command}.main(["--source={source}", "--{output}={tmp_path / "x.npz"}"])
assert "tensorflow" not in sys.modules
sys.exit(code)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert message in line


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in sorted(pathlib.Path(cli.__file__).parent.glob("*.py"))
        if "\ndef main(" in path.read_text()
    ],
    ids=lambda path: path.stem,
)
def test_every_command_runs_as_a_module(path):
    assert path.read_text().rstrip().endswith("main())"), "python -m does nothing"


def test_progress_has_the_rate_since_the_first_image_of_this_run(capsys):
    now = [0.0]
    show = cli.make_progress_printer(every_seconds=5, clock=lambda: now[0])
    # 400 images of an earlier run; processes start for 10 seconds; 2 images a second.
    for seconds, done in ((0, 400), (10, 400), (11, 402), (15, 410), (60, 500)):
        now[0] = seconds
        show(done, 500)
    assert capsys.readouterr().err.splitlines() == [
        "400/500 images",
        "400/500 images",
        "410/500 images, 2/s, 45 s left",
        "500/500 images, 2/s, 0 s left",
    ]
