"""Strategies by name, the chief, and what core-hours count."""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import types

import pytest
import tensorflow as tf

from tests.training import small
from vit_scaling import backend
from vit_scaling.training import strategy as strategies


def test_one_device_is_one_replica():
    strategy = strategies.make_strategy()
    assert strategy.num_replicas_in_sync == 1
    assert isinstance(strategy, tf.distribute.OneDeviceStrategy)


def test_mirrored_without_gpus_takes_every_logical_cpu():
    strategy = strategies.make_strategy("mirrored")
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    assert strategy.num_replicas_in_sync == 4  # tests/conftest.py splits the CPU.


def test_virtual_devices_go_with_mirrored_and_no_other():
    with pytest.raises(ValueError, match=r"`num_virtual_devices`.*goes with no other"):
        strategies.make_strategy("one_device", num_virtual_devices=4)


def test_virtual_devices_that_exist_are_taken_and_others_refused():
    tf.config.list_logical_devices("CPU")  # TensorFlow has started.
    strategy = strategies.make_strategy("mirrored", num_virtual_devices=4)
    assert strategy.num_replicas_in_sync == 4
    with pytest.raises(
        ValueError, match=r"`num_virtual_devices` must be set before.*3"
    ):
        strategies.make_strategy("mirrored", num_virtual_devices=3)


def test_a_misspelt_distribution_is_rejected_with_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'mirrored'"):
        strategies.make_strategy("mirored")


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
@pytest.mark.parametrize("with_chief", [False, True])
def test_one_process_of_many_is_the_chief(task, number, chief, with_chief):
    jobs = {"worker": ["a:1", "b:1"], "evaluator": ["d:1"]}
    if with_chief:
        jobs["chief"] = ["c:1"]
        chief = chief and task != "worker"
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(jobs), task_type=task, task_id=number
    )
    many = types.SimpleNamespace(cluster_resolver=resolver)
    assert strategies.is_chief(many) is chief


ONE_WORKER = json.dumps(
    {
        "cluster": {"worker": ["127.0.0.1:0"]},
        "task": {"type": "worker", "index": 0},
    }
)


@pytest.mark.parametrize(
    "config", [None, "", "{}", '{"cluster": {}}', '{"task": {"type": "worker"}}', "[1"]
)
def test_workers_without_a_cluster_are_rejected(config, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match=r"`distribution`.*TF_CONFIG.*\"worker\""):
        strategies.make_strategy("multi_worker_mirrored")


def test_a_single_process_is_the_chief():
    assert strategies.is_chief(strategies.make_strategy())
    assert strategies.is_chief(small.mirrored(2))


def test_on_a_processor_core_hours_count_its_cores_not_the_virtual_devices():
    assert strategies.count_cores(small.mirrored(4)) == os.cpu_count()
    assert strategies.count_cores(strategies.make_strategy()) == os.cpu_count()


@pytest.mark.parametrize(
    ("cluster", "hosts"),
    [
        ({"worker": ["127.0.0.1:41", "127.0.0.1:42"]}, 1),
        ({"worker": ["a:41", "b:41", "a:42"], "evaluator": ["c:41"]}, 2),
        ({"chief": ["a:41"], "worker": ["b:41"]}, 2),
        ({}, 1),
    ],
)
def test_workers_of_one_host_share_its_processor(cluster, hosts):
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster)
    )
    workers = sum(map(len, cluster.values()))
    many = types.SimpleNamespace(
        cluster_resolver=resolver, extended=types.SimpleNamespace(_num_workers=workers)
    )
    assert strategies.count_cores(many) == hosts * os.cpu_count()


def test_each_worker_and_each_host_of_a_pod_reads_its_own_part(monkeypatch):
    assert strategies.count_input_pipelines(small.mirrored(2)) == 1
    workers = tf.distribute.MultiWorkerMirroredStrategy()
    assert strategies.count_input_pipelines(workers) == 1
    monkeypatch.setattr(workers.extended, "_num_workers", 3)
    assert strategies.count_input_pipelines(workers) == 3
    pod = tf.distribute.TPUStrategy.__new__(tf.distribute.TPUStrategy)
    pod._extended = types.SimpleNamespace(num_hosts=4)
    assert strategies.count_input_pipelines(pod) == 4


def test_xla_compiles_the_step_of_a_cpu_only_where_asked():
    one = strategies.make_strategy()
    assert not strategies.choose_xla(one).on
    assert not strategies.choose_xla(one, False).on
    assert strategies.choose_xla(one, True) == (True, False)


