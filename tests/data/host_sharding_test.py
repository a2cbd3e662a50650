"""Which part of the global batch a host makes."""
# SPDX-License-Identifier: Apache-2.0

import pytest
import tensorflow as tf

from vit_scaling.data.host_sharding import Hosts


def test_one_device_makes_all():
    assert Hosts.of(None) == Hosts(0, 1, 1)
    assert Hosts().share(7) == 7


def test_hosts_follow_the_strategys_context():
    hosts = Hosts.of(tf.distribute.InputContext(4, 2, 32))
    assert hosts == Hosts(number=2, count=4, replicas=32)
    assert hosts.local_replicas == 8
    assert hosts.share(64) == 16


@pytest.mark.parametrize("batch", [0, -32, 33, 16])
def test_replicas_get_equal_shares_or_none(batch):
    with pytest.raises(ValueError, match=f"batch_size={batch} for 32 replicas"):
        Hosts(0, 4, 32).share(batch)
