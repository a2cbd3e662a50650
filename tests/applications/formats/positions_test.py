"""Positions of class and register tokens move into the tokens, sums unchanged."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from vit_scaling.applications.formats.positions import fold_positions
from vit_scaling.applications.formats.source import Request, Source


def source(positions, registers=0):
    random = np.random.default_rng(0)
    arrays = {"pos": random.normal(size=(1, positions, 4)),
              "cls": random.normal(size=(1, 1, 4))}  # fmt: skip
    if registers:
        arrays["reg"] = random.normal(size=(1, registers, 4))
    return Source("x", arrays)


def fold(made, prefix, **request):
    return fold_positions(made, "pos", prefix, 16, Request(**request))


def test_class_tokens_position_is_added_to_it():
    made = source(1 + 9)
    before = {name: array.copy() for name, array in made.arrays.items()}
    assert fold(made, ["cls"]) == (48, 48)
    summed = before["cls"] + before["pos"][:, :1]
    np.testing.assert_array_equal(made.arrays["cls"], summed)
    np.testing.assert_array_equal(made.arrays["pos"], before["pos"][:, 1:])


def test_registers_follow_the_class_token():
    made = source(1 + 2 + 16, registers=2)
    before = {name: array.copy() for name, array in made.arrays.items()}
    assert fold(made, ["cls", "reg"]) == (64, 64)
    summed = before["reg"] + before["pos"][:, 1:3]
    np.testing.assert_array_equal(made.arrays["reg"], summed)
    assert made.arrays["pos"].shape == (1, 16, 4)


def test_positions_of_patches_alone_leave_the_tokens_as_they_are():
    made = source(9)
    token = made.arrays["cls"].copy()
    assert fold(made, ["cls"]) == (48, 48)
    np.testing.assert_array_equal(made.arrays["cls"], token)


def test_position_of_zeros_keeps_the_sign_of_a_zero():
    made = source(1 + 4)
    made.arrays["pos"][:, 0] = 0.0
    made.arrays["cls"][:] = -0.0
    fold(made, ["cls"])
    assert np.signbit(made.arrays["cls"]).all()


def test_image_size_settles_what_is_no_square():
    made = source(1 + 6)
    assert fold(made, ["cls"], source_image_size=(32, 48)) == (32, 48)
    with pytest.raises(ValueError, match="does not fit `source_image_size`=64"):
        fold(source(1 + 6), ["cls"], source_image_size=64)
    with pytest.raises(ValueError, match="7 positions for 1 tokens"):
        fold(source(7), ["cls"])


def test_positions_of_another_rank_are_refused():
    made = source(4)
    made.arrays["pos"] = made.arrays["pos"][0]
    with pytest.raises(ValueError, match=r"must be of shape \(1, positions, width\)"):
        fold(made, ["cls"])
