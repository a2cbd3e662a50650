"""The table of coverages is resumable, and marks what does not hold."""
# SPDX-License-Identifier: Apache-2.0

import json

import pytest

from vit_scaling.commands import benchmark
from vit_scaling.commands.benchmarks import coverage
from vit_scaling.scaling.laws import simulated_studies
from vit_scaling.scaling.laws.simulated_studies import StudyOutcome


@pytest.fixture
def studies(monkeypatch):
    """Replaces the simulation; the list has every study that was run."""
    ran = []

    def simulate(truth, count, noise, study, **settings):
        ran.append((truth, count, noise, study))
        return StudyOutcome(True, count < 100, True, None, 0.1, 0.05, -0.01)

    monkeypatch.setattr(simulated_studies, "simulate_study", simulate)
    return ran


def run(path, studies, *flags):
    return benchmark.main(
        ["coverage", "--json", f"--output_file={path}", f"--studies={studies}",
         "--truths=kaplan", "--runs=40,100", "--noise=0.01", *flags]
    )  # fmt: skip


def test_stored_studies_are_not_run_again(studies, tmp_path, capsys):
    path = tmp_path / "out" / "coverage.jsonl"
    assert run(path, 3) == 0
    assert len(studies) == 6
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"cell": ["kaplan", 40')  # A command that was killed.
    capsys.readouterr()
    assert run(path, 5) == 0
    assert len(studies) == 10
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [cell["ahead"]["coverage"] for cell in cells] == [1.0, 0.0]
    assert [cell["ahead"]["too_low"] for cell in cells] == [False, True]
    assert cells[0]["floor"] is None
    run(path, 5, "--method=frontier")
    assert len(studies) == 20
    run(path, 5, "--method=frontier", "--repeated=9")
    assert len(studies) == 30
    run(path, 5)
    assert len(studies) == 30


def test_a_low_coverage_is_marked(studies, tmp_path, capsys):
    path = tmp_path / "coverage.jsonl"
    flags = ["--truths=kaplan", "--runs=100", "--noise=0.01"]
    benchmark.main(["coverage", f"--output_file={path}", "--studies=9", *flags])
    text = capsys.readouterr().out
    assert "0.000!" in text and "1.000 " in text and "10.0%" in text


def test_the_default_cells_are_those_of_the_guide():
    assert coverage.RUNS == "40,100,300,1000" and coverage.NOISE == "0.005,0.01,0.03"
