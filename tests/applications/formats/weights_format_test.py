"""A format recognises its files by a marker behind one of its prefixes."""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.applications.formats.weights_format import WeightsFormat

FORMAT = WeightsFormat(
    layouts=("some",),
    description="some files",
    markers=("kernel", "weight"),
    read=lambda arrays, options, config: None,
    prefixes=("model.", ""),
)


def test_first_prefix_with_a_marker_is_found():
    assert FORMAT.find_prefix({"model.weight", "kernel"}) == "model."
    assert FORMAT.find_prefix({"kernel"}) == ""


def test_names_without_a_marker_are_of_another_format():
    assert FORMAT.find_prefix({"model.bias", "tower.kernel"}) is None
