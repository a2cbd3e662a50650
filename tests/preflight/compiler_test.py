"""Answers are asked for once, kept whole, and kept apart by all they depend on."""
# SPDX-License-Identifier: Apache-2.0

import json
import stat
import sys
from pathlib import Path

import pytest

from tests.preflight.programs import LINEAR, TOO_LARGE, recorded
from vit_scaling.preflight.compiler import TpuCompiler

# Stands where the other environment's Python stands: it answers as libtpu did, and
# counts how often it was asked.
ANSWERS = """#!{python}
import json, pathlib, sys
here = pathlib.Path(__file__).parent
worker, *rest = sys.argv[1:]
if rest == ["--versions"]:
    print((here / "versions.json").read_text())
    sys.exit(0)
program, topology, answer = rest
with open(here / "asked.txt", "a") as log:
    log.write(topology + chr(10))
text = "" if program == "--topology" else pathlib.Path(program).read_text()
if "dies" in text:
    print("Killed by the kernel", file=sys.stderr)
    sys.exit(9)
if topology == "v3:9x9":
    found = {{"kind": "topology", "error": "no such topology"}}
elif "host" in text:
    found = {{"kind": "compile", "error": "RESOURCE_EXHAUSTED: Out of host memory"}}
elif "large" in text:
    found = {{"kind": "compile", "error": {too_large!r}}}
else:
    found = json.loads({recorded!r})
pathlib.Path(answer).write_text(json.dumps(found))
"""


@pytest.fixture
def python(tmp_path) -> Path:
    file = tmp_path / "bin" / "python"
    file.parent.mkdir()
    file.write_text(
        ANSWERS.format(
            python=sys.executable,
            too_large=TOO_LARGE,
            recorded=json.dumps(recorded("mu")),
        )
    )
    file.chmod(file.stat().st_mode | stat.S_IEXEC)
    (file.parent / "versions.json").write_text('{"jax": "0.10.2"}')
    return file


def asked(python: Path) -> list[str]:
    log = python.parent / "asked.txt"
    return log.read_text().split() if log.exists() else []


def test_an_answer_is_remembered(python, tmp_path):
    compiler = TpuCompiler(python, tmp_path / "cache")
    assert compiler.answer(LINEAR, "v3:2x2") == (recorded("mu"), False)
    assert compiler.answer(LINEAR, "v3:2x2") == (recorded("mu"), True)
    renamed = LINEAR.replace("__39__.48", "__7__.9")
    assert compiler.answer(renamed, "v3:2x2") == (recorded("mu"), True)
    assert asked(python) == ["v3:2x2"]


def test_another_topology_program_or_version_is_asked_anew(python, tmp_path):
    compiler = TpuCompiler(python, tmp_path / "cache")
    compiler.answer(LINEAR, "v3:2x2")
    assert not compiler.answer(LINEAR, "v5e:2x2")[1]
    assert not compiler.answer(LINEAR.replace("3x2", "3x4"), "v3:2x2")[1]
    (python.parent / "versions.json").write_text('{"jax": "0.11.0"}')
    assert not compiler.answer(LINEAR, "v3:2x2")[1]
    assert len(asked(python)) == 4


def test_what_does_not_fit_is_remembered_as_well(python, tmp_path):
    compiler = TpuCompiler(python, tmp_path / "cache")
    text = LINEAR.replace("add.34", "large")  # A location: the same program…
    assert compiler.answer(text, "v3:2x2")[0]["error"] == TOO_LARGE
    assert compiler.answer(LINEAR, "v3:2x2")[1]  # … and so the same answer.


def test_what_this_machine_may_have_caused_is_not_kept(python, tmp_path):
    compiler = TpuCompiler(python, tmp_path / "cache")
    text = LINEAR.replace("add.34", "host")
    for _ in range(2):
        answer, remembered = compiler.answer(text, "v3:2x2")
        assert "host memory" in answer["error"] and not remembered
    assert len(asked(python)) == 2


def test_without_a_cache_every_question_is_asked(python):
    compiler = TpuCompiler(python, None)
    for _ in range(2):
        assert compiler.answer(LINEAR, "v3:2x2") == (recorded("mu"), False)
    assert len(asked(python)) == 2


def test_an_unknown_topology_is_refused_and_not_kept(python, tmp_path):
    compiler = TpuCompiler(python, tmp_path / "cache")
    with pytest.raises(ValueError, match=r"v5e:2x2; received 'v3:9x9'"):
        compiler.answer(LINEAR, "v3:9x9")
    assert not list((tmp_path / "cache").glob("*"))


def test_a_topology_is_asked_for_alone(python, tmp_path):
    compiler = TpuCompiler(python, tmp_path / "cache")
    compiler.check_topology("v3:2x2")
    with pytest.raises(ValueError, match=r"v5e:2x2; received 'v3:9x9'"):
        compiler.check_topology("v3:9x9")
    assert asked(python) == ["v3:2x2", "v3:9x9"]


def test_a_process_that_dies_is_told_and_not_kept(python, tmp_path):
    compiler = TpuCompiler(python, tmp_path / "cache")
    with pytest.raises(RuntimeError, match=r"code 9 .*Killed by the kernel"):
        compiler.answer(LINEAR.replace("add.34", "dies"), "v3:2x2")
    assert not list((tmp_path / "cache").glob("*"))
