"""Masks differ between replicas, steps and layers; seed and counter reproduce them."""
# SPDX-License-Identifier: Apache-2.0

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.modeling.small import SHAPE, images
from vit_scaling.applications import ViTs28
from vit_scaling.modeling import noise
from vit_scaling.modeling.blocks import EncoderBlock
from vit_scaling.modeling.heads import MapHead
from vit_scaling.modeling.layers import PatchEmbedding
from vit_scaling.modeling.vit import vit


class Masks:
    """Draw masks of ones, as a model's layers do, on any number of replicas."""

    def __init__(self, seed=0, replicas=1, jit_compile=False):
        devices = [f"CPU:{number}" for number in range(replicas)]
        self.strategy = (
            tf.distribute.MirroredStrategy(devices)
            if replicas > 1
            else tf.distribute.OneDeviceStrategy("CPU:0")
        )
        assert self.strategy.num_replicas_in_sync == replicas
        with self.strategy.scope():
            self.layer = noise.MaskSeed(seed=seed, name="mask_seed")
            self.layer.build((None, 1))
        self.draw = tf.function(self._draw, jit_compile=jit_compile)

    def _draw(self):
        def replica():
            mask_seed = self.layer(tf.zeros((1, 1)), training=True)
            return noise.dropout(tf.ones((40, 5)), 0.5, mask_seed, site=7)

        return self.strategy.experimental_local_results(self.strategy.run(replica))

    def __call__(self):
        return [mask.numpy() for mask in self.draw()]


def test_every_replica_and_step_has_its_own_mask():
    masks = Masks(replicas=2)
    drawn = [*masks(), *masks(), *masks()]
    assert len({mask.tobytes() for mask in drawn}) == 6
    assert masks.draw.experimental_get_tracing_count() == 1


def test_the_same_seed_repeats_and_another_does_not():
    first, again, other = Masks(seed=1), Masks(seed=1), Masks(seed=2)
    for _ in range(2):
        mask = first()
        np.testing.assert_array_equal(mask, again())
        assert not np.array_equal(mask, other())


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_counter_resumes_the_sequence(replicas, tmp_path):
    undisturbed, killed = Masks(replicas=replicas), Masks(replicas=replicas)
    for _ in range(2):
        undisturbed(), killed()
    saved = tf.train.Checkpoint(step=killed.layer.step.value).write(str(tmp_path / "c"))
    resumed = Masks(replicas=replicas)
    tf.train.Checkpoint(step=resumed.layer.step.value).read(saved).assert_consumed()
    assert resumed.layer.step.value.numpy() == 2
    np.testing.assert_array_equal(undisturbed(), resumed())


def test_eager_and_graph_draw_the_same():
    graph, eager = Masks(), Masks()
    eager.draw = eager._draw
    for _ in range(2):
        np.testing.assert_array_equal(eager(), graph())


def test_xla_draws_other_masks_and_reproduces_them():
    first, again = Masks(jit_compile=True), Masks(jit_compile=True)
    drawn = [*first(), *first()]
    np.testing.assert_array_equal(drawn, [*again(), *again()])
    assert not np.array_equal(*drawn)


def test_the_counter_may_count_inside_a_loop_on_every_replica():
    masks = Masks(replicas=2)

    @tf.function
    def micro_batches():
        def replica():
            total = tf.zeros((4,))
            for _ in tf.range(3):
                mask_seed = masks.layer(tf.zeros((1, 1)), training=True)
                total += noise.dropout(tf.ones((4,)), 0.5, mask_seed, site=0)
            return total

        return masks.strategy.run(replica)

    micro_batches()
    assert masks.layer.step.value.numpy() == 3


def test_outside_training_nothing_is_counted_or_dropped():
    model = vit(SHAPE, image_size=8, dropout=0.5, stochastic_depth=0.5)
    np.testing.assert_array_equal(model(images(2, (8, 8))), model(images(2, (8, 8))))
    assert int(model.get_layer("mask_seed").step) == 0


def test_a_model_without_dropping_has_no_counter():
    model = vit(SHAPE, image_size=8)
    assert not model.non_trainable_variables


def test_dropout_keeps_the_fraction_and_the_expectation():
    seed = tf.constant([3, 4])
    ones = tf.ones((64, 100))
    dropped = noise.dropout(ones, 0.25, seed, site=0).numpy()
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / 0.75)}
    # 6400 draws: the deviation of the mean is 0.0072.
    assert abs(dropped.mean() - 1.0) < 0.03
    whole = noise.dropout(ones, 0.25, seed, site=0, per_example=True).numpy()
    assert np.all(whole == whole[:, :1])
    assert 0 < np.count_nonzero(whole[:, 0]) < 64


def test_every_layer_of_a_model_drops_other_values():
    seed = tf.constant([3, 4])
    masks = [noise.dropout(tf.ones((99,)), 0.5, seed, site).numpy() for site in (0, 1)]
    assert not np.array_equal(*masks)


def test_stochastic_depth_grows_linearly_with_depth():
    shape = SHAPE.__class__(patch=4, width=8, depth=5, mlp_width=8, heads=2)
    model = vit(shape, image_size=8, stochastic_depth=0.4)
    rates = [
        model.get_layer(f"block_{n:02d}").options.stochastic_depth for n in range(5)
    ]
    np.testing.assert_allclose(rates, [0.0, 0.1, 0.2, 0.3, 0.4])


def test_training_with_dropout_is_traced_once_and_repeats():
    results = []
    for _ in range(2):
        options = {"image_size": 8, "dropout": 0.2, "stochastic_depth": 0.2}
        model = vit(SHAPE, "gap", seed=0, **options)
        model.get_layer("head").kernel.assign(tf.ones((16, 1000)))
        call = tf.function(lambda x, m=model: m(x, training=True))
        results.append([call(images(2, (8, 8))).numpy() for _ in range(2)])
        assert call.experimental_get_tracing_count() == 1
    np.testing.assert_array_equal(*results)
    assert not np.array_equal(results[0][0], results[0][1])


def built(layer, shape):
    layer.build(shape)
    return layer


BUILDERS = {
    "model": lambda **seed: vit(SHAPE, image_size=8, register_tokens=2, **seed),
    "patches": lambda **seed: built(PatchEmbedding(8, 2, **seed), (None, 4, 4, 3)),
    "block": lambda **seed: built(EncoderBlock(2, 8, **seed), (None, 4, 8)),
    "head": lambda **seed: built(MapHead(2, 8, **seed), (None, 4, 8)),
    "application": lambda: ViTs28(classes=2, input_shape=(28, 28, 3)),
}


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_initial_values_follow_the_global_seed_unless_a_seed_is_given(build):
    def values(**seed):
        return np.concatenate([np.asarray(v).ravel() for v in build(**seed).weights])

    keras.utils.set_random_seed(1)
    first, second = values(), values()
    assert not np.array_equal(first, second)
    keras.utils.set_random_seed(1)
    np.testing.assert_array_equal(values(), first)
    keras.utils.set_random_seed(2)
    assert not np.array_equal(values(), first)
    if build is not BUILDERS["application"]:
        np.testing.assert_array_equal(values(seed=3), values(seed=3))
