"""timm's shapes are this package's, and its rows have the form of ours."""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import subprocess

import pytest

from vit_scaling.commands.benchmarks import accelerator, torch_worker
from vit_scaling.modeling.shapes import shape_named

PYTHON = os.environ.get("VIT_SCALING_TORCH_PYTHON")


@pytest.mark.parametrize("name", torch_worker.SHAPES)
def test_shapes_are_those_of_the_package(name):
    width, depth, heads, ratio, patch = torch_worker.SHAPES[name]
    shape = shape_named(name)
    assert (shape.width, shape.depth, shape.heads) == (width, depth, heads)
    assert shape.mlp_width == round(width * ratio) and shape.patch == patch


def test_every_measured_shape_is_known():
    measured = {**accelerator.TRAINING, **accelerator.INFERENCE_ONLY}
    assert {*measured, *accelerator.TINY} == set(torch_worker.SHAPES)


@pytest.mark.slow
@pytest.mark.skipif(PYTHON is None, reason="needs VIT_SCALING_TORCH_PYTHON with timm")
def test_timm_is_measured():
    request = {
        "shape": "mu/16",
        "image_size": 32,
        "classes": 10,
        "batch_size": 2,
        "dtype": "float32",
        "modes": ["training", "inference"],
        "steps": 2,
        "device": "cpu",
    }
    done = subprocess.run(
        [PYTHON, torch_worker.__file__, json.dumps(request)],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = json.loads(done.stdout.splitlines()[-1])
    assert [row["mode"] for row in rows] == ["training", "inference"]
    assert all(row["images_per_second"] > 0 for row in rows)
