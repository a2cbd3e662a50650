"""big_vision's files are known in all their generations, and written in its newest."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from tests.applications.cases import NAMED, stack_blocks
from vit_scaling import array_files
from vit_scaling.applications.formats import big_vision, registry
from vit_scaling.applications.formats.vit_weights import ReadOptions
from vit_scaling.applications.weights import build_model

CASES = ("augreg", "bv_token", "bv_gap", "bv_map", "bv_map_scan", "bv_map_inlined")


def held(name):
    return array_files.read_npz(NAMED[name].path)


@pytest.mark.parametrize("name", CASES)
def test_every_generation_is_recognised(name):
    assert big_vision.FORMAT.find_prefix(held(name)) is not None


def test_other_names_are_not_taken_for_it():
    assert big_vision.FORMAT.find_prefix({"patch_embed.proj.weight", "kernel"}) is None


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_reads_back_bit_for_bit(name):
    weights = big_vision.read_big_vision(held(name), ReadOptions())
    written = big_vision.write_big_vision(weights).arrays
    again = big_vision.read_big_vision(written, ReadOptions())
    assert again.variables.keys() == weights.variables.keys()
    for path, value in weights.variables.items():
        assert again.variables[path].tobytes() == value.tobytes()


def test_blocks_stacked_by_scan_are_the_blocks():
    written = big_vision.write_big_vision(NAMED["bv_map"].read()).arrays
    stacked = stack_blocks(written)
    name = "MlpBlock_0/Dense_0/kernel"
    both = stacked[f"Transformer/encoderblock/{name}"]
    for block in (0, 1):
        one = written[f"Transformer/encoderblock_{block}/{name}"]
        np.testing.assert_array_equal(both[block], one)
    again = big_vision.read_big_vision(stacked, ReadOptions())
    assert again.variables.keys() == NAMED["bv_map"].read().variables.keys()


def test_parts_that_it_has_no_place_for_are_named():
    with pytest.raises(ValueError, match=r"no place for .*query_norm"):
        big_vision.write_big_vision(NAMED["timm_options"].read())


def test_size_of_sin_cos_positions_is_reported_as_assumed():
    found = held("bv_gap_sincos2d")
    (assumption,) = big_vision.read_big_vision(found, ReadOptions()).assumed
    assert assumption.startswith("images of 224 pixels")
    options = ReadOptions(source_image_size=4)
    assert not big_vision.read_big_vision(found, options).assumed


def test_heads_that_contradict_the_file_are_rejected():
    with pytest.raises(
        ValueError, match=r"is 4, but the file or its config\.json has 2"
    ):
        big_vision.read_big_vision(held("bv_map"), ReadOptions(heads=4))


def test_stacked_array_is_reported_with_all_blocks():
    used = big_vision.read_big_vision(held("bv_map_scan"), ReadOptions()).used
    (name,) = (n for n in used if n.endswith("encoderblock/LayerNorm_0/scale"))
    assert used[name] == "block_00/attention_norm/gamma, block_01/attention_norm/gamma"


def test_position_of_a_class_token_left_out_is_dropped_by_the_reference_as_well():
    case = NAMED["augreg"]  # One position more than patches: the class token's.
    weights = case.read(ignore="cls|head/.*", head="gap")
    assert weights.left_out["the first position"]
    images, _ = case.expected()
    answer = registry.reference_outputs(held("augreg"), weights, images)
    ours = np.asarray(build_model(weights)(images))
    np.testing.assert_allclose(ours, answer, atol=1e-5)
