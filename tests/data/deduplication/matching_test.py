"""Near-duplicates of a set are found, whatever the alteration, and nothing else."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.data.deduplication.example_sets import photos
from vit_scaling.data.deduplication import planted_copies
from vit_scaling.data.deduplication.matching import Thresholds


def test_planted_copies_of_every_kind_are_found_and_nothing_else():
    result = planted_copies.measure(photos(60), copies=70, thresholds=Thresholds())
    assert result["wrong_original"] == 0
    assert result["others"] == []
    for kind, row in result["recall"].items():
        assert row["of"] == 10
        assert row["found"] >= 8, kind


def test_thresholds_are_checked():
    with pytest.raises(ValueError, match="`distance` must be 0 to 20"):
        Thresholds(distance=40)
