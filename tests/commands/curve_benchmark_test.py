"""`curve-benchmark`: tables for people, JSON for programs."""
# SPDX-License-Identifier: Apache-2.0

import json

from tests.scaling.studies.curve_benchmark_test import write_benchmark
from vit_scaling.commands.curve_benchmark import main


def test_curves_and_overall_are_printed(tmp_path, capsys):
    write_benchmark(tmp_path / "b.csv")
    flags = [f"--table={tmp_path / 'b.csv'}", "--forms=m1,m2"]
    assert main(flags) == 0
    captured = capsys.readouterr()
    assert "inet_5" in captured.out and "median" in captured.out
    assert "2/2 curves" in captured.err
    assert main([*flags, "--where=Task=c_5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["Task"] for row in found["curves"]] == ["c_5"]


def test_errors_return_one(tmp_path, capsys):
    assert main([f"--table={tmp_path / 'none.csv'}"]) == 1
    assert "No table of runs exists" in capsys.readouterr().err
