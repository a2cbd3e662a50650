"""Examples and their features."""
# SPDX-License-Identifier: Apache-2.0

import inspect

import pytest
import tensorflow as tf

from tests.data import sets
from vit_scaling.data.examples import Features, Source, feature_values, read_example
from vit_scaling.data.tfds import TFDS
from vit_scaling.data.tfrecords import TFRecords


def test_a_missing_feature_is_named_with_the_existing_ones():
    example = tf.train.Example.FromString(sets.example(b"x", [0]))
    with pytest.raises(ValueError, match=r"no feature 'jpeg', but image/class/label, "):
        feature_values(example, "jpeg")


def test_labels_are_moved_by_the_offset():
    example = tf.train.Example.FromString(sets.example(b"x", [1, 3]))
    assert Features(label_offset=-1).labels(example) == [0, 2]


def test_a_record_that_is_no_example_is_named(tmp_path):
    source = sets.shards(tmp_path, [[sets.example(b"x", [0]), b"\x07garbage"]])
    message = r"00000-of-00001\.tfrecord, record 1: it is no tf.train.Example\."
    with pytest.raises(ValueError, match=message):
        read_example(source.index(), 1)


@pytest.mark.parametrize("kind", [TFRecords, TFDS])
def test_both_kinds_of_sets_have_the_interface(kind):
    # As instances: `features` of TFRecords is a field.
    names = {*vars(kind), *kind.__dataclass_fields__}
    assert {name for name in vars(Source) if not name.startswith("_")} <= names
    assert inspect.signature(kind.index) == inspect.signature(Source.index)
