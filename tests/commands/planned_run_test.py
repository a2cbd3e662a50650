"""A run's memory follows from its own objects: optimizer, average, micro-batches."""
# SPDX-License-Identifier: Apache-2.0

import json

import gin
import pytest

from vit_scaling.commands import planned_run
from vit_scaling.commands.plan import main
from vit_scaling.modeling.shapes import SHAPES
from vit_scaling.scaling.planning.devices import device_named
from vit_scaling.scaling.planning.memory import memory
from vit_scaling.scaling.planning.step import Step

FINETUNE = "experiments/finetune_g14.gin"
SMALLER = "experiments/finetune_g14_16gb.gin"


def read_run(files, bindings):
    gin.clear_config()
    return planned_run.read_run(files, bindings)


def test_the_step_is_that_of_the_runs_objects():
    shape, step = read_run(
        ["experiments/vit_b16.gin"],
        [
            *("CLASSES = 10", "AVERAGE_DECAY = 0.999", "MICRO_BATCHES = 4"),
            *("CLIP_NORM = None", "HEAD = 'token'", "REMATERIALIZE = 'mlp'"),
            *("GRADIENT_DTYPE = 'bfloat16'", "IMAGE_SIZE = 384"),
        ],
    )
    assert shape == SHAPES["B/16"]
    assert step == Step(
        head="token",
        image_size=384,
        classes=10,
        rematerialize="mlp",
        clip=False,
        average=True,
        micro_batches=4,
        gradient_dtype="bfloat16",
    )


def test_the_average_counts_and_the_smaller_finetuning_fits_16_gb():
    """Weights and their float32 average alone are more than 15 GB (App. D, G/14)."""
    parameters = 1_881_132_416
    for file, fits in ((FINETUNE, False), (SMALLER, True)):
        shape, step = read_run([file], ["CLASSES = 1000"])
        for name in ("tpu_v3", "tpu_v5e"):
            device = device_named(name)
            found = memory(shape, batch=1, step=step, limit_bytes=device.memory_bytes)
            assert (found.total <= device.memory_bytes) == fits
        if step.average:
            assert found.terms["average"] >= 4 * parameters
        assert found.terms["first_moment"] >= 2 * parameters  # In bfloat16.


def test_gradients_that_are_exchanged_exist_in_their_dtype():
    sizes = [
        memory(SHAPES["G/14"], batch=1, step=Step(gradient_dtype=dtype)).terms
        for dtype in ("bfloat16", "float32")
    ]
    assert sizes[1]["gradients"] == 2 * sizes[0]["gradients"]


def test_plan_takes_a_configuration_in_place_of_flags(capsys):
    gin.clear_config()
    flags = ["--device=tpu_v3", "--batch=1", "--gin_param=CLASSES = 1000"]
    assert main([f"--gin_file={SMALLER}", *flags, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] is True and found["optimizer"] == "momentum_hp"
    assert main([f"--gin_file={SMALLER}", *flags, "--head=gap"]) == 1
    assert "--head: --gin_file does not read it" in capsys.readouterr().err


def test_another_model_and_another_state_are_rejected(monkeypatch):
    with pytest.raises(ValueError, match="The run's model must be `vit`"):
        monkeypatch.setattr(gin, "get_bindings", lambda name: {})
        read_run(["experiments/vit_b16.gin"], ["CLASSES = 10"])
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"The memory of `Optimizer.rule`"):
        read_run(
            ["experiments/vit_b16.gin"],
            ["CLASSES = 10", "Adafactor.second_moment_dtype = 'bfloat16'"],
        )
