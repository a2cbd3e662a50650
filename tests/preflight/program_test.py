"""The text of a program: replaced operations, fingerprint, arguments, errors."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.preflight.programs import (
    CUSTOM_CALL,
    LINEAR,
    NOT_KNOWN,
    TOO_LARGE,
    count_operations,
)
from vit_scaling.preflight import program
from vit_scaling.preflight.program import compute_fingerprint


def test_copies_become_reshapes_and_nothing_else_changes():
    replaced = program.make_pure_stablehlo(LINEAR)
    wanted = "%26 = stablehlo.reshape %24 : (tensor<3x2xf32>) -> tensor<3x2xf32> loc("
    assert wanted in replaced
    assert "mhlo.copy" not in replaced
    changed = [
        (old, new)
        for old, new in zip(LINEAR.splitlines(), replaced.splitlines(), strict=True)
        if old != new
    ]
    assert len(changed) == 1


def test_another_foreign_operation_is_named():
    text = LINEAR.replace("mhlo.copy %24", "mhlo.bitcast %24")
    with pytest.raises(ValueError, match=r"not StableHLO: mhlo\.bitcast"):
        program.make_pure_stablehlo(text)


def test_a_fingerprint_sees_what_is_computed_not_where_it_came_from():
    first = compute_fingerprint(LINEAR)
    renamed = LINEAR.replace("__39__.48", "__7__.9").replace(".31(", ".99(")
    moved = renamed.replace('"add.34"', '"elsewhere/add"').replace("#loc29", "#loc3")
    assert compute_fingerprint(moved) == first
    assert compute_fingerprint(LINEAR.replace("3x2", "3x4")) != first
    assert compute_fingerprint(LINEAR.replace("loc.add", "loc.mul")) == first
    assert compute_fingerprint(LINEAR.replace("hlo.add", "hlo.multiply")) != first


def test_a_fingerprint_sees_what_a_custom_call_calls():
    other = CUSTOM_CALL.replace("@nobody", "@somebody")
    assert other != CUSTOM_CALL
    assert compute_fingerprint(other) != compute_fingerprint(CUSTOM_CALL)


def test_operations_are_counted():
    counted = count_operations(LINEAR)
    assert counted["stablehlo.add"] == 2
    assert counted["mhlo.copy"] == 1


def test_arguments_are_measured_by_shape_and_dtype():
    assert program.count_argument_bytes(LINEAR) == 4 * 3 * 2 + 3 * 2 * 4 + 4
    assert program.count_tensor_bytes("", "i1") == 1
    assert program.count_tensor_bytes("5", "f64") == 40
    with pytest.raises(ValueError, match="no function `main`"):
        program.count_argument_bytes("module {}")


def test_custom_calls_that_no_tpu_knows_are_named():
    assert program.find_unsupported_calls(CUSTOM_CALL) == ["nobody"]
    assert not program.find_unsupported_calls(LINEAR)


def test_the_bytes_of_an_error_are_read():
    assert program.parse_memory_error(TOO_LARGE) == (29.30 * 2**30, 15.48 * 2**30)
    other = "Ran out of memory in memory space hbm. Used 512.00M of 0.25G hbm."
    assert program.parse_memory_error(other) == (2**29, 2**28)
    assert program.parse_memory_error(NOT_KNOWN) is None
