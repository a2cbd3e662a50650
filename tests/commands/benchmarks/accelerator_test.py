"""The check of an accelerator: on the CPU it measures a tiny model."""
# SPDX-License-Identifier: Apache-2.0

import json

import pytest

from vit_scaling.commands import benchmark
from vit_scaling.commands.benchmarks import accelerator


def test_a_tiny_model_is_measured_on_the_cpu(tmp_path, capsys):
    flags = ["--device=cpu", "--steps=2", f"--output_dir={tmp_path}", "--json"]
    assert benchmark.main(["accelerator", *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["mode"] for row in found["rows"]] == ["training", "inference"]
    assert all(row["images_per_second"] > 0 for row in found["rows"])
    assert json.loads((tmp_path / "accelerator.json").read_text()) == found
    (written,) = accelerator.tables(found)
    assert all(float(row[4]) <= float(row[5]) <= float(row[6]) for row in written.rows)
    table = (tmp_path / "accelerator.md").read_text()
    assert "| mu/16 | 2 | training | vit_scaling |" in table


def test_without_a_gpu_the_error_names_the_doctor(capsys):
    assert benchmark.main(["accelerator"]) == 1
    assert "vit-scaling doctor" in capsys.readouterr().err


def test_memory_is_compared_with_the_preflight(tmp_path):
    path = tmp_path / "preflight.json"
    path.write_text(json.dumps({"total_bytes": 4 * 2**30}))
    rows = [
        accelerator._row("B/16", 64, "training", "vit_scaling", 900.0, 5.0),
        accelerator._row("B/16", 64, "training", "timm, torch.compile", 900.0, 6.0),
    ]
    found = accelerator._compare_memory(str(path), rows)
    assert found == {"compiled_gib": 4.0, "measured_gib": 5.0, "ratio": 1.25}
    assert accelerator._compare_memory(None, rows) is None


def test_a_torch_that_fails_is_named(tmp_path, capsys):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'No module named torch' >&2\nexit 1\n")
    python.chmod(0o755)
    flags = ["--device=cpu", "--steps=1", f"--torch_python={python}"]
    assert benchmark.main(["accelerator", *flags]) == 1
    assert "No module named torch" in capsys.readouterr().err


@pytest.mark.slow
def test_the_script_runs_on_the_cpu(tmp_path):
    """`bash tools/gpu_check.sh --device=cpu`, from installation to the table."""
    import pathlib
    import subprocess

    root = pathlib.Path(__file__).resolve().parents[3]
    command = ["bash", "tools/gpu_check.sh", "--device=cpu", str(tmp_path / "out")]
    subprocess.run(command, cwd=root, check=True)
    assert (tmp_path / "out" / "accelerator.md").is_file()
