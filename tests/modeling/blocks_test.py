"""The encoder block: rematerialisation gives the same numbers with less memory."""
# SPDX-License-Identifier: Apache-2.0

import functools
import json
import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.modeling.small import images, small_vit
from vit_scaling import backend
from vit_scaling.modeling.blocks import BlockOptions, EncoderBlock
from vit_scaling.modeling.lora import add_adapters

ROOT = pathlib.Path(__file__).resolve().parents[2]
DROPPING = {"dropout": 0.3, "stochastic_depth": 0.3, "seed": 5}


def gradients(model, pixels, training=True):
    """Return the gradient of a scalar for every trained variable, by path."""
    variables = [v.value for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(pixels, training=training) ** 2)
    return tape.gradient(loss, variables)


@pytest.mark.parametrize(
    ("mode", "policy"),
    [
        ("eager", "all"),
        ("graph", "all"),
        ("xla", "all"),
        ("shared", "all"),
        ("graph", "attention"),
        ("graph", "mlp"),
    ],
)
def test_gradients_with_rematerialization_equal_those_without(mode, policy):
    results = []
    for rematerialize in ("none", policy):
        model = small_vit("gap", rematerialize=rematerialize, **DROPPING)
        programs = {} if mode == "shared" else None

        def call(pixels, model=model, programs=programs):
            with backend.sharing_programs(programs):
                return gradients(model, pixels)

        if mode in ("graph", "xla"):
            call = tf.function(call, jit_compile=mode == "xla")
        results.append(call(images()))
    for kept, again in zip(*results, strict=True):
        np.testing.assert_allclose(kept, again, rtol=1e-4, atol=1e-6)


def freeze_a_part(model):
    model.get_layer("block_01").attention.query.trainable = False


def attach_adapters(model):
    add_adapters(model, rank=2)


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({}, None),
        ({"dtype": "mixed_bfloat16"}, None),
        ({"rematerialize": "every_2", "attention_chunk": 5}, None),
        ({"rematerialize": "attention"}, None),
        ({"rematerialize": "mlp"}, freeze_a_part),
        ({"qk_norm": True, "layer_scale": 0.5}, None),
        ({}, freeze_a_part),
        ({}, attach_adapters),
    ],
)
def test_gradients_of_shared_programs_equal_those_of_each_block_traced(options, change):
    model = small_vit("gap", **options)
    if change is not None:
        change(model)

    def compute(pixels, programs=None):
        with backend.sharing_programs(programs):
            return gradients(model, pixels)

    results = []
    for call in (
        tf.function(compute, jit_compile=True, autograph=False),
        tf.function(lambda pixels: compute(pixels, {}), autograph=False),
    ):
        results.append([np.asarray(g, np.float32) for g in call(images())])
    largest = max(np.abs(gradient).max() for gradient in results[0])
    # In bfloat16, programs with and without XLA differ as much.
    tolerance = (2e-2 if "dtype" in options else 1e-6) * largest
    for traced, shared in zip(*results, strict=True):
        np.testing.assert_allclose(shared, traced, rtol=0, atol=tolerance)


@pytest.mark.parametrize("options", [{}, DROPPING])
def test_only_blocks_that_draw_masks_have_separate_programs(options):
    programs = {}
    model = small_vit("gap", **options)
    with backend.sharing_programs(programs):
        gradients(model, images())
    assert len(programs) == (2 if options else 1)


@functools.cache
def gradients_on_replicas(rematerialize):
    """Return the gradients of every variable on two replicas, with different masks."""
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    assert strategy.num_replicas_in_sync == 2
    with strategy.scope():
        model = small_vit("map", rematerialize=rematerialize, **DROPPING)

    @tf.function
    def step(pixels):
        return strategy.run(lambda: gradients(model, pixels))

    return [strategy.experimental_local_results(g) for g in step(images())]


@pytest.mark.parametrize("policy", ["all", "every_2", "attention", "mlp"])
def test_rematerialization_keeps_the_gradients_of_each_replica(policy):
    kept, again = gradients_on_replicas("none"), gradients_on_replicas(policy)
    for first, second in zip(kept, again, strict=True):
        for replica in (0, 1):
            np.testing.assert_allclose(
                first[replica], second[replica], rtol=1e-4, atol=1e-6
            )
    assert not np.array_equal(*again[0])  # They drop different values.


