"""The Python face reads tables, with sizes and FLOPs of named ViT shapes."""
# SPDX-License-Identifier: Apache-2.0

import pandas as pd
import pytest

from vit_scaling import scaling
from vit_scaling.modeling.shapes import SHAPES
from vit_scaling.scaling.planning.flops import flops, parameters


def test_named_shapes_have_sizes_and_compute():
    table = pd.DataFrame({"model": ["B/16"], "images_seen": ["1B"], "acc": [0.7]})
    runs = scaling.runs_from(table)
    assert runs.parameters[0] == parameters(SHAPES["B/16"]).encoder
    work = flops(SHAPES["B/16"], head="none", classes=None).training
    assert (runs.compute[0], runs.compute_unit) == (work * 1e9, "flops")
    larger = scaling.runs_from(table, image_size=384)
    assert larger.compute[0] > 2.5 * runs.compute[0]


def test_the_paper_is_a_source():
    runs = scaling.runs_from("paper")
    assert len(runs) == len(scaling.paper_runs("imagenet_10shot"))
    assert runs.parameters.min() > 1e6


def test_groups_and_metrics():
    table = pd.DataFrame(
        {"flops": [1e18, 2e18], "loss": [3, 2], "task": "ab", "family": "xy"}
    ).assign(task=["a", "b"], family=["x", "y"])
    assert scaling.grouped_runs_from(table, "family").keys() == {"x", "y"}
    assert len(scaling.runs_from(table, metric="task").of_metric("b")) == 1
    with pytest.raises(AttributeError, match="no attribute 'fits'"):
        scaling.fits  # noqa: B018
