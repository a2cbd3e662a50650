"""Wherever two parts know class names, labels are compared and mapped by name."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from tests.data import sets
from tests.training import small
from vit_scaling import class_names, runs
from vit_scaling.data.deduplication import cleaning
from vit_scaling.data.deduplication.search import Search
from vit_scaling.data.pipeline import EvalData, TrainData
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.data.writing import inspection, split_writer, verification
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


def two_sets(tmp_path):
    """Write sets of cat and dog, of dog and eel; return the pattern of both."""
    first = write(tmp_path, "a", {"cat": 3, "dog": 2})
    second = write(tmp_path, "b", {"dog": 4, "eel": 3})
    return f"{first},{second}"


def test_two_sets_are_read_and_merged_by_name(tmp_path, caplog):
    pattern = two_sets(tmp_path)
    merged = data(save(RecordImages(TFRecords(pattern)), tmp_path / "merged"))
    for read in (data(pattern), merged):
        assert read.source.class_names == ("cat", "dog", "eel")
        found = colours_and_labels(read.dataset(batch_size=2))
        assert found == [(20.0, 0)] * 3 + [(80.0, 1)] * 6 + [(140.0, 2)] * 3
    assert "have different class names: their labels are mapped by name" in caplog.text


@pytest.mark.parametrize("names", [None, ("eel", "fox", "dog", "cat")])
def test_two_sets_train_in_the_same_order_and_resume(tmp_path, names):
    pattern = two_sets(tmp_path)
    read = data(pattern, TrainData, class_names=names, shuffle_window=16)

    def batches(images, start, count):
        dataset = images.dataset(batch_size=4, seed=3, start_step=start).take(count)
        return [{name: part.numpy() for name, part in b.items()} for b in dataset]

    whole = batches(read, 0, 9)  # Three epochs of twelve images.
    order = names or ("cat", "dog", "eel")
    expected = {float(COLOURS[name]): order.index(name) for name in order}
    for batch in whole:
        greys = np.round((batch["images"][:, 0, 0, 0] + 1) * 127.5)
        assert [expected[grey] for grey in greys] == list(batch["labels"].argmax(1))
    for one, other in zip(whole[5:], batches(read, 5, 4), strict=True):
        np.testing.assert_array_equal(one["images"], other["images"])
        np.testing.assert_array_equal(one["labels"], other["labels"])
    for name in ("a", "b"):  # By number, as before: the order of images is the same.
        (tmp_path / name / "classes.txt").unlink()
    by_number = batches(data(pattern, TrainData, shuffle_window=16), 0, 9)
    for one, other in zip(whole, by_number, strict=True):
        np.testing.assert_array_equal(one["images"], other["images"])


def test_a_run_knows_the_names_of_both_sets(tmp_path):
    train = data(two_sets(tmp_path), TrainData)
    test = write(tmp_path, "test", {"dog": 1, "eel": 1}, split="test")
    experiment = small.experiment(train_data=train, eval_data=data(test))
    names = class_names.names_of(train)
    mapped = experiment.with_class_names(names, reference="the training set")
    found = colours_and_labels(mapped.eval_sets()["eval"].dataset(batch_size=2))
    assert found == [(80.0, 1), (140.0, 2)]
    with pytest.raises(ValueError, match="classes=2, and 3 names"):
        _ = data(train.source.pattern, TrainData, classes=2).index


def test_a_label_that_one_of_two_sets_lacks_is_named(tmp_path):
    pattern = two_sets(tmp_path)
    names = tmp_path / "a" / "classes.txt"
    names.write_text("cat\n")  # Its label 1, dog, is no longer a class.
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"/a/train.*received 1\."):
        list(data(pattern).dataset(batch_size=2))


def test_tools_that_read_labels_map_them_too(tmp_path):
    pattern = two_sets(tmp_path)
    counts = inspection.compute_statistics(TFRecords(pattern))["class_counts"]
    assert counts == {"cat": 3, "dog": 6, "eel": 3}
    assert verification.verify(pattern)["fault_count"] == 0
    (tmp_path / "b" / "classes.txt").write_text("dog\n")
    assert "labels [1] are outside 0…0" in verification.verify(pattern)["faults"][0]
    with pytest.raises(ValueError, match="must have the same class names"):
        cleaning.clean(
            Search(TFRecords(pattern), [TFRecords(pattern)]),
            output_dir=str(tmp_path / "clean"),
        )


def test_a_set_without_names_is_not_read_with_one_that_has_them(tmp_path):
    first = write(tmp_path, "a", {"cat": 1})
    second = write(tmp_path, "b", {"dog": 1})
    (tmp_path / "b" / "classes.txt").unlink()
    source = TFRecords(f"{first},{second}")
    for read in (RecordImages(source).class_names, lambda: data(source.pattern).index):
        with pytest.raises(
            ValueError, match=r"/a has a classes\.txt and .*/b has none"
        ):
            read()


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


@pytest.mark.parametrize("kind", [EvalData, TrainData])
def test_the_manifest_bounds_the_labels_of_a_set_without_names(tmp_path, kind):
    """The last images of the set have the label; none needs to be read for it."""
    pattern = write(tmp_path, "set", {"cat": 3, "dog": 3, "eel": 1})
    (tmp_path / "set" / "classes.txt").unlink()
    with pytest.raises(ValueError, match=r"`classes` must be at least 3,.* received 2"):
        _ = data(pattern, kind, classes=2).num_examples
    assert data(pattern, kind, classes=3).num_examples == 7
