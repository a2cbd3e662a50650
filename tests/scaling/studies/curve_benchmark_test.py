"""The benchmark's table as published: planted curves are predicted by their own law."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pandas as pd
import pytest

from vit_scaling.scaling.studies.curve_benchmark import (
    read_curves,
    run_benchmark,
    score_curves,
)

# The header and first lines of the published file.
PUBLISHED_ROWS = """Domain,Task,Model,Seen Examples,Loss,Training
IC,bird_5,MiX/B/16,7700779.0,0.9758287277072668,1
IC,bird_5,MiX/B/16,11980004.0,0.9577002748847008,1
IC,bird_5,MiX/B/16,15421508.0,0.9416436441242695,1
"""


def write_benchmark(path):
    """Two curves: a power law (M1) and one with a floor (M2), half of each hidden."""
    lines = ["Domain,Task,Model,Seen Examples,Loss,Training"]
    x = np.geomspace(1e6, 1e9, 40)
    for task, loss in (("inet_5", 30 * x**-0.25), ("c_5", 0.2 + 50 * x**-0.4)):
        for k in range(40):
            lines.append(f"IC,{task},ViT/B/16,{x[k]},{loss[k]},{int(k < 25)}")
    path.write_text("\n".join([*lines, ""]))


def test_each_curve_is_predicted_by_the_law_that_made_it(tmp_path):
    write_benchmark(tmp_path / "b.csv")
    found = run_benchmark(tmp_path / "b.csv", forms=["m1", "m2"])
    curves = {row["Task"]: row for row in found["curves"]}
    assert curves["inet_5"]["m1"] < 1e-6 and curves["c_5"]["m2"] < 1e-4
    assert curves["c_5"]["m1"] > 0.05
    assert (curves["c_5"]["fitted"], curves["c_5"]["held out"]) == (25, 15)
    overall = {row["law"]: row for row in found["overall"]}
    assert overall["m1"]["mean"] == pytest.approx(
        (curves["inet_5"]["m1"] + curves["c_5"]["m1"]) / 2
    )
    assert overall["m2"]["best"] >= 1


def test_the_error_and_its_standard_error_are_those_of_the_readme():
    """README: mean of squares; sqrt(mean + std/sqrt(n)) - sqrt(mean)."""
    x = np.array([1.0, 2, 4, 8, 16, 32])
    loss = np.array([1.0, 0.5, 0.25, 0.125, 0.1, 0.02])  # 1/x, then off it.
    table = pd.DataFrame({"Task": "t", "Model": "m", "Seen Examples": x, "Loss": loss})
    table["Training"] = [1, 1, 1, 1, 0, 0]
    row = score_curves(table, ["m1"]).iloc[0]
    squares = np.log(1 / x[4:] / loss[4:]) ** 2
    mean = squares.mean()
    assert row["m1"] == pytest.approx(np.sqrt(mean), rel=1e-4)
    expected = np.sqrt(mean + squares.std() / np.sqrt(2)) - np.sqrt(mean)
    assert row["m1 ±"] == pytest.approx(expected, rel=1e-3)


def test_published_errors_are_printed_next_to_the_measured_ones(tmp_path):
    write_benchmark(tmp_path / "b.csv")
    (tmp_path / "p.csv").write_text("Task,Model,m1\nc_5,ViT/B/16,0.5\n")
    found = run_benchmark(
        tmp_path / "b.csv", forms=["m1"], published=tmp_path / "p.csv"
    )
    curves = {row["Task"]: row["m1 published"] for row in found["curves"]}
    assert curves == {"c_5": 0.5, "inet_5": None}
    (tmp_path / "p.csv").write_text("Task,Model,m1\nother,ViT/B/16,0.5\n")
    with pytest.raises(ValueError, match="Write them as there, for example c_5"):
        run_benchmark(tmp_path / "b.csv", forms=["m1"], published=tmp_path / "p.csv")


def test_a_curve_of_too_few_points_has_no_error(tmp_path):
    (tmp_path / "b.csv").write_text(PUBLISHED_ROWS)
    (row,) = run_benchmark(tmp_path / "b.csv", forms=["m2", "m4"])["curves"]
    assert (row["fitted"], row["held out"], row["m4"]) == (3, 0, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Task,Model,Loss,Training\na,b,1,1\n", "no column 'Seen Examples'"),
        (PUBLISHED_ROWS.replace("0.9577", "-0.9577"), "line 3: column 'Loss' must be"),
        (PUBLISHED_ROWS + "IC,bird_5,m,1,1,yes\n", "line 5: column 'Training' must"),
    ],
)
def test_bad_tables_are_explained(tmp_path, text, message):
    (tmp_path / "b.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_curves(tmp_path / "b.csv")
    with pytest.raises(ValueError, match="Did you mean 'm4'"):
        score_curves(pd.DataFrame(columns=["Task", "Model"]), ["m44"])
