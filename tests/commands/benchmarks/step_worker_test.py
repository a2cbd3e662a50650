"""A measured run really steps, and writes its checkpoints."""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.commands.benchmarks.step_worker import Runner, same_batches
from vit_scaling.training.checkpoint_files import saved_steps

SETTINGS = {
    "shape": "mu/16",
    "head": "gap",
    "image_size": 16,
    "classes": 3,
    "batch_size": 4,
    "dtype": "float32",
    "jit_compile": False,
    "steps_per_loop": 2,
    "checkpoint_every": 2,
}


def test_steps_are_run_in_loops_and_saved(tmp_path):
    runner = Runner(SETTINGS, str(tmp_path))
    assert runner.seconds(3) > 0
    assert saved_steps(tmp_path / "checkpoints") == [2]
    runner.seconds(1)
    assert saved_steps(tmp_path / "checkpoints") == [2, 4]


def test_every_batch_is_the_same():
    first, second = same_batches(SETTINGS, 2).take(2)
    assert first["images"].shape == (2, 16, 16, 3)
    assert (first["images"].numpy() == second["images"].numpy()).all()
    assert first["labels"].numpy().tolist() == [[1, 0, 0], [0, 1, 0]]
