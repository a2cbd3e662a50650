"""Which part of the global batch a host makes."""
# SPDX-License-Identifier: Apache-2.0

import pytest
import tensorflow as tf

from vit_scaling.data.host_sharding import Host


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
