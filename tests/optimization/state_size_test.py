"""What an optimizer's state costs: the paper's ratios, and what is really allocated."""
# SPDX-License-Identifier: Apache-2.0

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from tests.optimization.cases import variables_for
from vit_scaling.commands import optimizer_state
from vit_scaling.modeling.shapes import ViTShape, shape_named
from vit_scaling.modeling.vit import vit
from vit_scaling.optimization.adafactor import Adafactor, factored_axes
from vit_scaling.optimization.adam import Adam
from vit_scaling.optimization.learning_rate_multipliers import freeze
from vit_scaling.optimization.momentum import Momentum
from vit_scaling.optimization.optimizer import Optimizer
from vit_scaling.optimization.state_size import (
    cost_of,
    cost_table,
    cost_text,
)
from vit_scaling.optimization.update_rules import UPDATE_RULES

GIB = 2**30


def weights_of(shape: ViTShape, classes: int) -> list[tuple[str, tuple[int, ...]]]:
    """Return (path, shape) of every weight of a ViT with MAP head at 224 px."""
    width, mlp, heads, deep = shape.width, shape.mlp_width, shape.heads, shape.head_dim

    def attention(start):
        yield from (
            (f"{start}/{name}/{kind}", size)
            for name in ("query", "key", "value")
            for kind, size in (
                ("kernel", (width, heads, deep)),
                ("bias", (heads, deep)),
            )
        )
        yield f"{start}/out/kernel", (heads, deep, width)
        yield f"{start}/out/bias", (width,)

    def norm(start):
        return [(f"{start}/gamma", (width,)), (f"{start}/beta", (width,))]

    def perceptron(start):
        return [
            (f"{start}/dense_0/kernel", (width, mlp)),
            (f"{start}/dense_0/bias", (mlp,)),
            (f"{start}/dense_1/kernel", (mlp, width)),
            (f"{start}/dense_1/bias", (width,)),
        ]

    pairs = [
        ("patch_embedding/kernel", (shape.patch, shape.patch, 3, width)),
        ("patch_embedding/bias", (width,)),
        ("position_embedding/embedding", (1, shape.tokens(224), width)),
    ]
    for block in [f"block_{number:02d}" for number in range(shape.depth)]:
        pairs += norm(f"{block}/attention_norm")
        pairs += attention(f"{block}/attention")
        pairs += norm(f"{block}/mlp_norm")
        pairs += perceptron(f"{block}/mlp")
    pairs += norm("encoder_norm")
    pairs.append(("map_head/probe", (1, 1, width)))
    pairs += attention("map_head/attention")
    pairs += norm("map_head/norm")
    pairs += perceptron("map_head/mlp")
    return [*pairs, ("head/kernel", (width, classes)), ("head/bias", (classes,))]


def test_the_list_of_weights_is_the_models():
    shape = ViTShape(patch=56, width=32, depth=2, mlp_width=48, heads=4)
    model = vit(shape, image_size=224, classes=7)
    actual = {v.path: tuple(v.shape) for v in model.trainable_variables}
    assert actual == dict(weights_of(shape, 7))


@pytest.mark.parametrize(
    ("name", "classes", "largest"),
    [("B/16", 1000, 0.53), ("g/14", 1000, 0.51), ("G/14", 1000, 0.51)],
)
def test_the_papers_overheads(name, classes, largest):
    costs = {
        cost.optimizer: cost
        for cost in cost_table(weights_of(shape_named(name), classes))
    }
    assert costs["Adam"].ratio == 2.0
    assert costs["Adam-HP"].ratio == 1.5
    assert 0.5 < costs["Adafactor"].ratio <= largest
    assert costs["Momentum"].ratio == 1.0
    assert costs["Momentum-HP"].ratio == 0.5
    assert costs["Lion"].ratio == 1.0


