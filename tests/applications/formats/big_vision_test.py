"""big_vision's files are known in all their generations, and written in its newest."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from tests.applications.cases import NAMED
from vit_scaling import array_files
from vit_scaling.applications.formats import big_vision
from vit_scaling.applications.formats.source import Request

CASES = ("augreg", "bv_token", "bv_gap", "bv_map", "bv_map_scan", "bv_map_inlined")


def held(name):
    return array_files.read_npz(NAMED[name].path)


@pytest.mark.parametrize("name", CASES)
def test_every_generation_is_recognised(name):
    assert big_vision.is_big_vision(set(held(name)))


def test_other_names_are_not_taken_for_it():
    assert not big_vision.is_big_vision({"patch_embed.proj.weight", "kernel"})


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_reads_back_bit_for_bit(name):
    weights = big_vision.read_big_vision(held(name), Request())
    written = big_vision.write_big_vision(weights)
    again = big_vision.read_big_vision(written, Request())
    assert again.variables.keys() == weights.variables.keys()
    for path, value in weights.variables.items():
        assert again.variables[path].tobytes() == value.tobytes()


def test_blocks_stacked_by_scan_are_the_blocks():
    written = big_vision.write_big_vision(NAMED["bv_map"].read())
    stacked = big_vision.stacked_blocks(written)
    name = "MlpBlock_0/Dense_0/kernel"
    both = stacked[f"Transformer/encoderblock/{name}"]
    for block in (0, 1):
        one = written[f"Transformer/encoderblock_{block}/{name}"]
        np.testing.assert_array_equal(both[block], one)
    again = big_vision.read_big_vision(stacked, Request())
    assert again.variables.keys() == NAMED["bv_map"].read().variables.keys()


def test_parts_that_it_has_no_place_for_are_named():
    with pytest.raises(ValueError, match=r"no place for .*query_norm"):
        big_vision.write_big_vision(NAMED["timm_options"].read())
