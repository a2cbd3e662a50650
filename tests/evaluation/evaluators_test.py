"""In-loop evaluators give the figures that their parts give, under every strategy."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import tensorflow as tf

from tests.evaluation import records
from vit_scaling.evaluation import fewshot, images
from vit_scaling.evaluation.evaluators import FewShot, FewShotSet, MappedAccuracy
from vit_scaling.evaluation.label_maps import LabelMap

CLASSES = 5


def part(name, classes=CLASSES):
    number, seed = {"train": (6, 0), "test": (5, 1)}[name]
    labels = np.random.default_rng(seed).permutation(np.arange(CLASSES * number) % 5)
    return records.in_memory(labels.tolist(), classes, seed=seed)


def few_shot_set(name="colours"):
    return FewShotSet(name, part("train"), part("test"))


def mirrored(number):
    devices = tf.config.list_logical_devices("CPU")[:number]
    return tf.distribute.MirroredStrategy([device.name for device in devices])


@pytest.mark.parametrize("replicas", [1, 2])
def test_figures_are_the_features_few_shot_accuracies(replicas):
    strategy = mirrored(replicas)
    with strategy.scope():
        model = records.model()
    sets = [few_shot_set("a"), few_shot_set("b")]
    evaluator = FewShot(
        sets, shots=(1, 4), strengths=(1024.0, 1.0), batch_size=8, probes=["neighbours"]
    )
    figures = evaluator.evaluate(model, strategy)
    extract = images.make_feature_pass(
        images.layer_output(model, "pre_logits"),
        tf.distribute.get_strategy(),
        batch_size=8,
    )
    data = images.make_feature_set(extract, sets[0].train, sets[0].test)
    found = fewshot.compute_accuracies(data, shots=(1, 4), strengths=(1024.0, 1.0))
    assert figures["a_4shot"] == pytest.approx(found[1024.0][4].mean, abs=0.05)
    assert figures["a_4shot_seed2_l2_1"] == pytest.approx(
        found[1.0][4].per_seed[2], abs=0.09
    )  # Replicas round features differently, which may turn an image or two.
    assert figures["a_1shot_half_interval"] >= 0
    assert figures["b_4shot"] == figures["a_4shot"]
    assert figures["a_4shot"] > 0.4  # Colours are easy: chance is 0.2.
    assert figures["a_neighbours"] > 0.4
    assert "a_linear_probe" not in figures


def test_second_evaluation_sees_new_weights_without_tracing_again():
    model = records.model()
    strategy = tf.distribute.get_strategy()
    evaluator = FewShot([few_shot_set()], shots=(1,), seeds=(0,), batch_size=10)
    evaluator.evaluate(model, strategy)
    extract = evaluator._get_pass(model, strategy)
    assert evaluator._get_pass(model, strategy) is extract
    data = part("test")
    before = extract(data)["features"]
    kernel = model.get_layer("patch_embedding").weights[0]
    kernel.assign(kernel.value.read_value() * 3.0)
    assert not np.allclose(extract(data)["features"], before)
    assert evaluator._get_pass(records.model(), strategy) is not extract


def test_layer_can_be_chosen():
    evaluator = FewShot(
        [few_shot_set()], shots=(5,), layer="block_00", probes=["linear_probe"]
    )
    figures = evaluator.evaluate(records.model(), tf.distribute.get_strategy())
    assert figures["colours_5shot"] > 0.4
    assert figures["colours_linear_probe"] > 0.4


@pytest.mark.parametrize("replicas", [1, 2])
def test_mapped_accuracy_counts_right_answers(replicas):
    strategy = mirrored(replicas)
    with strategy.scope():
        model = records.model(classes=8)
    label_map = LabelMap(((7,), (0, 3), (), (5,), (2,)), 8)
    data = part("test")
    evaluator = MappedAccuracy(
        data, label_map, name="mapped", interval_steps=10, batch_size=12
    )
    figures = evaluator.evaluate(model, strategy)
    batch = next(iter(data.dataset(batch_size=25)))
    logits = model(batch["images"]).numpy()
    logits[:, [1, 4, 6]] = -np.inf
    counts = right = 0
    for row, label in zip(logits, batch["labels"].numpy().argmax(axis=1), strict=True):
        if label_map.groups[label]:
            counts += 1
            right += int(row.argmax() in label_map.groups[label])
    assert figures["examples"] == counts == 20
    assert figures["top1"] == pytest.approx(right / counts)
    assert figures["top5"] == 1.0  # Only five of the model's classes compete.


def test_wrong_settings_are_refused():
    one = few_shot_set()
    with pytest.raises(ValueError, match="different names; received names"):
        FewShot([one, one])
    with pytest.raises(ValueError, match="`sets` must be one or more"):
        FewShot([])
    with pytest.raises(
        ValueError, match="`interval_steps` must be an integer of at least 1"
    ):
        FewShot([one], interval_steps=0)
    for name, wrong in (("shots", ()), ("seeds", (1, 1)), ("strengths", (0.0,))):
        with pytest.raises(ValueError, match=f"`{name}` must"):
            FewShot([one], **{name: wrong})
    with pytest.raises(ValueError, match="`shots` must be one or more"):
        FewShot([FewShotSet("own", one.train, one.test, shots=(0,))])
    label_map = LabelMap(((0,), (1,)), 4)
    with pytest.raises(ValueError, match="2 groups for 5 classes"):
        MappedAccuracy(one.test, label_map, name="a", interval_steps=1)


def test_model_of_other_classes_and_images_that_never_count_are_refused():
    data = part("test")
    strategy = tf.distribute.get_strategy()
    label_map = LabelMap(((0,), (1,), (2,), (3,), (4,)), 6)
    evaluator = MappedAccuracy(data, label_map, name="a", interval_steps=1)
    with pytest.raises(ValueError, match="for 6 classes; the model has 5"):
        evaluator.evaluate(records.model(), strategy)
    empty = MappedAccuracy(
        part("test", 6),
        LabelMap(((), (), (), (), (), (1,)), 5),
        name="a",
        interval_steps=1,
    )
    with pytest.raises(ValueError, match="No image of 'a'"):
        empty.evaluate(records.model(), strategy)


class Counted:
    """A part of a set that knows its size, as `EvalData` does."""

    classes, num_examples = 5, 30


def test_set_with_fewer_images_than_shots_is_refused_before_training():
    own = FewShotSet("birds", Counted(), Counted(), shots=(1, 6))
    FewShot([own], shots=(25,)).check()
    FewShot([few_shot_set()], shots=(25,)).check()  # Says not how many there are.
    with pytest.raises(ValueError, match=r"'birds' are 125 training images; .* has 30"):
        FewShot([FewShotSet("birds", Counted(), Counted())], shots=(1, 25)).check()
