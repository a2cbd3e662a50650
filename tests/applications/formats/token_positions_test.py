"""Positions of class and register tokens move into the tokens, sums unchanged."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from vit_scaling.applications.formats.source_arrays import SourceArrays
from vit_scaling.applications.formats.token_positions import (
    CLASS_TOKEN,
    POSITIONS,
    REGISTERS,
    fold_token_positions,
)


def source(positions, registers=0):
    random = np.random.default_rng(0)
    arrays = {
        POSITIONS: random.normal(size=(1, positions, 4)),
        CLASS_TOKEN: random.normal(size=(1, 1, 4)),
    }
    if registers:
        arrays[REGISTERS] = random.normal(size=(1, registers, 4))
    return SourceArrays("x", arrays)


def fold(arrays, source_image_size=None):
    return fold_token_positions(arrays, 16, source_image_size)


def test_class_tokens_position_is_added_to_it():
    folded = source(1 + 9)
    before = {name: array.copy() for name, array in folded.arrays.items()}
    assert fold(folded) == (48, 48)
    summed = before[CLASS_TOKEN] + before[POSITIONS][:, :1]
    np.testing.assert_array_equal(folded.arrays[CLASS_TOKEN], summed)
    np.testing.assert_array_equal(folded.arrays[POSITIONS], before[POSITIONS][:, 1:])


def test_registers_follow_the_class_token():
    folded = source(1 + 2 + 16, registers=2)
    before = {name: array.copy() for name, array in folded.arrays.items()}
    assert fold(folded) == (64, 64)
    summed = before[REGISTERS] + before[POSITIONS][:, 1:3]
    np.testing.assert_array_equal(folded.arrays[REGISTERS], summed)
    assert folded.arrays[POSITIONS].shape == (1, 16, 4)


def test_positions_of_patches_alone_leave_the_tokens_as_they_are():
    folded = source(9)
    token = folded.arrays[CLASS_TOKEN].copy()
    assert fold(folded) == (48, 48)
    np.testing.assert_array_equal(folded.arrays[CLASS_TOKEN], token)


def test_position_of_zeros_keeps_the_sign_of_a_zero():
    folded = source(1 + 4)
    folded.arrays[POSITIONS][:, 0] = 0.0
    folded.arrays[CLASS_TOKEN][:] = -0.0
    fold(folded)
    assert np.signbit(folded.arrays[CLASS_TOKEN]).all()


def test_image_size_settles_what_is_no_square():
    folded = source(1 + 6)
    assert fold(folded, source_image_size=(32, 48)) == (32, 48)
    with pytest.raises(ValueError, match="do not fit `source_image_size`=64"):
        fold(source(1 + 6), source_image_size=64)
    with pytest.raises(ValueError, match="7 positions, for 1 tokens"):
        fold(source(7))


def test_positions_of_another_rank_are_rejected():
    folded = source(4)
    folded.arrays[POSITIONS] = folded.arrays[POSITIONS][0]
    with pytest.raises(ValueError, match=r"must be of shape \(1, positions, width\)"):
        fold(folded)
