"""big_vision's side has the same optimizer settings, and trains and resumes."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest

import vit_scaling
from tests.commands.benchmarks.parity_data_test import make_settings
from vit_scaling.commands.benchmarks import parity_peer, parity_run

PYTHON = os.environ.get("VIT_SCALING_JAX_PYTHON")
SOURCES = os.environ.get("VIT_SCALING_BIG_VISION")


needs_big_vision = pytest.mark.skipif(
    PYTHON is None or SOURCES is None,
    reason="needs VIT_SCALING_JAX_PYTHON and VIT_SCALING_BIG_VISION",
)
STEPS = 10
TRAIN = f"""
import json, sys
import numpy as np
from flax.traverse_util import flatten_dict
from vit_scaling.commands.benchmarks import parity_data, parity_peer

settings = parity_data.Settings(**json.loads(sys.argv[1]))
initial, update, _ = parity_peer.make_functions(settings)
state = initial()
for step in range({STEPS} + 1):
    if step in (0, {STEPS}):
        np.savez(f"{{settings.folder}}/{{step}}.npz", **flatten_dict(state[0], sep="/"))
    state = update(state, *parity_data.train_batch(settings, step))
"""


def run_big_vision(settings, *command):
    package = str(pathlib.Path(vit_scaling.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([package, SOURCES])}
    argument = json.dumps(dataclasses.asdict(settings))
    subprocess.run([PYTHON, *command, argument], env=environment, check=True)


def test_decays_are_those_of_the_paper_in_the_authors_convention(tmp_path):
    """There a decay multiplies the schedule alone, and the head's is relative."""
    config = parity_peer._optimizer_config(make_settings(tmp_path))
    assert config["wd"] == pytest.approx(0.03 * config["lr"])
    assert config["wd_mults"][0] == (".*head/kernel", pytest.approx(100.0))
    steps = [config["schedule"][name] for name in ("warmup_steps", "cooldown_steps")]
    assert steps == [2, 2]


@pytest.mark.slow
@needs_big_vision
def test_a_run_of_big_vision_is_evaluated_after_each_epoch(tmp_path):
    settings = make_settings(tmp_path)
    settings = dataclasses.replace(settings, folder=str(tmp_path / "run"))
    run_big_vision(settings, "-m", parity_peer.__name__)
    top1 = settings.stored_result()
    assert len(top1) == 2 and all(0 <= value <= 1 for value in top1)


@pytest.mark.slow
@needs_big_vision
@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-3), ("bfloat16", 0.02)])
def test_the_same_weights_and_batches_become_the_same_weights(dtype, most, tmp_path):
    """Model, loss, optimizer, decay and schedule agree but for the momentum's rounding.

    How far each array is off, as a fraction of its way.
    """
    from vit_scaling.applications.weights import (
        assign_weights,
        export_weights,
        read_weights,
    )
    from vit_scaling.training.strategy import make_strategy

    settings = make_settings(tmp_path, batch_size=5, width=64, depth=2,
                             momentum_dtype=dtype)  # fmt: skip
    run_big_vision(settings, "-c", TRAIN)
    start, end = (np.load(tmp_path / f"{step}.npz") for step in (0, STEPS))
    experiment = parity_run.make_experiment(settings)
    model = experiment.build_model()
    assign_weights(model, read_weights(str(tmp_path / "0.npz")))
    optimizer = experiment.build_optimizer(model, experiment.schedule_in_steps())
    step = experiment.make_step(model, optimizer)
    batches = iter(experiment.train_batches(make_strategy("one_device"), 0, 0))
    for _ in range(STEPS):
        step(next(batches))
    export_weights(model, str(tmp_path / "ours.npz"))
    ours = np.load(tmp_path / "ours.npz")
    assert set(ours.files) == set(end.files)
    # The bias of keys changes no attention: its gradient is rounding, which Adafactor
    # scales up.
    names = [name for name in end.files if not name.endswith("key/bias")]
    off = {
        name: np.linalg.norm(ours[name] - end[name])
        / np.linalg.norm(end[name] - start[name])
        for name in names
    }
    assert max(off.values()) < most, off
