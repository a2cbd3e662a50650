"""The doctor's exit code and its two forms of output."""
# SPDX-License-Identifier: Apache-2.0

import json

import pytest

from vit_scaling.commands import doctor, installation


@pytest.fixture
def findings(monkeypatch):
    """The conflicts and devices that the examination finds; no conflict at first."""
    conflicts = []
    found = {"CPU": ["cpu:0"], "GPU": ["none"]}
    versions = {"tensorflow": "2.20.0", "jax": None}
    monkeypatch.setattr(installation, "installed_versions", lambda: versions)
    monkeypatch.setattr(installation, "devices", lambda: found)
    monkeypatch.setattr(installation, "find_conflicts", lambda *_: conflicts)
    return conflicts, found


def test_a_sound_installation_exits_with_0(findings, capsys):
    assert doctor.main([]) == 0
    text = capsys.readouterr().out
    for part in ("2.20.0", "not installed", "CPU: cpu:0", "No conflicts."):
        assert part in text


def test_a_conflict_is_printed_with_its_fix_and_exits_with_1(findings, capsys):
    findings[0].append({"problem": "a beats b", "fix": "pip install c"})
    assert doctor.main([]) == 1
    text = capsys.readouterr().out
    assert "conflict: a beats b" in text and "fix: pip install c" in text
    assert doctor.main(["--json"]) == 1
    assert json.loads(capsys.readouterr().out)["conflicts"] == findings[0]


def test_a_tensorflow_that_does_not_start_exits_with_1(findings, capsys):
    findings[1].clear()
    findings[1]["error"] = ["TensorFlow does not start: no"]
    assert doctor.main([]) == 1
    assert doctor.main(["--no_devices"]) == 0
    assert "does not start" in capsys.readouterr().out