PROGRAM = """
import json
import sys
import tensorflow as tf
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.modeling.vit import vit

shape = ViTShape(patch=4, width=16, depth=4, mlp_width=64, heads=1)
model = vit(shape, "gap", image_size=32, classes=2, **json.loads(sys.argv[1]))

@tf.function(jit_compile=True)
def step(pixels):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(pixels, training=True) ** 2)
    return tape.gradient(loss, [v.value for v in model.trainable_variables])

step(tf.zeros((32, 32, 32, 3)))
"""


def compiled_temporary_bytes(folder, **options):
    """Return the size of XLA's temporary buffer for one gradient step on the CPU."""
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_dump_to={folder} --xla_dump_hlo_as_text",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, "-c", PROGRAM, json.dumps(options)]
    subprocess.run(command, env=environment, check=True, cwd=ROOT)
    reports = pathlib.Path(folder).glob("*step*buffer-assignment.txt")
    sizes = r"size (\d+), preallocated-temp"
    return max(int(n) for path in reports for n in re.findall(sizes, path.read_text()))


@pytest.mark.slow
def test_rematerialization_saves_memory_of_a_compiled_step(tmp_path):
    kept = compiled_temporary_bytes(tmp_path / "none")
    every_2, again, attention, mlp = (
        compiled_temporary_bytes(tmp_path / policy, rematerialize=policy)
        for policy in ("every_2", "all", "attention", "mlp")
    )
    # Of four blocks' activations one (two) and the blocks' inputs remain.
    assert again < 0.5 * kept
    assert again < every_2 < 0.8 * kept
    assert again < attention < 0.8 * kept
    assert again < mlp < 0.95 * kept


@pytest.mark.slow
def test_chunks_save_the_attention_weights_of_a_compiled_step(tmp_path):
    kept = compiled_temporary_bytes(tmp_path / "whole")
    chunked = compiled_temporary_bytes(tmp_path / "chunks", attention_chunk=16)
    weights = 4 * 32 * 64 * 64 * 4  # Blocks, images, queries, tokens, bytes.
    assert kept - chunked > 0.75 * weights  # The weights of one block remain in part.


RECORDED_CONFIG = {  # Written before the options were a dataclass.
    "module": "vit_scaling.modeling.blocks",
    "class_name": "EncoderBlock",
    "config": {
        "name": "block_00",
        "heads": 2,
        "mlp_width": 12,
        "dropout": 0.1,
        "stochastic_depth": 0.2,
        "rematerialize": "mlp",
        "approximate_gelu": False,
        "norm_epsilon": 0.001,
        "layer_scale": 0.5,
        "qk_norm": True,
        "seed": 7,
        "dtype": {
            "module": "keras",
            "class_name": "DTypePolicy",
            "config": {"name": "mixed_bfloat16"},
            "registered_name": None,
        },
        "trainable": True,
    },
    "registered_name": "vit_scaling>EncoderBlock",
    "build_config": {"input_shape": [None, 6, 8]},
}


def test_recorded_config_is_read_and_written_unchanged():
    block = keras.saving.deserialize_keras_object(RECORDED_CONFIG)
    assert block.options == BlockOptions(0.1, 0.2, "mlp", False, 1e-3, 0.5, True)
    assert (block.heads, block.mlp_width, block.seed) == (2, 12, 7)
    assert block.dtype_policy.name == "mixed_bfloat16"
    written = keras.saving.serialize_keras_object(block)
    config = {**RECORDED_CONFIG["config"], "attention_chunk": None}  # New since.
    assert written["config"] == config
    assert written["registered_name"] == RECORDED_CONFIG["registered_name"]


def test_configs_from_before_the_policies_are_read():
    config = EncoderBlock(2, 8).get_config()
    for value, policy in ((True, "all"), (False, "none"), ("mlp", "mlp")):
        block = EncoderBlock.from_config({**config, "rematerialize": value})
        assert block.options.rematerialize == policy
    with pytest.raises(ValueError, match="`rematerialize` must be 'none'"):
        BlockOptions(rematerialize="some")
