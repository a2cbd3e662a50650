"""Every registered rule is complete, small, and known to flags and gin."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import inspect
import json

import keras
import pytest

from tests.optimization.cases import variables_for
from vit_scaling import configurables, gin_files
from vit_scaling.optimization.averaging import AverageDecay
from vit_scaling.optimization.optimizer import Optimizer
from vit_scaling.optimization.update_rules import (
    RULE_CLASSES,
    RULES_BY_FLAG,
    UPDATE_RULES,
)

FACTORED = ("second_moment_row", "second_moment_column")
# The state of two weights, (7,) and (40, 36), as checkpoints have been keyed so far.
SLOTS = {
    "adam": (("first_moment", "second_moment"),) * 2,
    "adam_hp": (("first_moment", "second_moment"),) * 2,
    "adafactor": (("first_moment", "second_moment"), ("first_moment", *FACTORED)),
    "momentum": (("first_moment",),) * 2,
    "momentum_hp": (("first_moment",),) * 2,
    "lion": (("first_moment",),) * 2,
}


@pytest.mark.parametrize("flag", RULES_BY_FLAG)
def test_checkpoints_paths_do_not_change(flag):
    optimizer = Optimizer(RULES_BY_FLAG[flag], 1e-3, average_decay=0.9)
    optimizer.build(variables_for(((7,), (40, 36))))
    first = flag.removesuffix("_hp")
    scalars = ("gradient_norm", "update_norm", "parameter_norm", "nonfinite_steps")
    assert [variable.path for variable in optimizer.variables] == [
        f"{first}/iteration",
        f"{first}/learning_rate",
        *(f"{first}/{scalar}" for scalar in scalars),
        *(
            f"{first}/weight_{number:02d}/kernel/{slot}"
            for number, slots in enumerate(SLOTS[flag])
            for slot in (*slots, "average")
        ),
    ]


@pytest.mark.parametrize("rule", RULE_CLASSES)
def test_a_rule_is_a_frozen_dataclass_of_few_settings(rule):
    assert dataclasses.is_dataclass(rule)
    assert len(inspect.signature(rule).parameters) <= 10
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule().epsilon = 1.0


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_a_configuration_is_json_and_builds_the_same_rule(name):
    rule = UPDATE_RULES[name]
    optimizer = Optimizer(
        rule,
        1e-3,
        weight_decay=((".*", 0.1),),
        average_decay=AverageDecay(0.9, warmup_steps=3),
    )
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(optimizer)))
    again = keras.saving.deserialize_keras_object(config)
    assert again.rule == rule
    assert again.average_decay == optimizer.average_decay
    assert again.get_config() == optimizer.get_config()


@pytest.mark.parametrize("rule", RULE_CLASSES)
def test_a_gin_file_trains_with_the_rule(rule):
    file = f"optimizers/{rule.__name__.lower()}.gin"
    data = ["TRAIN_PATTERN = 'train-*'", "EVAL_PATTERN = 'test-*'"]
    quickstart = (gin_files.root() / "experiments/quickstart.gin").read_text()
    assert "include 'optimizers/adam.gin'" in quickstart
    lines = quickstart.replace("optimizers/adam.gin", file).splitlines()
    lines = [line for line in lines if not line.startswith("HEAD_WEIGHT_DECAY")]
    configurables.parse([], [*lines, *data])
    experiment = configurables.Experiment()
    optimizer = experiment.make_optimizer(learning_rate=experiment.schedule)
    assert type(optimizer) is Optimizer and type(optimizer.rule) is rule
    assert optimizer.clip_norm == 1.0
