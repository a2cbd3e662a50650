"""Weights know their shape, and the named variants of a shape's sizes are found."""
# SPDX-License-Identifier: Apache-2.0

from tests.applications.cases import TINY
from vit_scaling.applications.formats.vit_weights import (
    ReadOptions,
    ViTWeights,
    variants_with_sizes,
)


def test_variants_are_found_by_their_numbers():
    assert variants_with_sizes(384, 12, 1536) == ["S"]
    assert variants_with_sizes(7, 1, 1) == []


def test_shape_is_that_of_the_arguments():
    assert ViTWeights("timm", {"shape": TINY}, {}).shape == TINY


def test_by_default_everything_is_as_the_file_says():
    assert set(vars(ReadOptions()).values()) == {None}
