"""Adapters change a model as the formula says, and nothing else is trained."""
# SPDX-License-Identifier: Apache-2.0

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.modeling.small import randomized
from vit_scaling import adapters
from vit_scaling.modeling.lora import add_adapters, freeze_except
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.modeling.variables import vit_variables
from vit_scaling.modeling.vit import vit
from vit_scaling.optimization.optimizer import Optimizer
from vit_scaling.optimization.update_rules import RULES_BY_FLAG
from vit_scaling.training.losses import softmax_cross_entropy
from vit_scaling.training.step import make_train_step

SHAPE = ViTShape(4, 8, depth=2, mlp_width=12, heads=2)
IMAGES = np.random.default_rng(1).uniform(-1, 1, (6, 8, 8, 3)).astype(np.float32)


def make_model(**options):
    return randomized(vit(SHAPE, image_size=8, classes=3, **options))


def values_of(model):
    return {v.path: v.numpy() for v in model.variables}


def randomize_adapters(model):
    rng = np.random.default_rng(2)
    for variable in model.variables:
        if variable.path.endswith(adapters.B):
            variable.assign(rng.normal(scale=0.3, size=variable.shape))


def test_outputs_stay_the_same_until_b_is_trained():
    model = make_model()
    before = model(IMAGES).numpy()
    add_adapters(model, rank=3)
    np.testing.assert_array_equal(model(IMAGES), before)
    randomize_adapters(model)
    assert np.abs(model(IMAGES) - before).max() > 0.01


@pytest.mark.parametrize("alpha", [None, 6.0])
@pytest.mark.parametrize("options", [{}, {"qk_norm": True, "layer_scale": 0.5}])
def test_adapters_equal_the_merged_kernels(alpha, options):
    model, plain = make_model(**options), make_model(**options)
    add_adapters(model, rank=3, alpha=alpha)
    randomize_adapters(model)
    values = values_of(model)
    scale = 1.0 if alpha is None else alpha / 3
    for variable in plain.variables:
        layer = variable.path.rpartition("/")[0]
        value = values[variable.path].astype(np.float64)
        if variable.path.endswith("kernel") and f"{layer}/lora_a" in values:
            a, b = values[f"{layer}/lora_a"], values[f"{layer}/lora_b"]
            product = a.reshape(-1, 3).astype(float) @ b.reshape(3, -1)
            value = value + scale * product.reshape(value.shape)
        variable.assign(value)
    np.testing.assert_allclose(model(IMAGES), plain(IMAGES), atol=1e-6)
    merged = adapters.merge(values)
    for path, value in values_of(plain).items():
        np.testing.assert_allclose(merged[path], value, atol=1e-6)


def test_variables_are_those_that_the_planner_counts():
    model = make_model()
    add_adapters(model, rank=3)
    shapes = {v.path: tuple(v.shape) for v in model.variables}
    plain = vit_variables(SHAPE, image_size=8, classes=3)
    assert shapes == adapters.with_adapters(plain, rank=3)
    trained = {v.path for v in model.trainable_variables}
    assert trained == set(filter(adapters.is_trained, shapes))


@pytest.mark.parametrize(
    ("rule", "rematerialize"), [("momentum", "all"), ("adam", "none"), ("lion", "none")]
)
def test_only_adapters_and_classifier_change_in_training(rule, rematerialize):
    model = make_model(rematerialize=rematerialize)
    add_adapters(model, rank=2)
    optimizer = Optimizer(RULES_BY_FLAG[rule], learning_rate=0.1)
    optimizer.build(model.trainable_variables)
    step = make_train_step(model, optimizer, softmax_cross_entropy)
    before = values_of(model)
    batch = {
        "images": tf.constant(IMAGES),
        "labels": tf.one_hot([0, 1, 2, 0, 1, 2], 3),
    }
    for _ in range(2):  # A has a gradient once B is not zero.
        step(batch)
    for path, value in values_of(model).items():
        changed = not np.array_equal(value, before[path])
        assert changed == adapters.is_trained(path), path


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_keras_file_has_merged_kernels(tmp_path):
    model = make_model()
    add_adapters(model, rank=3, alpha=1.5)
    randomize_adapters(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert not any(map(adapters.is_adapter, values_of(loaded)))
    np.testing.assert_allclose(loaded(IMAGES), model(IMAGES), atol=1e-6)


def test_a_second_adapter_and_a_model_without_blocks_are_rejected():
    model = make_model()
    add_adapters(model)
    with pytest.raises(ValueError, match="has an adapter already"):
        add_adapters(model)
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="no encoder block of this package"):
        add_adapters(other)


def test_all_but_some_variables_are_frozen():
    model = make_model()
    freeze_except(model, patterns=["head/.*", ".*/bias"])
    trained = {v.path for v in model.trainable_variables}
    assert {"head/kernel", "head/bias", "block_01/mlp/dense_1/bias"} <= trained
    assert all(p.startswith("head/") or p.endswith("/bias") for p in trained)
    with pytest.raises(ValueError, match=r"'zzz' matches none of the \d+ trained"):
        freeze_except(model, patterns=["zzz"])