def test_xla_compiles_the_whole_step_of_a_single_gpu_by_default(monkeypatch):
    monkeypatch.setattr(backend, "has_only_cpus", lambda: False)
    one = strategies.make_strategy()
    assert strategies.choose_xla(one) == (True, False)
    assert not strategies.choose_xla(one, False).on


def test_xla_leaves_the_sum_over_a_single_replica_out(monkeypatch):
    monkeypatch.setattr(backend, "has_only_cpus", lambda: False)
    assert strategies.choose_xla(small.mirrored(1)) == (False, True)
    alone = tf.distribute.MultiWorkerMirroredStrategy()
    assert strategies.choose_xla(alone) == (False, True)
    assert strategies.choose_xla(tf.distribute.get_strategy()) == (True, False)


def test_xla_compiles_what_precedes_the_sum_over_replicas_where_asked():
    two = small.mirrored(2)
    assert not strategies.choose_xla(two).on
    assert (
        strategies.choose_xla(two, True) == (False, True)
        and strategies.choose_xla(two, 1).on
    )


def test_a_tpu_compiles_with_the_options_of_the_preflight(monkeypatch):
    """A local TPU's compiler reads LIBTPU_INIT_ARGS; the user's own values win."""
    name = "xla_jf_auto_cross_replica_sharding"
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_other=3 --xla_flag")
    monkeypatch.setattr(
        strategies.distribute_utils,
        "get_distribution_strategy",
        lambda *args, **kwargs: os.environ["LIBTPU_INIT_ARGS"],
    )
    words = strategies.make_strategy("tpu", tpu="local").split()
    assert set(words) == {f"--{name}=false", "--xla_flag=true", "--xla_other=3"}
    monkeypatch.setenv("LIBTPU_INIT_ARGS", f"--{name}=true")
    assert strategies.tpu_compiler_options() == {name: "true"}


def test_a_tpu_compiles_by_itself():
    tpu = tf.distribute.TPUStrategy.__new__(tf.distribute.TPUStrategy)
    assert strategies.is_tpu(tpu)
    assert not strategies.choose_xla(tpu, True).on


def test_a_processor_is_no_accelerator_and_its_peak_is_measured(monkeypatch):
    assert strategies.accelerator_name(small.mirrored(2)) is None
    assert strategies.measure_cpu_flops_per_core(size=64) > 0
    tpu = tf.distribute.TPUStrategy.__new__(tf.distribute.TPUStrategy)
    monkeypatch.setenv("TPU_ACCELERATOR_TYPE", "v3-8")
    assert strategies.accelerator_name(tpu) == "v3-8"


def test_workers_of_one_process_start_with_bfloat16_variables():
    # Not by `make_strategy`: a cluster's collectives must precede all else.
    alone = tf.distribute.MultiWorkerMirroredStrategy()
    strategy = strategies._broadcast_bfloat16_as_float32(alone)
    with strategy.scope():
        momentum = tf.Variable(lambda: tf.fill([3], 1.5), dtype=tf.bfloat16)
        other = tf.Variable([1.0, 2.0])
    assert momentum.dtype == tf.bfloat16
    assert tf.cast(momentum, tf.float32).numpy().tolist() == [1.5] * 3
    assert other.numpy().tolist() == [1.0, 2.0]


def test_a_single_process_agrees_with_itself():
    for strategy in (tf.distribute.OneDeviceStrategy("CPU:0"), small.mirrored(2)):
        assert not strategies.has_several_processes(strategy)
        agree = strategies.sum_over_processes(strategy)
        assert agree(0) == 0 and agree(7) == 7


def test_the_sum_counts_each_process_once_whatever_its_replicas(monkeypatch):
    # Two replicas of one process stand in for what a collective sums over; the real
    # thing, in two processes, is in tests/workers_test.py.
    monkeypatch.setattr(strategies, "has_several_processes", lambda strategy: True)
    agree = strategies.sum_over_processes(small.mirrored(2))
    assert agree(0) == 0 and agree(7) == 7 and agree(3) == 3


def test_workers_are_several_processes_replicas_are_not(monkeypatch):
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    assert not strategies.has_several_processes(strategy)
    monkeypatch.setattr(strategy.extended, "_num_workers", 2)
    assert strategies.has_several_processes(strategy)
