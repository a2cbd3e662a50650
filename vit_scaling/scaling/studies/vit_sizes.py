"""Sizes and costs of ViT shapes, for tables that name shapes only (Table 2)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.scaling.laws.runs import Run, Runs
from vit_scaling.scaling.planning.flops import flops, parameters

IMAGE_SIZE = 224


def training_flops(shape: ViTShape, image_size: int = IMAGE_SIZE) -> float:
    """Return the encoder's FLOPs of a training step on one image."""
    return flops(shape, head="none", image_size=image_size, classes=None).training


def encoder_parameters(shape: ViTShape, image_size: int = IMAGE_SIZE) -> int:
    """Return the encoder's number of weights, as in Table 2."""
    return parameters(shape, image_size=image_size).encoder


def fill_sizes(runs: Runs, image_size: int = IMAGE_SIZE) -> Runs:
    """Return the runs with the parameters of their shapes where they are not known."""

    def fill(run: Run) -> Run:
        if run.parameters is not None or run.shape is None:
            return run
        count = encoder_parameters(run.shape, image_size)
        return dataclasses.replace(run, parameters=count)

    return Runs(tuple(fill(run) for run in runs), runs.notes)
