"""Reports: sizes add up, errors are distinguished, the roofline is a bound."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.preflight.programs import (
    CUSTOM_CALL,
    LINEAR,
    NOT_KNOWN,
    TOO_LARGE,
    recorded,
)
from vit_scaling.preflight import program, report
from vit_scaling.scaling.planning.devices import device_named

V3 = device_named("tpu_v3")
KEYS = {
    *("fits", "argument_bytes", "temp_bytes", "output_bytes", "alias_bytes"),
    *("flops", "bytes_accessed", "roofline", "unsupported_operations"),
}


def test_a_program_that_fits_is_measured():
    result = recorded("mu")
    found = report.make_report(result, LINEAR, device=V3, batch=8)
    assert found.keys() >= KEYS
    assert found["fits"] is True
    assert found["total_bytes"] == (
        result["argument_bytes"]
        + result["temp_bytes"]
        + result["output_bytes"]
        - result["alias_bytes"]
    )
    assert found["headroom_bytes"] == V3.memory_bytes - found["total_bytes"] > 0
    assert found["bytes_accessed"] == result["bytes_accessed"]


def test_a_program_that_is_too_large_says_by_how_much():
    found = report.make_report({"error": TOO_LARGE}, LINEAR, device=V3, batch=8)
    assert found.keys() >= KEYS
    assert found["fits"] is False
    assert found["headroom_bytes"] == pytest.approx((15.48 - 29.30) * 2**30)
    assert found["temp_bytes"] is None
    assert found["argument_bytes"] == program.count_argument_bytes(LINEAR)


def test_an_exhausted_resource_without_a_size_does_not_fit_either():
    error = {"error": "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm."}
    found = report.make_report(error, LINEAR, device=V3, batch=8)
    assert found["fits"] is False
    assert found["headroom_bytes"] is None


@pytest.mark.parametrize(
    "error",
    [
        "RESOURCE_EXHAUSTED: Out of memory allocating 1048576 bytes.",
        "No space left on device",
    ],
)
def test_what_this_machine_lacks_does_not_say_that_it_does_not_fit(error):
    found = report.make_report({"error": error}, LINEAR, device=V3, batch=8)
    assert found["fits"] is None and found["error"] == error


def test_unsupported_operations_are_named():
    found = report.make_report({"error": NOT_KNOWN}, CUSTOM_CALL, device=V3, batch=8)
    assert found["fits"] is None
    assert found["unsupported_operations"] == ["nobody"]
    assert report.make_empty_report(V3).keys() == found.keys()


def test_the_roofline_is_the_slower_of_both():
    # 61.5 TFLOP/s and 450 GB/s: half of what the documentation gives a v3 chip.
    found = report.compute_roofline(
        V3, flops=61.5e12, bytes_accessed=4.5e11 / 4, batch=32
    )
    assert found["bound_by"] == "compute"
    assert found["seconds_at_least"] == 1.0
    assert found["images_per_second_at_most"] == 32.0
    slow = report.compute_roofline(V3, flops=61.5e12, bytes_accessed=9e11, batch=32)
    assert slow["bound_by"] == "memory"
    assert slow["seconds_at_least"] == 2.0
    with pytest.raises(ValueError, match="of t4 is not known"):
        report.compute_roofline(
            device_named("t4"), flops=1.0, bytes_accessed=1.0, batch=1
        )


def test_topologies_name_devices():
    assert report.find_device("v3:2x2") is V3
    assert report.find_device("v5e:4x4").name == "tpu_v5e"


@pytest.mark.parametrize("topology", ["v3", "v7:2x2", "a100:1", "", "v3:"])
def test_another_topology_is_rejected(topology):
    with pytest.raises(ValueError, match=r"`topology` must be VERSION:SIZES"):
        report.find_device(topology)


def test_the_text_starts_with_the_conclusion():
    rest = {
        "per_core_batch": 8,
        "device": "tpu_v3",
        "note": report.NOTE,
        "all_reduce_bytes": 2**30,
    }
    found = report.make_report(recorded("mu"), LINEAR, device=V3, batch=8)
    text = report.format_report({**found, **rest})
    assert text.startswith("8 images per core on tpu_v3 fit: 0.01 of 15.48 GiB")
    assert "900 GB/s" in text
    assert text.endswith("Here: 1.000 GiB.")
    large = report.make_report({"error": TOO_LARGE}, LINEAR, device=V3, batch=8)
    assert "do NOT fit: 29.30 of 15.48 GiB (-13.82)" in report.format_report(
        {**large, **rest}
    )
    unsupported = {**report.make_empty_report(V3), "error": "XLA cannot run: PyFunc."}
    assert "cannot run: PyFunc" in report.format_report({**unsupported, **rest})
