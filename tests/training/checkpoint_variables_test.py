"""The variables that a checkpoint holds: their keys and their values at a moment."""
# SPDX-License-Identifier: Apache-2.0

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training import small
from tests.training.small_states import parts
from vit_scaling.training.checkpoint_variables import (
    assign_values,
    read_variables,
    variables_of,
)


def test_keys_are_the_paths_of_the_variables():
    model, optimizer = parts(average_decay=0.9)
    keys = set(variables_of(model, optimizer))
    weights = {"head/kernel", "head/bias"}
    moments = {f"{w}/{m}" for w in weights for m in ("first_moment", "second_moment")}
    assert {f"model/{path}" for path in weights} <= keys
    assert {f"averages/{path}" for path in weights} <= keys
    assert {f"optimizer/adam/{path}" for path in moments} <= keys
    assert not [
        key for key in keys if key.startswith("optimizer/") and "average" in key
    ]
    assert len(keys) == len(model.variables) + len(optimizer.variables)


def test_all_keys_of_a_vit_are_unique_and_stable():
    first = variables_of(*parts(model=small.small_vit()))
    keras.backend.clear_session()
    for _ in range(3):
        keras.layers.Dense(1)  # Other layers of the process must not shift a name.
    assert list(first) == list(variables_of(*parts(model=small.small_vit())))


def test_two_variables_of_one_path_are_rejected():
    model = small.linear(3)
    twice = types.SimpleNamespace(variables=[*model.variables, *model.variables])
    with pytest.raises(ValueError, match=r"be unique.*model/head/bias, model/head/ker"):
        variables_of(twice)


def test_values_that_were_read_stay_when_the_variables_change():
    variables = {"a": keras.Variable(np.zeros(1000, np.float32)), "b": tf.Variable(0)}
    for compiled in (False, True):

        @tf.function(jit_compile=compiled)
        def update():
            variables["a"].assign(variables["a"] + 1)
            variables["a"].value.assign_add(tf.ones(1000))
            variables["b"].assign_add(2)

        expected = {key: v.numpy() for key, v in variables.items()}
        values = read_variables(variables)
        update()
        for key, value in values.items():
            np.testing.assert_array_equal(value, expected[key])
            assert (variables[key].numpy() == expected[key] + 2).all()


def test_values_of_mirrored_variables_are_read_from_the_first_replica():
    with small.mirrored(2).scope():
        variables = {"a": keras.Variable(np.zeros(3, np.float32)), "b": tf.Variable(5)}
    values = read_variables(variables)
    for variable in variables.values():
        variable.assign(variable + 1)
    assert values["a"].numpy().tolist() == [0, 0, 0] and values["b"].numpy() == 5
    assert "CPU:0" in values["a"].device


def test_values_are_assigned_on_every_replica_in_the_variables_dtype():
    strategy = small.mirrored(4)
    with strategy.scope():
        variables = {
            "a": keras.Variable(np.zeros(3), dtype="bfloat16"),
            "b": keras.Variable(np.zeros(3, np.float32)),
            "step": tf.Variable(0, dtype=tf.int64),
        }
    values = {
        "a": np.array([1.5, 2, 3], np.float32),
        "b": np.array([0.1, np.inf, 1e-45], np.float32),
        "step": np.array(2**40 + 1),
    }
    assign_values(variables, values)
    for key, variable in variables.items():
        inner = variable if key == "step" else variable.value
        copies = strategy.experimental_local_results(inner)
        assert len(copies) == 4
        for copy in copies:
            assert copy.dtype == variable.dtype
            np.testing.assert_array_equal(tf.cast(copy, values[key].dtype), values[key])
    variables["b"].assign(variables["b"] + 1)  # The values are not the variables'.
    assert values["b"][0] == np.float32(0.1)
