"""The largest batch is found with few probes, however the memory grows."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.preflight.search import find_largest_batch

LIMIT = 100.0


def search(memory, **options):
    """Return the batch found and the batches probed."""
    probed = []

    def probe(batch):
        assert batch not in probed, "a compilation is not repeated"
        probed.append(batch)
        used = memory(batch)
        return used <= LIMIT, used, LIMIT

    return find_largest_batch(probe, **options), probed


@pytest.mark.parametrize("per_image", [0.1, 0.37, 0.9, 2.0, 5.0])
def test_linear_memory_takes_few_probes(per_image):
    found, probed = search(lambda batch: 12.0 + per_image * batch)
    assert found == int((LIMIT - 12.0) / per_image) // 8 * 8
    assert len(probed) <= 6


def test_memory_that_is_not_linear_is_searched_too():
    # Short of memory, a compiler recomputes values instead of storing them.
    def memory(batch):
        return 10.0 + batch if batch < 50 else 60.0 + 0.4 * (batch - 50)

    found, probed = search(memory)
    assert found == 144
    assert len(probed) <= 9


def test_steps_of_one_are_exact():
    found, _ = search(lambda batch: 1.7 * batch, multiple=1)
    assert found == 58


def test_fewer_than_a_multiple_are_found():
    assert search(lambda batch: 30.0 * batch)[0] == 2
    assert search(lambda batch: 90.0 * batch)[0] == 1
    assert search(lambda batch: 900.0 * batch)[0] == 0


def test_sizes_may_be_unknown():
    def probe(batch):
        return batch <= 72, None, LIMIT

    assert find_largest_batch(probe) == 72


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multiple": 12}, "`multiple` must be a power of two; received 12"),
        ({"multiple": 0}, "received 0"),
    ],
)
def test_bad_steps_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        search(lambda batch: 1.0, **options)
