"""The benchmark of a start measures each number of replicas and fits a line."""
# SPDX-License-Identifier: Apache-2.0

import json

import pytest

from vit_scaling.commands import benchmark
from vit_scaling.commands.benchmarks import startup


def test_each_number_of_replicas_is_measured(capsys):
    flags = ["startup", "--replicas", "2", "1", "--depth=1", "--json"]
    assert benchmark.main(flags) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["replicas"] for row in result["rows"]] == [1, 2]
    (count,) = {row["variables"] for row in result["rows"]}
    assert count > 60
    assert all(row["create_seconds"] > 0 for row in result["rows"])
    assert 0 < result["plain_variable_seconds"] < 0.1


def test_exact_lines_are_found_and_extrapolated(monkeypatch, capsys):
    def measured(replicas, depth):
        seconds = {"create": 2e-3 + 1e-3 * replicas, "restore": 1e-3 * replicas}
        timed = {f"{name}_seconds": 100 * value for name, value in seconds.items()}
        plain = 1e-3 * replicas
        counts = {"replicas": replicas, "variables": 100}
        return {**counts, **timed, "plain_variable_seconds": plain}

    monkeypatch.setattr(startup, "_measure_in_process", measured)
    assert benchmark.main(["startup", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["fits"]["create"]["per_variable_seconds"] == pytest.approx(2e-3)
    assert result["fits"]["restore"]["per_copy_seconds"] == pytest.approx(1e-3)
    assert result["g14_seconds"]["8"] == pytest.approx(2672 * (2e-3 + 8 * 2e-3))
    assert result["plain_variable_seconds"] == 1e-3
    assert benchmark.main(["startup"]) == 0
    assert "48 s for 8 replicas" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--replicas", "4", "4"], "`--replicas` must have two different numbers"),
        (["--replicas", "0", "4"], "`--replicas` must be at least 1; received 0"),
        (["--depth=0"], "`--depth` must be at least 1; received 0"),
    ],
)
def test_flags_that_cannot_be_measured_are_rejected(flags, message, capsys):
    assert benchmark.main(["startup", *flags]) == 1
    assert message in capsys.readouterr().err
