"""`preflight`: one JSON object, errors by flag, and (slow) the real compiler."""
# SPDX-License-Identifier: Apache-2.0

import json
import sys
from pathlib import Path

import pytest

from vit_scaling.commands.preflight import main
from vit_scaling.preflight import environment, lowering
from vit_scaling.preflight.compiler import Compiler

SMALL = [
    "--gin_file=experiments/vit_ti16.gin",
    *("--gin_param=SHAPE = 'mu/16'", "--gin_param=IMAGE_SIZE = 32"),
    "--gin_param=CLASSES = 10",
]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--topology=v33:2x2"], "`topology` must be VERSION:SIZES"),
        ([f"--tpu_python={sys.executable}"], "lacks the TPU compiler"),
        (["--tpu_python=/nowhere"], "`tpu_python` must be a Python"),
        (["--batch_multiple=12"], "`batch_multiple` must be a power of two; received"),
        (["--batch_multiple=0"], "`batch_multiple` must be a power of two; received 0"),
        (["--per_core_batch=0"], "`per_core_batch` must be at least 1"),
    ],
)
def test_bad_flags_are_rejected_before_anything_slow(capsys, flags, message):
    assert main([*SMALL, "--per_core_batch=8", *flags]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert not captured.out


def test_a_batch_or_the_search_for_one_is_required(capsys):
    for flags in ([], ["--per_core_batch=8", "--find_batch"]):
        with pytest.raises(SystemExit):
            main([*SMALL, *flags])
        assert "--find_batch" in capsys.readouterr().err


def test_an_unknown_topology_is_rejected_before_lowering(capsys, monkeypatch, tmp_path):
    def reject(self, topology):
        raise ValueError(f"`topology` must be one; received {topology!r}.")

    monkeypatch.setattr(
        environment, "find_python", lambda toolchain, path: Path(sys.executable)
    )
    monkeypatch.setattr(Compiler, "count_replicas", reject)
    monkeypatch.setattr(lowering, "StepLowering", None)  # Not to be called.
    flags = ["--per_core_batch=8", "--topology=v3:999x7", f"--cache_dir={tmp_path}"]
    assert main([*SMALL, *flags]) == 1
    assert "`topology` must be one; received 'v3:999x7'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_results_of_the_real_compiler_are_cached(capsys, tmp_path):
    flags = [*SMALL, "--per_core_batch=8", f"--cache_dir={tmp_path}", "--json"]
    assert main(flags) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["fits"] is True
    assert first["alias_bytes"] > 0.9 * first["output_bytes"]
    assert first["roofline"]["seconds_at_least"] > 0
    assert first["replicas"] == 8
    assert first["collectives"]["count"] == 1
    # Each gradient once; see tests/preflight/lowering_test.py.
    assert first["collectives"]["bytes"] >= 4 * first["parameters"]
    assert not first["cached"]
    import gin

    gin.clear_config()
    assert main(flags) == 0
    again = json.loads(capsys.readouterr().out)
    assert again.pop("cached") and not first.pop("cached")
    assert again == first


def run_without_cache(capsys, *flags: str) -> dict:
    import gin

    gin.clear_config()
    assert main([*flags, "--cache_dir=", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_a_step_that_does_not_fit_is_reported(capsys):
    found = run_without_cache(
        capsys,
        *SMALL[:2],
        *("--gin_param=IMAGE_SIZE = 224", "--gin_param=CLASSES = 10"),
        *("--per_core_batch=60000", "--topology=v5e:2x2"),
    )
    assert found["fits"] is False
    assert found["headroom_bytes"] < 0
    assert found["argument_bytes"] > 60000 * 224 * 224 * 3 * 4
