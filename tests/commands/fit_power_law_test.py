"""`fit_power_law`: JSON keys, files and messages."""
# SPDX-License-Identifier: Apache-2.0

import json

import pytest

from vit_scaling.commands.fit_power_law import main

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
    assert main([*run, f"--output_dir={tmp_path / 'out'}", "--predict=1e5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["b"] == pytest.approx(0.3, abs=1e-3)
    assert found["c"] == pytest.approx(0.1, abs=1e-3)
    assert (tmp_path / "out" / "report.html").exists()
    assert main([*run, "--error_unit=fraction"]) == 1
    assert "--error_unit=percent" in capsys.readouterr().err


def test_text_is_for_people(capsys):
    assert main(["--resamples=50"]) == 0
    text = capsys.readouterr().out
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
    assert "Compute (GFLOPs)" in report and "core-days" not in report
