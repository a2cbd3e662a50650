"""Rules over variable paths: decay, layer-wise rates, freezing; the L2 of the head."""
# SPDX-License-Identifier: Apache-2.0

import keras
import numpy as np
import pytest

from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.modeling.vit import vit
from vit_scaling.optimization.adam import Adam
from vit_scaling.optimization.learning_rate_multipliers import (
    freeze,
    layerwise_decay,
    train_only,
)
from vit_scaling.optimization.optimizer import Optimizer
from vit_scaling.optimization.path_rules import value_for
from vit_scaling.optimization.weight_decay import HalfL2, head_and_body, regularize_head

SHAPE = ViTShape(patch=8, width=16, depth=3, mlp_width=24, heads=2)


def small_vit(**options):
    return vit(SHAPE, image_size=16, classes=4, **options)


def test_only_kernels_decay_and_only_the_classifier_is_the_head():
    rules = head_and_body(head=3.0, body=0.03)
    paths = [v.path for v in small_vit(representation_width=8).trainable_variables]
    strengths = {path: value_for(path, rules, default=0.0) for path in paths}
    assert [path for path, s in strengths.items() if s == 3.0] == ["head/kernel"]
    for path, strength in strengths.items():
        if path != "head/kernel":
            assert strength == (0.03 if path.endswith("/kernel") else 0.0), path
    # The pooling head is body, its probe and the positions are not kernels.
    assert strengths["map_head/attention/query/kernel"] == 0.03
    assert strengths["map_head/probe"] == 0.0
    assert strengths["position_embedding/embedding"] == 0.0


@pytest.mark.parametrize(
    ("path", "strength"),
    [
        ("vit/head/kernel", 3.0),
        ("vit_g14/block_00/mlp/dense_0/kernel", 0.03),
        ("map_head/kernel", 0.03),
        ("kernel", 0.03),
        ("head/kernel_scale", 0.0),
        ("my_kernel", 0.0),
    ],
)
def test_rules_match_whole_paths_also_inside_other_models(path, strength):
    assert value_for(path, head_and_body(3.0, 0.03), default=0.0) == strength


def test_the_first_match_wins():
    rules = (("a/.*", 1.0), (".*", 2.0))
    assert value_for("a/b", rules, default=0.0) == 1.0
    assert value_for("b/a/b", rules, default=0.0) == 2.0


def test_layerwise_decay_falls_from_the_head_to_the_patches():
    model = small_vit(register_tokens=2)
    rules = layerwise_decay(SHAPE.depth, 0.5)
    for variable in model.trainable_variables:
        layer = variable.path.split("/")[0]
        expected = {
            "patch_embedding": 0.5**4,
            "position_embedding": 0.5**4,
            "register_tokens": 0.5**4,
            "block_00": 0.5**3,
            "block_01": 0.5**2,
            "block_02": 0.5,
        }.get(layer, 1.0)
        assert value_for(variable.path, rules, default=1.0) == expected, variable.path


def test_freezing_goes_before_other_rules():
    rules = (*freeze("block_00/.*"), *layerwise_decay(3, 0.5))
    assert value_for("block_00/mlp/dense_0/bias", rules, default=1.0) == 0
    assert value_for("block_01/mlp/dense_0/bias", rules, default=1.0) == 0.25
    only = train_only("(.*/)?head/.*")
    assert value_for("head/bias", only, default=1.0) == 1.0
    assert value_for("block_00/mlp/dense_0/bias", only, default=1.0) == 0.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layerwise_decay(0), "depth"),
        (lambda: layerwise_decay(3, 0.0), "decay"),
        (lambda: layerwise_decay(3, 1.5), "decay"),
        (lambda: freeze("("), "regular expression"),
        (lambda: train_only("["), "regular expression"),
        (lambda: head_and_body(head=-1), "at least 0"),
        (lambda: head_and_body(body=float("nan")), "`body` must be a number"),
        (lambda: HalfL2(-1.0), "strength"),
    ],
)
def test_bad_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Keras 3.15 saves by np.array(variable), which NumPy 2.4 deprecates for TensorFlow's.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_heads_penalty_enters_the_loss_and_is_saved(tmp_path):
    model = regularize_head(small_vit(), 3.0)
    kernel = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    model.get_layer("head").kernel.assign(kernel)
    (penalty,) = model.losses
    assert float(penalty) == pytest.approx(1.5 * np.sum(kernel**2), rel=1e-5)
    model.save(tmp_path / "model.keras")
    (again,) = keras.saving.load_model(tmp_path / "model.keras").losses
    assert float(again) == pytest.approx(float(penalty), rel=1e-6)
    assert regularize_head(model, 0.0).losses == []


def test_a_model_without_a_classifier_has_nothing_to_regularize():
    with pytest.raises(ValueError, match="layer with a kernel"):
        regularize_head(vit(SHAPE, image_size=16, classes=None), 3.0)


def test_the_penalty_has_the_strength_of_decay_under_sgd():
    import tensorflow as tf

    weight = tf.Variable([1.0, -2.0])
    with tf.GradientTape() as tape:
        loss = HalfL2(3.0)(weight)
    np.testing.assert_allclose(tape.gradient(loss, weight), 3.0 * weight.numpy())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"weight_decay": (("hed/kernel", 3.0), (".*/kernel", 0.03))},
            r"`weight_decay`: 'hed/kernel' matches none.*nearest paths are head/kernel",
        ),
        (
            {"learning_rate_multipliers": layerwise_decay(4)},  # The model has three.
            r"`learning_rate_multipliers`: .*block_03.*matches none.*nearest.*block_0",
        ),
        (
            {"learning_rate_multipliers": freeze("patch_embeding/.*")},
            r"'patch_embeding/\.\*' matches none.*patch_embedding",
        ),
        ({"learning_rate_multipliers": train_only("zzz")}, "first paths are"),
    ],
)
def test_a_rule_that_matches_no_variable_is_rejected_with_the_nearest(options, message):
    variables = small_vit().trainable_variables
    optimizer = Optimizer(Adam(), 1e-3, **options)
    with pytest.raises(ValueError, match=message):
        optimizer.build(variables)
    assert not optimizer.built


def test_every_rule_says_how_many_variables_and_parameters_it_took():
    model = small_vit()
    rates = (*freeze("block_00/.*"), *layerwise_decay(3, 0.5))
    optimizer = Optimizer(
        Adam(), 1e-3, weight_decay=head_and_body(), learning_rate_multipliers=rates
    )
    lines = optimizer.describe_rules(model.trainable_variables)
    head = f"weight_decay 3 ('(.*/)?head/kernel'): 1 variable(s), {16 * 4} parameters"
    assert lines[0] == head
    frozen = sum(
        v.size for v in map(np.asarray, model.get_layer("block_00").get_weights())
    )
    assert any(
        line.startswith("learning_rate_multipliers 0 ('block_00/.*')")
        and line.endswith(f" {frozen:,} parameters")
        for line in lines
    )
    # Shadowed by the rule before, but not misspelt.
    assert any("block_00/.*'): 0 variable(s), 0 parameters" in line for line in lines)
    counts = [
        int(line.split(" variable(s), ")[1].split()[0].replace(",", ""))
        for line in lines
    ]
    assert sum(counts) == 2 * model.count_params()  # For decay, and for rates.
