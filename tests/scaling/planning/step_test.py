"""Settings of a step are checked."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.scaling.planning.step import Step


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adafctor"}, "Did you mean 'adafactor'"),
        ({"precision": "bfloat16"}, "Did you mean 'mixed_bfloat16'"),
        (
            {"rematerialize": "every_0"},
            "'none', 'all', .* or 'every_N'",
        ),
        ({"attention_chunk": 0}, "`attention_chunk` must be at least 1"),
        ({"rematerialize": "some"}, "'none', 'all', .* or 'every_N'"),
    ],
)
def test_bad_steps_are_explained(options, message):
    with pytest.raises(ValueError, match=message):
        Step(**options)
