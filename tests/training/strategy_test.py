"""Strategies by name, the chief, and what core-hours count."""
# SPDX-License-Identifier: Apache-2.0

import os
import types

import pytest
import tensorflow as tf

from tests.training import small
from vit_scaling.training import strategy as strategies


def test_one_device_is_one_replica():
    strategy = strategies.make_strategy()
    assert strategy.num_replicas_in_sync == 1
    assert isinstance(strategy, tf.distribute.OneDeviceStrategy)


def test_mirrored_without_gpus_takes_every_logical_cpu():
    strategy = strategies.make_strategy("mirrored")
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    assert strategy.num_replicas_in_sync == 4  # tests/conftest.py splits the CPU.


def test_virtual_devices_that_exist_are_taken_and_others_refused():
    tf.config.list_logical_devices("CPU")  # TensorFlow has started.
    strategy = strategies.make_strategy("mirrored", num_virtual_devices=4)
    assert strategy.num_replicas_in_sync == 4
    with pytest.raises(
        ValueError, match=r"`num_virtual_devices` must be set before.*3"
    ):
        strategies.make_strategy("mirrored", num_virtual_devices=3)


def test_a_misspelt_distribution_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'mirrored'"):
        strategies.make_strategy("miror")


@pytest.mark.parametrize(
    "arguments",
    [{"distribution": "tpu"}, {"distribution": "mirrored", "tpu": "local"}],
)
def test_a_tpu_goes_with_its_distribution_and_no_other(arguments):
    with pytest.raises(ValueError, match="`tpu` names the TPU of distribution 'tpu'"):
        strategies.make_strategy(**arguments)


@pytest.mark.parametrize(
    ("task", "number", "chief"),
    [
        ("chief", 0, True),
        ("worker", 0, True),
        ("worker", 1, False),
        ("evaluator", 0, False),
        ("", None, True),
        (None, None, True),
    ],
)
def test_one_process_of_many_is_the_chief(task, number, chief):
    resolver = types.SimpleNamespace(task_type=task, task_id=number)
    many = types.SimpleNamespace(cluster_resolver=resolver)
    assert strategies.is_chief(many) is chief


def test_a_single_process_is_the_chief():
    assert strategies.is_chief(strategies.make_strategy())
    assert strategies.is_chief(small.mirrored(2))


def test_on_a_processor_core_hours_count_its_cores_not_the_virtual_devices():
    assert strategies.cores(small.mirrored(4)) == os.cpu_count()
    assert strategies.cores(strategies.make_strategy()) == os.cpu_count()


def test_xla_is_the_default_on_a_single_device_only():
    assert strategies.compiled_by_xla(strategies.make_strategy())
    assert not strategies.compiled_by_xla(strategies.make_strategy(), False)
    assert not strategies.compiled_by_xla(small.mirrored(2))
    assert not strategies.is_tpu(small.mirrored(2))


def test_xla_for_several_cpu_replicas_is_refused_when_asked_for():
    with pytest.raises(ValueError, match=r"`jit_compile` needs a single device.*2 of"):
        strategies.compiled_by_xla(small.mirrored(2), True)
