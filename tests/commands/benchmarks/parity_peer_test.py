"""big_vision's side has the same optimizer settings, and trains and resumes."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json
import os
import pathlib
import subprocess

import pytest

import vit_scaling
from tests.commands.benchmarks.parity_data_test import make_settings
from vit_scaling.commands.benchmarks import parity_peer

PYTHON = os.environ.get("VIT_SCALING_JAX_PYTHON")
SOURCES = os.environ.get("VIT_SCALING_BIG_VISION")


def test_decays_are_those_of_the_paper_in_the_authors_convention(tmp_path):
    """There a decay multiplies the schedule alone, and the head's is relative."""
    config = parity_peer._optimizer_config(make_settings(tmp_path))
    assert config["wd"] == pytest.approx(0.03 * config["lr"])
    assert config["wd_mults"][0] == (".*head/kernel", pytest.approx(100.0))
    steps = [config["schedule"][name] for name in ("warmup_steps", "cooldown_steps")]
    assert steps == [2, 2]


@pytest.mark.slow
@pytest.mark.skipif(
    PYTHON is None or SOURCES is None,
    reason="needs VIT_SCALING_JAX_PYTHON and VIT_SCALING_BIG_VISION",
)
def test_a_run_of_big_vision_is_evaluated_after_each_epoch(tmp_path):
    settings = make_settings(tmp_path)
    settings = dataclasses.replace(settings, folder=str(tmp_path / "run"))
    package = str(pathlib.Path(vit_scaling.__file__).parents[1])
    command = [PYTHON, "-m", parity_peer.__name__]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([package, SOURCES])}
    subprocess.run(
        [*command, json.dumps(dataclasses.asdict(settings))],
        env=environment,
        check=True,
    )
    top1 = settings.stored_result()
    assert len(top1) == 2 and all(0 <= value <= 1 for value in top1)
