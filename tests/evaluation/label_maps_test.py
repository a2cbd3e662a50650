"""Label maps on constructed cases: restricted, several to one, without counterpart."""
# SPDX-License-Identifier: Apache-2.0

import json

import numpy as np
import pytest
import tensorflow as tf

from vit_scaling.class_names import imagenet_wordnet_numbers
from vit_scaling.evaluation import label_maps
from vit_scaling.evaluation.label_maps import LabelMap


def hits(label_map, logits, labels):
    found = label_map.hits(
        tf.constant(logits, tf.float32), tf.constant(labels, tf.float32)
    )
    return {name: value.numpy().tolist() for name, value in found.items()}


def test_classes_outside_do_not_compete():
    # The model's best is class 3, which the set has not; of the others, class 1.
    logits, labels = [[0.0, 2.0, 1.0, 9.0]], [[1.0, 0.0]]
    groups = ((1,), (2,))
    assert hits(LabelMap(groups, 4), logits, labels)["top1"] == [True]
    free = LabelMap(groups, 4, restricted=False)
    assert hits(free, logits, labels)["top1"] == [False]
    assert hits(free, logits, labels)["top5"] == [True]


def test_any_class_of_the_group_is_right():
    label_map = LabelMap(((0, 3), (1,)), 4)
    logits = [[0.0, 1.0, 9.0, 2.0], [5.0, 1.0, 9.0, 2.0], [0.0, 3.0, 9.0, 2.0]]
    labels = [[1.0, 0.0]] * 3
    assert hits(label_map, logits, labels)["top1"] == [True, True, False]
    assert hits(label_map, logits, labels)["top5"] == [True, True, True]


def test_any_of_several_labels_is_right_and_none_does_not_count():
    label_map = label_maps.same_classes(4)  # As ImageNet-ReaL has it.
    logits = [[0.0, 1.0, 2.0, 3.0]] * 3
    labels = [[0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    found = hits(label_map, logits, labels)
    assert found["top1"] == [True, False, False]
    assert found["counted"] == [True, True, False]


def test_images_without_a_counterpart_do_not_count():
    label_map = LabelMap(((0,), ()), 2)
    found = hits(label_map, [[1.0, 0.0]] * 2, [[1.0, 0.0], [0.0, 1.0]])
    assert found["counted"] == [True, False]
    assert found["top1"] == [True, False]


def test_five_best_are_of_the_competing_classes():
    label_map = label_maps.competing(range(7), 20)
    logits = np.arange(20.0)[None]  # Best of those that compete: 6, 5, 4, 3, 2.
    one = np.eye(20)
    assert [
        hits(label_map, logits, one[[number]])["top5"][0] for number in range(8)
    ] == [False, False, True, True, True, True, True, False]


def test_names_find_the_models_classes():
    label_map = label_maps.by_name(["n3", "n1"], ["n0", "n1", "n2", "n3"])
    assert label_map.groups == ((3,), (1,))
    assert label_map.matrix.tolist() == [[0, 0, 0, 1], [0, 1, 0, 0]]
    with pytest.raises(ValueError, match=r"1 classes of the set .* first 'n9'"):
        label_maps.by_name(["n9", "n1"], ["n0", "n1"])


def test_competing_classes_keep_the_numbering():
    label_map = label_maps.competing([2, 0], 4)
    assert label_map.groups == ((0,), (), (2,), ())
    with pytest.raises(ValueError, match="received 4"):
        label_maps.competing([4], 4)


@pytest.fixture
def mappings(tmp_path):
    """The four files of ObjectNet, made up: two objects of ImageNet, one not."""
    folders = {"clock": "Alarm clock", "chair": "Chair", "air": "Air freshener"}
    imagenet = {
        "Alarm clock": "digital clock; analog clock",
        "Chair": "rocking chair, rocker",
    }
    lines = ["tench", "analog clock", "rocking chair, rocker", "digital clock"]
    # The list of names is in an order of its own.
    numbers = {"0": 3, "1": 0, "2": 2, "3": 1}
    (tmp_path / "folder_to_objectnet_label.json").write_text(json.dumps(folders))
    (tmp_path / "objectnet_to_imagenet_1k.json").write_text(json.dumps(imagenet))
    (tmp_path / "imagenet_to_label_2012_v2").write_text("\n".join(lines) + "\n")
    (tmp_path / "pytorch_to_imagenet_2012_id.json").write_text(json.dumps(numbers))
    return tmp_path


def test_objectnets_files_lead_from_folders_to_classes(mappings):
    label_map = label_maps.objectnet(mappings, ["air", "chair", "clock"], classes=4)
    assert label_map.groups == ((), (2,), (0, 3))
    assert label_map.restricted


def test_objectnets_files_must_fit_together(mappings):
    with pytest.raises(ValueError, match="'table' is no folder of ObjectNet"):
        label_maps.objectnet(mappings, ["table"])
    (mappings / "imagenet_to_label_2012_v2").write_text("tench\n")
    with pytest.raises(ValueError, match="has no class 'digital clock'"):
        label_maps.objectnet(mappings, ["clock"])
    (mappings / "objectnet_to_imagenet_1k.json").unlink()
    with pytest.raises(FileNotFoundError, match="objectnet_to_imagenet_1k"):
        label_maps.objectnet(mappings, ["clock"])


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (((0,), (4,)), "received 4"),
        (((0, 1), (1,)), "Class 1 of the model is in two groups"),
        (((), ()), "at least one"),
    ],
)
def test_maps_without_sense_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        LabelMap(groups, 4)


def test_imagenets_wordnet_numbers_are_a_thousand_in_order():
    numbers = imagenet_wordnet_numbers()
    assert len(numbers) == len(set(numbers)) == 1000
    assert list(numbers) == sorted(numbers)
    assert numbers[0] == "n01440764"  # tench
