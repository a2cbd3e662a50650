"""`fit_power_law`: JSON keys, files and messages."""
# SPDX-License-Identifier: Apache-2.0

import json
import re

import pytest

from tests.scaling.example_runs import runs_on_surface
from vit_scaling.commands.fit_power_law import main
from vit_scaling.scaling.laws.runs import write_csv

FAST = ["--resamples=50", "--json"]


def test_the_papers_runs_give_the_published_law(capsys):
    assert main(["--runs=paper", "--metric=imagenet_finetune", *FAST]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() >= {
        *("a", "b", "c", "d", "converged", "intervals", "rms_log_error")
    }
    assert found["b"] == pytest.approx(0.3533, abs=0.03)
    assert found["c"] == pytest.approx(0.0943, abs=0.01)


def test_any_csv_in_percent_is_fitted_by_its_columns(tmp_path, capsys):
    rows = [f"m{k},{2**k},{100 * (0.1 + 0.6 * 2 ** (-0.3 * k))}" for k in range(14)]
    (tmp_path / "mine.csv").write_text("\n".join(["net,days,err", *rows, ""]))
    flags = ["--model_column=net", "--compute_column=days", "--error_column=err"]
    flags.append("--compute_unit=core_days")
    run = [f"--runs={tmp_path / 'mine.csv'}", *flags, "--error_unit=percent", *FAST]
    more = [f"--output_dir={tmp_path / 'out'}", "--predict=1e5", "--compute_for=0.2"]
    assert main([*run, *more]) == 0
    found = json.loads(capsys.readouterr().out)
    (needed,) = found["needed_compute"]
    assert needed["compute"] == pytest.approx(6 ** (1 / 0.3), rel=0.01)
    assert found["b"] == pytest.approx(0.3, abs=1e-3)
    assert found["c"] == pytest.approx(0.1, abs=1e-3)
    assert (tmp_path / "out" / "report.html").exists()
    assert main([*run, "--error_unit=fraction"]) == 1
    assert "--error_unit=percent" in capsys.readouterr().err


def test_text_is_for_people(capsys):
    assert main(["--resamples=50", "--compute_for=0.2,0.01"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"0\.01 +none suffices +none suffices to none suffices", text)
    assert "95% interval" in text and "note: d is badly determined" in text


def test_a_fit_that_did_not_converge_says_so_and_returns_one(tmp_path, capsys):
    rows = [f"{1 + k / 20},{0.9 - k / 50}" for k in range(20)]
    (tmp_path / "line.csv").write_text("\n".join(["core_days,error", *rows, ""]))
    assert main([f"--runs={tmp_path / 'line.csv'}", *FAST]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["converged"] is False
    assert [found[name] for name in "abcd"] == [None] * 4
    assert main([f"--runs={tmp_path / 'line.csv'}"]) == 1
    assert "did not converge" in capsys.readouterr().out


def test_a_misspelt_metric_suggests_the_nearest(capsys):
    assert main(["--metric=imagenet_10sht"]) == 1
    assert "Did you mean 'imagenet_10shot'" in capsys.readouterr().err


def test_a_fit_without_intervals_is_printed_as_such(tmp_path, capsys):
    rows = [f"{10**k},{0.1 + 0.6 * 10 ** (-0.3 * k)}" for k in range(5)]
    (tmp_path / "few.csv").write_text("\n".join(["core_days,error", *rows, ""]))
    assert main([f"--runs={tmp_path / 'few.csv'}", "--resamples=50", "--compare"]) == 0
    text = capsys.readouterr().out
    assert "note: There are no intervals." in text
    assert "note: Laws were not compared." in text
    assert "none" in text and "100000" in text.replace("1e+05", "100000")


def test_an_error_of_zero_is_fitted_as_the_message_advises(tmp_path, capsys):
    rows = [f"{2**k},{0.5 * 2 ** (-0.5 * k) * (k < 13)}" for k in range(14)]
    (tmp_path / "zero.csv").write_text("\n".join(["core_days,error", *rows, ""]))
    flags = [f"--runs={tmp_path / 'zero.csv'}", "--resamples=50"]
    assert main(flags) == 1
    assert "--loss=linear" in capsys.readouterr().err
    assert main([*flags, "--loss=linear"]) == 0
    assert "rms of log(law/error)" in capsys.readouterr().out


def test_predictions_and_figures_carry_the_units_of_the_table(tmp_path, capsys):
    rows = [f"{10**k},{0.1 + 0.6 * 10 ** (-0.1 * k)}" for k in range(10, 22)]
    (tmp_path / "runs.csv").write_text("\n".join(["gflops_total,error", *rows, ""]))
    flags = [f"--runs={tmp_path / 'runs.csv'}", "--compute_column=gflops_total"]
    assert main([*flags, "--resamples=50", f"--output_dir={tmp_path / 'out'}"]) == 0
    text = capsys.readouterr().out
    assert "C in GFLOPs" in text and "compute (GFLOPs)" in text
    report = (tmp_path / "out" / "report.html").read_text()
    assert "compute (GFLOPs)" in report and "core-days" not in report
    figure = (tmp_path / "out" / "frontier.svg").read_text()
    assert "Compute (GFLOPs)" in figure and "core-days" not in figure


def write_groups(path):
    lines = ["family,gmacs_total,acc1,set"]
    for family, a in (("one", 6.0), ("two", 4.0)):
        for k in range(8):
            compute = 10 ** (10 + k / 2)
            lines.append(f"{family},{compute},{1 - a * compute**-0.11},imagenet")
    lines.append("three,1e10,.5,imagenet")
    path.write_text("\n".join([*lines, ""]))


def test_groups_are_fitted_by_flags_alone(tmp_path, capsys):
    write_groups(tmp_path / "t.csv")
    flags = [
        f"--runs={tmp_path / 't.csv'}",
        "--where=set=imagenet",
        "--group_by=family",
    ]
    assert main([*flags, "--form=m1", f"--output_dir={tmp_path / 'o'}", *FAST]) == 0
    found = json.loads(capsys.readouterr().out)
    groups = {group["name"]: group for group in found["groups"]}
    for family, a in (("one", 6.0), ("two", 4.0)):
        values = {p["coefficient"]: p["value"] for p in groups[family]["parameters"]}
        assert values == pytest.approx({"a": a, "b": 0.11}, rel=1e-3)
    assert "needs 3 runs on the frontier" in groups["three"]["reason"]
    assert (tmp_path / "o" / "report.html").exists()
    assert json.loads((tmp_path / "o" / "fit.json").read_text())["form"] == "m1"


def test_groups_are_printed_with_the_columns_used(tmp_path, capsys):
    write_groups(tmp_path / "t.csv")
    flags = [f"--runs={tmp_path / 't.csv'}", "--group_by=family", "--form=m1"]
    assert main([*flags, "--resamples=50", "--predict=1e15"]) == 0
    text = capsys.readouterr().out
    assert "[one]" in text and "No law: Too few points" in text
    assert "error: 1 - 'acc1' as a fraction" in text and "1e+15" in text
    assert main([*flags, "--where=family=three", "--resamples=50"]) == 1


def test_surfaces_profiles_and_hours(tmp_path, capsys):
    write_csv(runs_on_surface(noise=0.002), tmp_path / "t.csv")
    flags = [f"--runs={tmp_path / 't.csv'}", *FAST]
    surface = ["--form=chinchilla", "--predict=1e23", "--device=h100"]
    assert main([*flags, *surface, "--leave_out_largest=2"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert [p["coefficient"] for p in group["parameters"]][:3] == ["E", "A", "B"]
    assert group["requested"][0]["device_hours"] > 0
    assert group["runs"] == len(runs_on_surface()) - 2
    for form in ("isoflop", "envelope"):
        assert main([*flags, f"--form={form}"]) == 0
        (group,) = json.loads(capsys.readouterr().out)["groups"]
        assert group["parameters"][0]["value"] == pytest.approx(0.51, abs=0.06)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--form=chinchila"], "Did you mean 'chinchilla'"),
        (["--form=m1", "--device=h100", "--predict=1e5"], "--device belongs to"),
        (["--form=m1", "--compare"], "--compare belongs to --form=paper"),
        (["--form=m1", "--compute_for=0.2"], "--compute_for belongs to --form=paper"),
        (["--form=m1", "--leave_out_largest=5"], "belongs to the forms chinchilla"),
        (
            ["--form=chinchilla", "--predict=1e5", "--device=h100"],
            "need FLOPs",
        ),
    ],
)
def test_flags_that_do_not_fit_together_are_rejected(flags, message, capsys):
    assert main([*flags, "--resamples=20"]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_the_columns_used_are_printed(tmp_path, capsys):
    rows = [f"{10**k};{2 + 3 * 10 ** (-0.1 * k):.6f}" for k in range(10, 22)]
    (tmp_path / "t.csv").write_text("\n".join(["flops;val_loss", *rows, ""]))
    assert main([f"--runs={tmp_path / 't.csv'}", "--resamples=50"]) == 0
    text = capsys.readouterr().out
    assert "Columns: loss: 'val_loss', compute: 'flops'." in text
    assert "compute (FLOPs)  loss" in text
