"""One number for all processes: alone it is one's own."""
# SPDX-License-Identifier: Apache-2.0

import tensorflow as tf

from tests.training import small
from vit_scaling.training import processes


def test_a_single_process_agrees_with_itself():
    for strategy in (tf.distribute.OneDeviceStrategy("CPU:0"), small.mirrored(2)):
        assert not processes.has_several_processes(strategy)
        agree = processes.sum_over_processes(strategy)
        assert agree(0) == 0 and agree(7) == 7


def test_the_sum_counts_each_process_once_whatever_its_replicas(monkeypatch):
    # Two replicas of one process stand in for what a collective sums over; the real
    # thing, in two processes, is in tests/launch_local_workers_test.py.
    monkeypatch.setattr(processes, "has_several_processes", lambda strategy: True)
    agree = processes.sum_over_processes(small.mirrored(2))
    assert agree(0) == 0 and agree(7) == 7 and agree(3) == 3


def test_workers_are_several_processes_replicas_are_not(monkeypatch):
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    assert not processes.has_several_processes(strategy)
    monkeypatch.setattr(strategy.extended, "_num_workers", 2)
    assert processes.has_several_processes(strategy)
