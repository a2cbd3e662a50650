"""The command that compares the variants of a study."""
# SPDX-License-Identifier: Apache-2.0

import json

from vit_scaling.commands import compare_runs

HEADER = "model,data_size,images_seen,compute,compute_unit,error,metric,seed\n"
ROWS = [
    "ViT adam,,1000,5,flops,0.40,upstream,0",
    "ViT adam,,1000,5,flops,0.42,upstream,1",
    "ViT adafactor,,1000,5,flops,0.39,upstream,0",
    "ViT adafactor,,1000,5,flops,0.40,upstream,1",
]


def write(path, rows):
    path.write_text(HEADER + "\n".join(rows) + "\n")
    return str(path)


def test_it_reads_several_tables_and_prints_json(tmp_path, capsys):
    files = [write(tmp_path / f"{i}.csv", ROWS[2 * i : 2 * i + 2]) for i in range(2)]
    code = compare_runs.main(["--runs", *files, "--reference=ViT adam", "--json"])
    assert code == 0
    adam, adafactor = json.loads(capsys.readouterr().out)["groups"]
    assert abs(adam["mean"] - 0.59) < 1e-12 and adam["difference"] is None
    assert adafactor["runs"] == 2
    assert abs(adafactor["difference"] - 0.015) < 1e-12
    low, high = adafactor["difference_interval"]
    assert low < 0.015 < high


def test_it_prints_a_table_for_people(tmp_path, capsys):
    assert compare_runs.main(["--runs", write(tmp_path / "runs.csv", ROWS)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:6] == ["ViT", "adam", "1,000", "upstream", "2", "59.00"]


def test_an_unknown_reference_is_reported_in_one_line(tmp_path, capsys):
    path = write(tmp_path / "runs.csv", ROWS)
    assert compare_runs.main(["--runs", path, "--reference=adam"]) == 1
    assert "ViT adam, ViT adafactor" in capsys.readouterr().err
