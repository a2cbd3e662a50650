"""Settings that training and evaluation data share."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.data import sets
from vit_scaling.data.pipeline import EvalData, TrainData


@pytest.mark.parametrize("kind", [TrainData, EvalData])
def test_unknown_policies_and_wrong_numbers_raise(tmp_path, kind):
    source = sets.numbered(tmp_path, [3])
    assert kind(source, image_size=1, classes=3).num_examples == 3
    with pytest.raises(ValueError, match="`on_bad_record` must be one of stop, skip"):
        kind(source, image_size=1, classes=3, on_bad_record="ignore")
    for name in ("image_size", "classes", "block_records", "max_pixels"):
        sizes = {"image_size": 1, "classes": 3, name: 0}
        with pytest.raises(ValueError, match=f"`{name}` must be at least 1"):
            kind(source, **sizes)
