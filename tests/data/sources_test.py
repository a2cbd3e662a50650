"""The sets that training and evaluation read."""
# SPDX-License-Identifier: Apache-2.0

import inspect

import pytest

from vit_scaling.data.sources import Source
from vit_scaling.data.tfds import TFDS
from vit_scaling.data.tfrecords import TFRecords


@pytest.mark.parametrize("kind", [TFRecords, TFDS])
def test_both_kinds_of_sets_have_the_interface(kind):
    # As instances: `features` of TFRecords is a field.
    names = {*vars(kind), *kind.__dataclass_fields__}
    assert {name for name in vars(Source) if not name.startswith("_")} <= names
    assert inspect.signature(kind.index) == inspect.signature(Source.index)
