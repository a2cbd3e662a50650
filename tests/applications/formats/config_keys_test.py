"""Keys of a configuration that the package does not know are rejected by name."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.applications.formats.config_keys import check_keys


def test_unknown_keys_are_named_with_their_values():
    with pytest.raises(ValueError, match=r"config\.json has b=2, c='x', which this"):
        check_keys({"a": 1, "b": 2, "c": "x"}, frozenset({"a"}), "config.json")


def test_known_and_private_keys_pass():
    check_keys({"a": 1, "_name_or_path": "x"}, frozenset({"a"}), "config.json")
