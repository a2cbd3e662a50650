"""A checkpoint needs little more host memory than the state that it holds."""
# SPDX-License-Identifier: Apache-2.0

import json
import subprocess
import sys

import pytest

from vit_scaling.commands import benchmark
from vit_scaling.commands.benchmarks import checkpoint


@pytest.mark.slow
def test_saving_and_restoring_need_at_most_1_3_times_the_state(tmp_path):
    # In a separate process, whose memory nothing else has touched.
    command = [sys.executable, "-m", "vit_scaling.commands.benchmark", "checkpoint"]
    flags = ["--state_mib=512", f"--folder={tmp_path}", "--json"]
    output = subprocess.run([*command, *flags], check=True, capture_output=True)
    result = json.loads(output.stdout)
    assert result["state_bytes"] == 512 * 2**20
    # Updated while it is written, the old values need as much as the new ones.
    assert 0.9 < result["save_memory_over_state"] <= 1.3
    assert 0.9 < result["restore_memory_over_state"] <= 1.3
    assert checkpoint.tables(result)[0].rows[0] == ("variables, GiB", "0.500")
    assert not list(tmp_path.iterdir())


def test_too_small_a_state_is_rejected(capsys):
    assert benchmark.main(["checkpoint", "--state_mib=63"]) == 1
    assert "`--state_mib` must be at least 64; rec" in capsys.readouterr().err
