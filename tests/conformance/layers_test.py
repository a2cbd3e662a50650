"""Every layer and head can be saved, compiled, cast and traced."""
# SPDX-License-Identifier: Apache-2.0

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.modeling.small import randomized, relative_error
from vit_scaling.modeling import (
    attention,
    blocks,
    heads,
    layers,
    noise,
    positions,
    tokens,
)
from vit_scaling.modeling.composite import CompositeLayer
from vit_scaling.modeling.shapes import ViTShape

WIDTH = 8
IMAGES = (2, 8, 12, 3)
TOKENS = (2, 6, WIDTH)

# Layer class -> (arguments, shape of its input).
REGISTRY = {
    layers.PatchEmbedding: ({"width": WIDTH, "patch": 4, "seed": 1}, IMAGES),
    layers.Projection: (
        {"kernel_shape": (WIDTH, 2, 4), "equation": "bnd,dhk->bnhk", "bias_rank": 2},
        TOKENS,
    ),
    attention.Attention: ({"heads": 2, "qk_norm": True}, TOKENS),
    layers.Mlp: ({"mlp_width": 12, "dropout": 0.1}, TOKENS),
    layers.LayerNorm: ({"epsilon": 1e-6}, TOKENS),
    layers.LayerScale: ({"initial": 0.1}, TOKENS),
    blocks.EncoderBlock: (
        {
            "heads": 2,
            "mlp_width": 12,
            "options": blocks.BlockOptions(layer_scale=0.5, rematerialize="all"),
        },
        TOKENS,
    ),
    positions.LearnedPositions: ({"grid": (2, 3)}, TOKENS),
    positions.SinCosPositions: ({"grid": (2, 3)}, TOKENS),
    tokens.ClassToken: ({}, TOKENS),
    tokens.RegisterTokens: ({"count": 2}, TOKENS),
    tokens.DropRegisters: ({"count": 2}, TOKENS),
}


def head_arguments(name):
    """Return a registered head's class and the arguments that a model gives it."""
    layer = heads.make_head(name, ViTShape(4, WIDTH, depth=1, mlp_width=12, heads=2))
    config = layer.get_config()
    names = config.keys() - {"name", "dtype", "trainable"}
    return type(layer), {name: config[name] for name in names}


REGISTRY |= {
    head: (arguments, TOKENS)
    for head, arguments in map(head_arguments, heads.HEAD_LAYERS)
}
# Their input is a seed: tests/modeling/noise_test.py.
ELSEWHERE = {noise.MaskSeed, noise.Dropout}
each_layer = pytest.mark.parametrize("layer_class", REGISTRY, ids=lambda c: c.__name__)


def made(layer_class, **kwargs):
    """Return the layer, built, with no variable at a special value, and an input."""
    arguments, shape = REGISTRY[layer_class]
    keras.utils.set_random_seed(0)
    layer = layer_class(**arguments, name="layer", **kwargs)
    x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    layer(x)
    return randomized(layer), tf.constant(x)


def test_every_layer_of_the_package_is_registered_here():
    found = {
        member
        for module in (attention, blocks, heads, layers, noise, positions, tokens)
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, keras.layers.Layer)
        and member.__module__.startswith("vit_scaling")
        and member not in (CompositeLayer, heads.PoolingHead, positions.Positions)
    }
    assert found == REGISTRY.keys() | ELSEWHERE


@each_layer
def test_config_rebuilds_the_layer(layer_class):
    layer, x = made(layer_class)
    config = keras.saving.serialize_keras_object(layer)
    assert config["registered_name"] == f"vit_scaling>{layer_class.__name__}"
    copy = keras.saving.deserialize_keras_object(config)
    copy(x)
    for ours, theirs in zip(copy.variables, layer.variables, strict=True):
        assert (ours.path, ours.shape) == (theirs.path, theirs.shape)
        ours.assign(theirs)
    np.testing.assert_array_equal(copy(x), layer(x))
    for name, value in REGISTRY[layer_class][0].items():
        assert getattr(copy, name) == value


@each_layer
def test_symbolic_shape_equals_the_eager_one(layer_class):
    layer, x = made(layer_class)
    symbolic = layer(keras.KerasTensor((None, *x.shape[1:])))
    assert symbolic.shape == (None, *layer(x).shape[1:])
    assert symbolic.dtype == "float32"


@each_layer
def test_eager_graph_and_xla_agree_and_trace_once(layer_class):
    layer, x = made(layer_class)
    expected = layer(x)
    for jit_compile in (False, True):
        call = tf.function(lambda x: layer(x), jit_compile=jit_compile)
        for _ in range(2):
            assert relative_error(call(x), expected) < 1e-5
        assert call.experimental_get_tracing_count() == 1


@each_layer
def test_bfloat16_compute_keeps_variables_float32(layer_class):
    layer, x = made(layer_class, dtype="mixed_bfloat16")
    exact, _ = made(layer_class)
    assert all(variable.dtype == "float32" for variable in layer.variables)
    out = layer(x)
    assert out.dtype == tf.bfloat16
    assert relative_error(tf.cast(out, tf.float32), exact(x)) < 0.05


@each_layer
def test_replicas_compute_what_one_device_does(layer_class):
    layer, x = made(layer_class)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    with strategy.scope():
        copy, _ = made(layer_class)
    out = tf.function(lambda: strategy.run(copy, args=(x,)))()
    for replica in strategy.experimental_local_results(out):
        assert relative_error(replica, layer(x)) < 1e-5
