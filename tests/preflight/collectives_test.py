"""Collectives are counted once, with their bytes, dtypes and overlap."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.preflight.programs import ASYNCHRONOUS, HLO
from vit_scaling.preflight.collectives import (
    compute_exchange_seconds,
    find_collectives,
)
from vit_scaling.scaling.planning.devices import device_named


def test_each_collective_counts_once_with_the_bytes_of_its_arrays():
    found = find_collectives(HLO)
    kernel, patches = 2 * 1664 * 8192, 2 * 16 * 16 * 3 * 192
    assert found["count"] == 2 and found["arrays"] == 3
    assert found["bytes"] == kernel + patches + 4 * 192
    assert found["bytes_by_dtype"] == {"bf16": kernel + patches, "f32": 4 * 192}
    assert found["count_by_kind"] == {"reduce-scatter": 1, "all-reduce": 1}
    assert found["bytes_by_kind"]["reduce-scatter"] == kernel
    assert found["overlapped_bytes"] == 0


def test_what_runs_between_start_and_done_decides_whether_they_overlap():
    found = find_collectives(ASYNCHRONOUS)
    assert found["count_by_kind"] == {"all-reduce": 1, "all-gather": 1}
    assert found["bytes"] == 2 * 64 * 4
    assert found["overlapped_bytes"] == 64 * 4


def test_a_program_of_one_replica_has_none():
    assert find_collectives("ENTRY %main (p: f32[]) -> f32[] {\n}\n")["count"] == 0


@pytest.mark.parametrize(
    ("device", "replicas", "kind", "factor"),
    [
        ("tpu_v3", 2, "all-reduce", 0.0),  # Two cores of one chip.
        ("tpu_v3", 8, "all-reduce", 2.0 * 3 / 4),
        ("tpu_v3", 2048, "all-reduce", 2.0 * 1023 / 1024),
        ("tpu_v3", 8, "reduce-scatter", 3 / 4),
        ("tpu_v5e", 4, "all-gather", 3 / 4),
    ],
)
def test_the_time_is_that_of_the_least_bytes_a_chip_sends(
    device, replicas, kind, factor
):
    device = device_named(device)
    seconds = compute_exchange_seconds({"bytes_by_kind": {kind: 1e9}}, device, replicas)
    assert seconds == pytest.approx(factor * 1e9 / device.interconnect)
