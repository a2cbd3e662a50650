"""Reports: sizes add up, errors are distinguished, the roofline is a bound."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.preflight.programs import (
    CUSTOM_CALL,
    HLO,
    LINEAR,
    NOT_KNOWN,
    TOO_LARGE,
    recorded,
)
from vit_scaling.preflight import program, report
from vit_scaling.preflight.collectives import find_collectives
from vit_scaling.scaling.planning.devices import device_named

V3 = device_named("tpu_v3")
RESULT = {**recorded("mu"), "collectives": find_collectives(HLO)}
KEYS = {
    *("fits", "argument_bytes", "temp_bytes", "output_bytes", "alias_bytes"),
    *("flops", "bytes_accessed", "roofline", "unsupported_operations"),
    *("collectives", "scaling"),
}


def test_a_program_that_fits_is_measured():
    result = RESULT
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
    with pytest.raises(ValueError, match="of 24GiB is not known"):
        report.compute_roofline(
            device_named("24GiB"), flops=1.0, bytes_accessed=1.0, batch=1
        )


def test_an_exchange_adds_its_time_unless_other_work_hides_it():
    """332 GB/s of a chip's links, 1.024e12 bytes each sent 2 · 3/4 times by 4 chips."""
    size = 1_024_000_000_000
    exchange = {"bytes": size, "bytes_by_kind": {"all-reduce": size}}
    step = {"flops": 61.5e12, "bytes_accessed": 1.0, "batch": 10}
    seconds = 2.0 * 0.75 * size / (340e12 / 1024)
    for hidden, expected in ((0, 1.0 + seconds), (size, seconds)):
        bound = report.compute_roofline(
            V3,
            **step,
            collectives={**exchange, "overlapped_bytes": hidden},
            replicas=8,
        )
        assert bound["exchange_seconds"] == pytest.approx(seconds)
        assert bound["seconds_at_least"] == pytest.approx(expected)


def test_the_efficiency_is_that_of_the_bounds_up_to_a_whole_pod():
    size = 1e9
    exchange = {
        "bytes": size,
        "bytes_by_kind": {"all-reduce": size},
        "overlapped_bytes": 0,
    }
    step = {"flops": 61.5e11, "bytes_accessed": 1.0, "batch": 8}
    rows = report.compute_scaling(V3, **step, collectives=exchange)
    assert [row["replicas"] for row in rows] == [8, 32, 128, 512, 2048]
    assert rows[0]["efficiency"] == 1.0
    per_pass = 2.0 * size / (340e12 / 1024)
    expected = (0.1 + 3 / 4 * per_pass) / (0.1 + 1023 / 1024 * per_pass)
    assert rows[-1]["efficiency"] == pytest.approx(expected)
    v5e = report.compute_scaling(device_named("tpu_v5e"), **step, collectives=exchange)
    assert [row["replicas"] for row in v5e] == [8, 32, 128]  # A pod has 256 chips.


def test_the_text_starts_with_the_conclusion():
    rest = {
        "per_core_batch": 8,
        "device": "tpu_v3",
        "note": report.NOTE,
        "replicas": 8,
    }
    found = report.make_report(RESULT, LINEAR, device=V3, batch=8)
    text = report.format_report({**found, **rest})
    assert text.startswith("8 images per core on tpu_v3 fit: 0.01 of 15.48 GiB")
    assert "900 GB/s" in text
    assert "8 replicas exchange 3 arrays in 2 collectives" in text
    assert "2048 replicas" in text and text.endswith(report.NOTE)
    large = report.make_report({"error": TOO_LARGE}, LINEAR, device=V3, batch=8)
    assert "do NOT fit: 29.30 of 15.48 GiB (-13.82)" in report.format_report(
        {**large, **rest}
    )
    unsupported = {**report.make_empty_report(V3), "error": "XLA cannot run: PyFunc."}
    assert "cannot run: PyFunc" in report.format_report({**unsupported, **rest})
