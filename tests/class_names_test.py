"""Wherever two parts know class names, labels are compared and mapped by name."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools

import numpy as np
import pytest

from tests.data import sets
from tests.training import small
from vit_scaling import class_names, runs
from vit_scaling.data.pipeline import EvalData, TrainData
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.data.writing import split_writer
from vit_scaling.data.writing.image_files import Folder
from vit_scaling.data.writing.image_sources import RecordImages
from vit_scaling.evaluation.images import make_feature_set
from vit_scaling.image_preprocessing import Resize
from vit_scaling.optimization.learning_rate_schedules import Constant
from vit_scaling.training.options import RunOptions
from vit_scaling.training.strategy import make_strategy

SIDE = 8
# The colour of an image tells its class.
COLOURS = {"cat": 20, "dog": 80, "eel": 140, "fox": 200}


def write(tmp_path, name, counts, split="train"):
    """Write images of one grey per class; return the pattern of their shards."""
    images = tmp_path / f"{name}_images"
    for label, count in counts.items():
        (images / label).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((SIDE, SIDE, 3), COLOURS[label], np.uint8)
            path = images / label / f"{name}_{number}.png"
            path.write_bytes(sets.encoded(pixels, "PNG"))
    return save(Folder(str(images)), tmp_path / name, split)


def save(source, path, split="train"):
    split_writer.write_tfrecords(
        source, output_dir=str(path), split=split, num_shards=2, workers=1
    )
    return str(path / f"{split}-*.tfrecord")


def data(pattern, kind=EvalData, **options):
    settings = {"image_size": SIDE, "classes": 4, "preprocess": Resize(), **options}
    return kind(TFRecords(pattern), **settings)


def colours_and_labels(dataset):
    """Return a (grey, label) pair for every image of a dataset."""
    pairs = []
    for batch in dataset:
        greys = np.round((batch["images"].numpy()[:, 0, 0, 0] + 1) * 127.5)
        mask = batch["mask"].numpy() > 0
        labels = batch["labels"].numpy().argmax(axis=1)
        pairs += list(zip(greys[mask], labels[mask], strict=True))
    return sorted((float(grey), int(label)) for grey, label in pairs)


def test_an_evaluation_set_without_a_class_is_mapped_by_name(tmp_path):
    train = write(tmp_path, "train", {"cat": 2, "dog": 2, "eel": 2, "fox": 2})
    test = write(tmp_path, "test", {"dog": 1, "eel": 1, "fox": 1}, split="test")
    experiment = small.experiment(
        train_data=data(train, TrainData), eval_data=data(test)
    )
    names = experiment.train_data.source.class_names
    mapped = experiment.with_class_names(names, reference="the training set")
    found = colours_and_labels(mapped.eval_sets()["eval"].dataset(batch_size=2))
    assert found == [(80.0, 1), (140.0, 2), (200.0, 3)]  # As in training.
    unmapped = colours_and_labels(experiment.eval_data.dataset(batch_size=2))
    assert unmapped == [(80.0, 0), (140.0, 1), (200.0, 2)]  # By number: all wrong.


def test_a_class_that_the_model_lacks_raises_and_is_named(tmp_path):
    train = write(tmp_path, "train", {"cat": 1, "dog": 1})
    test = write(tmp_path, "test", {"dog": 1, "fox": 1}, split="test")
    experiment = small.experiment(
        train_data=data(train, TrainData), eval_data={"val": data(test)}
    )
    message = r"Evaluation set 'val' has classes that .*: 'fox' \(1 of 2\)"
    with pytest.raises(ValueError, match=message):
        experiment.with_class_names(("cat", "dog"), reference="the training set")


def test_equal_and_unknown_names_change_nothing(tmp_path):
    pattern = write(tmp_path, "set", {"cat": 1, "dog": 1})
    images = data(pattern)
    for names in ((), ("cat", "dog")):
        same = class_names.with_class_names(
            images, names, source="The set", reference="the model"
        )
        assert same is images


def test_sets_are_merged_by_name(tmp_path):
    first = write(tmp_path, "a", {"cat": 1, "dog": 1})
    second = write(tmp_path, "b", {"dog": 2, "eel": 1})
    both = TFRecords(f"{first},{second}")
    with pytest.raises(ValueError, match=r"two sets with different class names: .*/a "):
        _ = both.class_names
    merged = data(save(RecordImages(both), tmp_path / "merged"))
    assert merged.source.class_names == ("cat", "dog", "eel")
    found = colours_and_labels(merged.dataset(batch_size=2))
    assert found == [(20.0, 0), (80.0, 1), (80.0, 1), (80.0, 1), (140.0, 2)]


def test_a_set_without_names_is_not_merged_with_one_that_has_them(tmp_path):
    first = write(tmp_path, "a", {"cat": 1})
    second = write(tmp_path, "b", {"dog": 1})
    (tmp_path / "b" / "classes.txt").unlink()
    source = RecordImages(TFRecords(f"{first},{second}"))
    with pytest.raises(ValueError, match=r"/a has a classes\.txt and .*/b has none"):
        source.class_names()


def in_order(tmp_path, names):
    """Return a set with one image of each class, numbered in this order."""
    records = [
        sets.example(
            sets.encoded(np.full((SIDE, SIDE, 3), COLOURS[name], np.uint8), "PNG"),
            [number],
            key=name,
        )
        for number, name in enumerate(names)
    ]
    source = sets.shards(tmp_path / "_".join(names), [records])
    (tmp_path / "_".join(names) / "classes.txt").write_text("\n".join(names))
    return EvalData(source, image_size=SIDE, classes=3, preprocess=Resize())


def test_both_parts_of_a_few_shot_set_are_compared_by_name(tmp_path):
    train = in_order(tmp_path, ["cat", "dog", "eel"])
    test = in_order(tmp_path, ["eel", "cat", "dog"])

    def extract(images):
        pairs = colours_and_labels(images.dataset(batch_size=2))
        features, labels = np.array(pairs).T
        return {"features": features[:, None], "labels": labels.astype(np.int64)}

    found = make_feature_set(extract, train, test)
    np.testing.assert_array_equal(found.test_features[:, 0], [20, 80, 140])
    np.testing.assert_array_equal(found.test_labels, [0, 1, 2])
    other = in_order(tmp_path, ["eel", "cat", "fox"])
    with pytest.raises(ValueError, match=r"few-shot test part has classes.*'fox'"):
        make_feature_set(extract, train, other)


def test_a_checkpoint_is_evaluated_by_the_names_of_its_run(tmp_path):
    train = in_order(tmp_path, ["cat", "dog", "eel"])
    test = in_order(tmp_path, ["eel", "cat", "dog"])
    run = {
        "make_model": functools.partial(small.linear, 3),
        "train_data": TrainData(train.source, image_size=SIDE, classes=3),
        "eval_data": train,
        "batch_size": 2,
    }
    options = {"model_dir": tmp_path / "run", "strategy": make_strategy()}
    schedule = Constant(base_learning_rate=0.3, total_steps=60)
    experiment = small.experiment(schedule=schedule, **run)
    runs.train(experiment, RunOptions(steps_per_loop=20), **options)
    for images in (train, test):
        changed = dataclasses.replace(experiment, eval_data=images)
        assert runs.evaluate(changed, **options)["eval"]["top1"] == 1.0


def test_the_names_that_labels_are_mapped_to_are_those_of_the_set(tmp_path):
    train = in_order(tmp_path, ["cat", "dog", "eel"])
    reordered = dataclasses.replace(train, class_names=("eel", "dog", "cat"))
    assert class_names.names_of(reordered) == ("eel", "dog", "cat")
    test = in_order(tmp_path, ["dog", "cat", "eel"])
    options = {"source": "The set", "reference": "the model"}
    names = class_names.names_of(reordered)
    mapped = class_names.with_class_names(test, names, **options)
    found = colours_and_labels(mapped.dataset(batch_size=1))
    assert found == [(20.0, 2), (80.0, 1), (140.0, 0)]


def test_repeated_names_are_rejected():
    with pytest.raises(ValueError, match=r"the model has a class name several.*'dog'"):
        class_names.map_by_name(
            ["dog"], ["dog", "dog"], source="The set", reference="the model"
        )
