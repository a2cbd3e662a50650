"""Settings that training and evaluation data share."""
# SPDX-License-Identifier: Apache-2.0

import pytest
import tensorflow as tf

from tests.data import sets
from vit_scaling.data.image_data import Host
from vit_scaling.data.pipeline import EvalData, TrainData


@pytest.mark.parametrize("kind", [TrainData, EvalData])
def test_unknown_policies_and_wrong_numbers_raise(tmp_path, kind):
    source = sets.numbered(tmp_path, [3])
    assert kind(source, image_size=1, classes=3).num_examples == 3
    with pytest.raises(ValueError, match="`on_bad_record` must be one of stop, skip"):
        kind(source, image_size=1, classes=3, on_bad_record="ignore")
    for name in ("image_size", "classes", "block_records", "max_pixels"):
        sizes = {"image_size": 1, "classes": 3, name: 0}
        with pytest.raises(ValueError, match=f"`{name}` must be at least 1"):
            kind(source, **sizes)


def test_one_device_makes_the_entire_batch():
    assert Host.from_context(None) == Host(0, 1, 1)
    assert Host().local_batch_size(7) == 7


def test_hosts_follow_the_strategys_context():
    host = Host.from_context(tf.distribute.InputContext(4, 2, 32))
    assert host == Host(index=2, count=4, replicas=32)
    assert host.local_replicas == 8
    assert host.local_batch_size(64) == 16


@pytest.mark.parametrize("batch", [0, -32, 33, 16])
def test_a_batch_that_replicas_cannot_divide_raises(batch):
    with pytest.raises(ValueError, match=f"batch_size={batch} for 32 replicas"):
        Host(0, 4, 32).local_batch_size(batch)
