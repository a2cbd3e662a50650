"""Weights for another range of pixels or order of classes give the same outputs."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from tests.applications.published_folders import (
    CLASS_NAMES,
    VALUE_RANGE,
    random_weights,
)
from vit_scaling.applications.adaptation import adapt_to_classes, adapt_to_range
from vit_scaling.applications.weights import build_model

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3))


def scaled(range_):
    """Return the pixels in a range, from its definition."""
    low, high = (np.asarray(value) for value in range_)
    return (low + PIXELS / 255 * (high - low)).astype(np.float32)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (VALUE_RANGE, (-1.0, 1.0)),
        ((-1.0, 1.0), VALUE_RANGE),
        ((0.0, 1.0), (-1.0, 1.0)),
        ((-1.0, 1.0), (0.0, 255.0)),
    ],
)
def test_adapted_weights_give_the_outputs_of_the_source(source, target):
    weights = random_weights(head="map")
    expected = build_model(weights)(scaled(source))
    assert "patch_embedding takes pixels of range" in adapt_to_range(
        weights.variables, source, target
    )
    found = build_model(weights)(scaled(target))
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_equal_ranges_change_nothing():
    weights = random_weights()
    before = {path: value.copy() for path, value in weights.variables.items()}
    same = (-1.0,) * 3, (1.0,) * 3
    assert not adapt_to_range(weights.variables, (-1.0, 1.0), same)
    for path, value in before.items():
        np.testing.assert_array_equal(weights.variables[path], value)


def test_a_model_without_a_patch_embedding_needs_the_range_of_its_source():
    with pytest.raises(ValueError, match=r"Bind TrainData\.value_range"):
        adapt_to_range({}, VALUE_RANGE, (-1.0, 1.0))


@pytest.mark.parametrize("target", [("cat", "ant", "bee"), ("cat", "ant")])
def test_a_classifier_is_reordered_by_name(target):
    weights = random_weights(head="gap")
    logits = np.asarray(build_model(weights)(scaled((-1.0, 1.0))))
    sentence = adapt_to_classes(weights.variables, CLASS_NAMES, target)
    assert sentence == f"the classifier's 3 classes mapped by name to {len(target)}"
    weights.arguments["classes"] = len(target)
    found = build_model(weights)(scaled((-1.0, 1.0)))
    order = [CLASS_NAMES.index(name) for name in target]
    np.testing.assert_allclose(found, logits[:, order], atol=1e-6)


def test_a_class_that_the_classifier_lacks_is_named():
    weights = random_weights()
    message = "training data has classes that the classifier does not have: 'cow'"
    with pytest.raises(ValueError, match=message):
        adapt_to_classes(weights.variables, CLASS_NAMES, ("cat", "cow"))


def test_unknown_names_change_nothing():
    assert adapt_to_classes({}, (), CLASS_NAMES) == ""
    assert adapt_to_classes({}, CLASS_NAMES, ()) == ""
