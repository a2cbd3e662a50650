"""What an export knows of a run: how its images were prepared, and at which size."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.export.records import make_record, with_preprocess
from vit_scaling.image_preprocessing import preprocessing_from_record
from vit_scaling.run_record import RunRecord


def side(record):
    """Return the side in pixels before the crop."""
    preprocessing = preprocessing_from_record(record)
    return preprocessing.resized_side(max(record.image_size))


def test_smaller_side_keeps_the_papers_ratio():
    assert side(RunRecord(("a",), (224, 224))) == 256
    assert side(RunRecord(("a",), (384, 384))) == 439
    assert side(RunRecord(("a",), (384, 384), resize=448)) == 448


def test_another_way_to_prepare_images_takes_the_size_that_evaluation_has():
    record = RunRecord(("a",), (384, 384), preprocess="resize")
    assert side(with_preprocess(record, "central_crop", None)) == 448
    assert side(with_preprocess(record, "squash_and_crop", None)) == 439
    assert side(with_preprocess(record, "central_crop", 400)) == 400
    old = RunRecord(("a",), (384, 384))  # Evaluated at 8/7, said nothing.
    assert side(with_preprocess(old, "central_crop", None)) == 439
    assert with_preprocess(old, "resize", None).resize is None


def test_size_before_a_crop_has_no_effect_without_one():
    record = RunRecord(("a",), (32, 32), preprocess="resize")
    with pytest.raises(ValueError, match="crops nothing; received resize=40"):
        with_preprocess(record, None, 40)


KNOWN = RunRecord(("ant", "bee", "cat"), (4, 4), value_range=(0.0, 1.0))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, KNOWN.class_names),
        (("ant", "bee", "cat"), KNOWN.class_names),
        (("cat", "ant", "bee"), KNOWN.class_names),  # In another order.
        (("Ameise", "Biene", "Katze"), ("Ameise", "Biene", "Katze")),  # Translated.
    ],
)
def test_given_class_names_are_compared_with_the_models(given, expected):
    record = make_record((None, 8, 8, 3), 3, given, KNOWN)
    assert record.class_names == expected
    assert record.value_range == (0.0, 1.0) and record.image_size == (8, 8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("ant", "bee", "cow"), "'cow' for class 2, where the model's 3 have 'cat'"),
        (("ant", "bee"), "has 2 names, and None for class 2"),
        (("Ameise", "Biene"), "has 2 names, and 'Ameise' for class 0"),
    ],
)
def test_class_names_that_contradict_the_models_raise(given, message):
    with pytest.raises(ValueError, match=message):
        make_record((None, 8, 8, 3), 3, given, KNOWN)


def test_what_is_given_replaces_what_comes_with_the_weights():
    record = make_record(
        (None, 8, 8, 3), 3, known=KNOWN, preprocess="resize", value_range=(-1.0, 1.0)
    )
    assert (record.preprocess, record.value_range) == ("resize", (-1.0, 1.0))
