"""Every image is counted once, in order, under one replica and under several."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import tensorflow as tf

from tests.evaluation import records
from vit_scaling.evaluation import images

LABELS = [0, 1, 2, 3, 4] * 5 + [2, 0]


@pytest.fixture
def data():
    return records.in_memory(LABELS, 5)


def strategies():
    devices = tf.config.list_logical_devices("CPU")
    return {
        "default": tf.distribute.get_strategy(),
        "one": tf.distribute.OneDeviceStrategy("CPU:0"),
        "two": tf.distribute.MirroredStrategy([d.name for d in devices[:2]]),
        "four": tf.distribute.MirroredStrategy([d.name for d in devices[:4]]),
    }


@pytest.mark.parametrize("name", ["default", "one", "two", "four"])
def test_every_image_is_seen_once_in_order(data, name):
    strategy = strategies()[name]

    def apply(batch):
        return {
            "label": tf.argmax(batch["labels"], axis=1),
            "corner": batch["images"][:, 0, 0],
        }

    found = images.make_pass(apply, strategy, batch_size=8)(data)
    assert found["label"].tolist() == LABELS
    corners = data.pixels[:, 0, 0] / 127.5 - 1
    np.testing.assert_allclose(found["corner"], corners, atol=1e-6)


@pytest.mark.parametrize("name", ["default", "two"])
def test_features_are_the_layers_output_in_order(data, name):
    strategy = strategies()[name]
    assert strategy.num_replicas_in_sync == {"two": 2, "four": 4}.get(name, 1)
    with strategy.scope():
        model = records.model()
    extract = images.make_feature_pass(
        images.layer_output(model, "pre_logits"), strategy, batch_size=8
    )
    found = extract(data)
    assert found["labels"].tolist() == LABELS
    head = model.get_layer("head")
    logits = found["features"] @ head.kernel.numpy() + head.bias.numpy()
    expected = model(np.float32(data.pixels) / 127.5 - 1)
    np.testing.assert_allclose(logits, expected, atol=1e-4)  # float32, other batches


def test_evaluation_data_is_read_whole(tmp_path):
    records.write(tmp_path / "set", records.images(LABELS), LABELS)
    run = images.make_pass(
        lambda batch: {"labels": batch["labels"], "images": batch["images"]},
        tf.distribute.get_strategy(),
        batch_size=10,
    )
    found = run(records.eval_data(tmp_path / "set", 5))
    np.testing.assert_array_equal(found["labels"], np.eye(5)[LABELS])
    # Resized to 37 pixels and cropped, the mean colour stays about the same.
    np.testing.assert_allclose(
        found["images"].mean(axis=(1, 2)),
        (records.images(LABELS) / 127.5 - 1).mean(axis=(1, 2)),
        atol=0.1,
    )


def test_tokens_are_averaged(data):
    model = records.model()
    strategy = tf.distribute.get_strategy()
    found = images.make_feature_pass(
        images.layer_output(model, "encoder_norm"), strategy, batch_size=9
    )(data)
    batch = next(iter(data.dataset(batch_size=27)))
    inner = model.get_layer("encoder_norm")
    tokens = type(model)(model.input, inner.output)(batch["images"])
    np.testing.assert_allclose(
        found["features"], tf.reduce_mean(tokens, axis=1), atol=1e-5
    )


def test_pass_is_traced_once(data):
    traced = []

    def apply(batch):
        traced.append(1)
        return {"sum": tf.reduce_sum(batch["images"], axis=[1, 2, 3])}

    run = images.make_pass(apply, tf.distribute.get_strategy(), batch_size=4)
    assert len(run(data)["sum"]) == len(run(data)["sum"]) == 27
    assert len(traced) == 1


def test_unknown_layer_is_named():
    with pytest.raises(ValueError, match=r"received 'prelogits'\. Known: images"):
        images.layer_output(records.model(), "prelogits")


def test_several_labels_are_no_few_shot_set():
    data = records.in_memory([[0, 1], [1], []], 3)
    extract = images.make_feature_pass(
        images.layer_output(records.model(), "pre_logits"),
        tf.distribute.get_strategy(),
        batch_size=4,
    )
    with pytest.raises(ValueError, match="2 images with none or several"):
        extract(data)


def test_parts_of_different_classes_are_refused(data):
    with pytest.raises(ValueError, match=r"5 \(train\) and 3 \(test\)"):
        images.make_feature_set(lambda part: {}, data, records.in_memory([0], 3))
