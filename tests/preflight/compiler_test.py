"""Results are compiled once, and cached by everything that they depend on."""
# SPDX-License-Identifier: Apache-2.0

import json
import stat
import sys
from pathlib import Path

import pytest

from tests.preflight.programs import HLO, LINEAR, TOO_LARGE, recorded
from vit_scaling.preflight.collectives import find_collectives
from vit_scaling.preflight.compiler import Compiler
from vit_scaling.preflight.environment import TPU

MU = recorded("mu")
RESULT = {**MU, "options": {}, "collectives": find_collectives(HLO)}
# Replaces the Python of the compiler's environment: it writes recorded results of
# libtpu and logs each call.
FAKE_PYTHON = """#!{python}
import json, pathlib, sys
here = pathlib.Path(__file__).parent
worker, *rest = sys.argv[1:]
if rest == ["--versions"]:
    print((here / "versions.json").read_text())
    sys.exit(0)
program, topology, result, *more = rest
with open(here / "calls.txt", "a") as log:
    log.write(topology + chr(10))
text = "" if program == "--topology" else pathlib.Path(program).read_text()
if "killed" in text:
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)
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
if more:
    found["options"] = json.loads(more[0])
    if "error" not in found:
        pathlib.Path(more[1]).write_text({hlo!r})
pathlib.Path(result).write_text(json.dumps(found))
"""


@pytest.fixture
def python(tmp_path) -> Path:
    file = tmp_path / "bin" / "python"
    file.parent.mkdir()
    file.write_text(
        FAKE_PYTHON.format(
            python=sys.executable,
            too_large=TOO_LARGE,
            recorded=json.dumps(MU),
            hlo=HLO,
        )
    )
    file.chmod(file.stat().st_mode | stat.S_IEXEC)
    (file.parent / "versions.json").write_text('{"jax": "0.10.2"}')
    return file


def read_calls(python: Path) -> list[str]:
    log = python.parent / "calls.txt"
    return log.read_text().split() if log.exists() else []


def test_a_result_is_cached(python, tmp_path):
    compiler = Compiler(TPU, python, tmp_path / "cache")
    assert compiler.compile(LINEAR, "v3:2x2") == (RESULT, False)
    assert compiler.compile(LINEAR, "v3:2x2") == (RESULT, True)
    renamed = LINEAR.replace("__39__.48", "__7__.9")
    assert compiler.compile(renamed, "v3:2x2") == (RESULT, True)
    assert read_calls(python) == ["v3:2x2"]


def test_another_topology_program_or_version_is_compiled_again(python, tmp_path):
    compiler = Compiler(TPU, python, tmp_path / "cache")
    compiler.compile(LINEAR, "v3:2x2")
    assert not compiler.compile(LINEAR, "v5e:2x2")[1]
    assert not compiler.compile(LINEAR.replace("3x2", "3x4"), "v3:2x2")[1]
    (python.parent / "versions.json").write_text('{"jax": "0.11.0"}')
    assert not compiler.compile(LINEAR, "v3:2x2")[1]
    assert len(read_calls(python)) == 4


def test_a_program_that_does_not_fit_is_cached_too(python, tmp_path):
    compiler = Compiler(TPU, python, tmp_path / "cache")
    text = LINEAR.replace("add.34", "large")  # A location: the same program…
    assert compiler.compile(text, "v3:2x2")[0]["error"] == TOO_LARGE
    assert compiler.compile(LINEAR, "v3:2x2")[1]  # … and so the same result.


def test_errors_that_this_machine_may_have_caused_are_not_cached(python, tmp_path):
    compiler = Compiler(TPU, python, tmp_path / "cache")
    text = LINEAR.replace("add.34", "host")
    for _ in range(2):
        result, cached = compiler.compile(text, "v3:2x2")
        assert "host memory" in result["error"] and not cached
    assert len(read_calls(python)) == 2


def test_without_a_cache_every_program_is_compiled(python):
    compiler = Compiler(TPU, python, None)
    for _ in range(2):
        assert compiler.compile(LINEAR, "v3:2x2") == (RESULT, False)
    assert len(read_calls(python)) == 2


def test_an_unknown_topology_is_rejected_and_not_cached(python, tmp_path):
    compiler = Compiler(TPU, python, tmp_path / "cache")
    with pytest.raises(ValueError, match=r"v5e:2x2; received 'v3:9x9'"):
        compiler.compile(LINEAR, "v3:9x9")
    assert not list((tmp_path / "cache").glob("*"))


def test_a_topology_is_checked_without_a_program(python, tmp_path):
    compiler = Compiler(TPU, python, tmp_path / "cache")
    assert compiler.count_replicas("v3:2x2") == 8
    with pytest.raises(ValueError, match=r"v5e:2x2; received 'v3:9x9'"):
        compiler.count_replicas("v3:9x9")
    assert read_calls(python) == ["v3:2x2", "v3:9x9"]


def test_a_process_that_this_machine_kills_for_its_memory_is_named(python, tmp_path):
    compiler = Compiler(TPU, python, tmp_path / "cache")
    with pytest.raises(RuntimeError, match=r"code -9: this machine ran out of memory"):
        compiler.compile(LINEAR.replace("add.34", "killed"), "v3:2x2")
    assert not list((tmp_path / "cache").glob("*"))


def test_options_reach_the_compiler_and_another_value_is_compiled_again(
    python, tmp_path
):
    cache = tmp_path / "cache"
    for value in (False, True):
        compiler = Compiler(TPU, python, cache, options={"combine": value})
        result, cached = compiler.compile(LINEAR, "v3:2x2")
        assert result["options"] == {"combine": value} and not cached


def test_the_compiled_program_is_kept_where_it_is_asked_for(python, tmp_path):
    file = tmp_path / "hlo.txt"
    compiler = Compiler(TPU, python, tmp_path / "cache", optimized=file)
    assert not compiler.compile(LINEAR, "v3:2x2")[1]
    assert file.read_text() == HLO
    assert not compiler.compile(LINEAR, "v3:2x2")[1]  # The cache has no text.


def test_a_process_that_dies_is_reported_and_not_cached(python, tmp_path):
    compiler = Compiler(TPU, python, tmp_path / "cache")
    with pytest.raises(RuntimeError, match=r"code 9 .*Killed by the kernel"):
        compiler.compile(LINEAR.replace("add.34", "dies"), "v3:2x2")
    assert not list((tmp_path / "cache").glob("*"))
