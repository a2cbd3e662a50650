"""A measured run really steps, and writes its checkpoints."""
# SPDX-License-Identifier: Apache-2.0

import io
import json
import sys
import types

import pytest

from vit_scaling.commands.benchmarks import step_worker
from vit_scaling.commands.benchmarks.step_worker import Runner, SameBatch
from vit_scaling.training.checkpoint_files import saved_steps

SETTINGS = {
    "shape": "mu/16",
    "head": "gap",
    "image_size": 16,
    "classes": 3,
    "batch_size": 4,
    "dtype": "float32",
    "jit_compile": False,
    "rematerialize": "none",
    "fresh_memory": False,
    "steps_per_loop": 2,
    "checkpoint_every": 2,
}


def test_steps_are_run_in_loops_and_saved(tmp_path):
    runner = Runner(SETTINGS, str(tmp_path))
    assert runner.seconds(3) > 0
    assert saved_steps(tmp_path / "checkpoints") == [2]
    runner.seconds(1)
    assert saved_steps(tmp_path / "checkpoints") == [2, 4]


def test_a_warm_up_of_other_length_does_not_keep_checkpoints_away(
    tmp_path, monkeypatch
):
    runner = Runner(SETTINGS, str(tmp_path))
    runner.seconds(1)
    runner.seconds(4)
    assert saved_steps(tmp_path / "checkpoints") == [3, 5]
    monkeypatch.setattr(runner._state, "save", lambda: None)
    with pytest.raises(RuntimeError, match="none was written up to step 7"):
        runner.seconds(2)


def test_the_model_is_rematerialized_as_asked(tmp_path):
    with pytest.raises(ValueError, match=r"`rematerialize` must be .* received 'some'"):
        Runner({**SETTINGS, "rematerialize": "some"}, str(tmp_path))


@pytest.mark.parametrize("fresh", [True, False])
def test_freed_memory_is_kept_by_default_before_the_first_step(
    monkeypatch, capsys, fresh
):
    order = []

    class Timed:
        def __init__(self, settings, model_dir):
            order.append("made")

        def seconds(self, steps):
            return steps / 2

    monkeypatch.setattr(step_worker, "Runner", Timed)
    monkeypatch.setattr(step_worker, "keep_freed_memory", lambda: order.append("kept"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("4\n"))
    step_worker.main([json.dumps({**SETTINGS, "fresh_memory": fresh})])
    assert order == (["made"] if fresh else ["kept", "made"])
    assert json.loads(capsys.readouterr().out) == {"seconds": 2}


def test_every_batch_is_the_same():
    context = types.SimpleNamespace(num_replicas_in_sync=2)
    data = SameBatch(SETTINGS).dataset(batch_size=4, input_context=context)
    first, second = data.take(2)
    assert first["images"].shape == (2, 16, 16, 3)
    assert (first["images"].numpy() == second["images"].numpy()).all()
    assert first["labels"].numpy().tolist() == [[1, 0, 0], [0, 1, 0]]