@pytest.mark.parametrize(
    ("name", "parameters", "weights", "adam", "adam_hp", "first", "second"),
    [
        # GiB with JFT-3B's 29,593 classes, computed from the shapes of Table 2.
        ("G/14", 1930.4e6, 7.19, 14.38, 10.79, 3.60, 0.032),
        ("g/14", 1078.1e6, 4.02, 8.03, 6.03, 2.01, 0.023),
        ("B/16", 115.6e6, 0.431, 0.862, 0.646, 0.215, 0.005),
    ],
)
def test_state_sizes_with_the_papers_classes(
    name, parameters, weights, adam, adam_hp, first, second
):
    costs = {
        cost.optimizer: cost
        for cost in cost_table(weights_of(shape_named(name), 29_593))
    }
    factored = costs["Adafactor"]
    assert factored.parameters == pytest.approx(parameters, abs=0.05e6)
    assert factored.weights / GIB == pytest.approx(weights, rel=2e-3)
    assert costs["Adam"].state / GIB == pytest.approx(adam, rel=2e-3)
    assert costs["Adam-HP"].state / GIB == pytest.approx(adam_hp, rel=2e-3)
    assert factored.first_moment / GIB == pytest.approx(first, rel=2e-3)
    assert factored.second_moment / GIB == pytest.approx(second, abs=6e-4)


@pytest.mark.parametrize(
    "optimizer",
    [
        *(Optimizer(rule, 1e-3) for rule in UPDATE_RULES.values()),
        Optimizer(Adam(first_moment_dtype="bfloat16"), 1e-3, average_decay=0.9),
        Optimizer(Adam(second_moment_dtype="bfloat16"), 1e-3),
        Optimizer(Adafactor(momentum=None, min_size_to_factor=None), 1e-3),
        Optimizer(Adafactor(), 1e-3, learning_rate_multipliers=freeze("weight_00/.*")),
        Optimizer(Momentum(momentum=None), 1e-3),
    ],
    ids=lambda optimizer: optimizer.name,
)
def test_what_is_counted_is_what_is_allocated(optimizer):
    shapes = ((40, 36), (64, 4, 96), (7,), (4, 4, 3, 40))
    variables = variables_for(shapes)
    optimizer.build(variables)
    allocated = sum(
        np.asarray(v.value).nbytes for v in optimizer.variables if "/weight_" in v.path
    )
    cost = cost_of(optimizer, variables)
    assert cost.state == allocated
    assert cost.parameters == sum(math.prod(shape) for shape in shapes)
    assert cost.total == cost.state + 4 * cost.parameters


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((), None),
        ((100,), None),
        ((31, 100), None),
        ((32, 100), (0, 1)),
        ((100, 32), (1, 0)),
        ((64, 64), (0, 1)),
        ((64, 12, 64), (0, 2)),
        ((12, 64, 768), (1, 2)),
        ((768, 12, 64), (2, 0)),
        ((64, 64, 64), (1, 2)),
        ((14, 14, 3, 1408), None),
        ((32, 32, 3, 768), (1, 3)),
        ((1, 256, 1664), (1, 2)),
    ],
)
def test_factored_axes_go_by_sorted_size(shape, axes):
    assert factored_axes(shape, 32) == axes


def test_the_table_is_for_people():
    text = cost_text(cost_table(weights_of(shape_named("B/16"), 1000)))
    (row,) = [line for line in text.splitlines() if line.startswith("Adam-HP")]
    assert row.split()[-1] == "1.500"
    assert row.split()[-2] == "10.00"


def test_counting_needs_no_tensorflow():
    code = (
        "import sys; import vit_scaling.optimization.state_size; "
        "sys.exit(bool({'tensorflow', 'keras', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_command_prints_the_papers_ratios(capsys):
    assert optimizer_state.main(["--shapes=B/16,G/14", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    for name, largest in (("B/16", 0.53), ("G/14", 0.51)):
        rows = {row["optimizer"]: row for row in printed[name]}
        assert rows["Adam-HP"]["state_over_weights"] == 1.5
        assert 0.5 < rows["Adafactor"]["state_over_weights"] <= largest
        ours = dict(weights_of(shape_named(name), 1000))
        expected = sum(math.prod(shape) for shape in ours.values())
        assert rows["Adam"]["parameters"] == expected
    assert optimizer_state.main(["--shapes=B/16"]) == 0
    assert "state/weights" in capsys.readouterr().out
    assert optimizer_state.main(["--shapes=Z/16"]) == 1
