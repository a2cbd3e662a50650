"""Policies choose parts of blocks."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.modeling.rematerialization import recomputed_parts


@pytest.mark.parametrize(
    ("policy", "parts"),
    [
        ("none", ["none"] * 5),
        ("all", ["all"] * 5),
        ("attention", ["attention"] * 5),
        ("mlp", ["mlp"] * 5),
        ("every_1", ["all"] * 5),
        ("every_2", ["all", "none", "all", "none", "all"]),
        ("every_9", ["all", "none", "none", "none", "none"]),
    ],
)
def test_policies_choose_parts_of_blocks(policy, parts):
    assert recomputed_parts(policy, 5) == parts


@pytest.mark.parametrize("policy", ["every_0", "every_", "every_-1", "some", "", True])
def test_other_policies_are_rejected(policy):
    with pytest.raises(ValueError, match="`rematerialize` must be 'none', 'all'"):
        recomputed_parts(policy, 5)
