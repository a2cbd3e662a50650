"""The tf.distribute strategy of a run: one device, mirrored, many workers or TPU."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import json
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
from official.common import distribute_utils

from vit_scaling import backend
from vit_scaling.naming import check_known

# Options of the TPU compiler; the preflight compiles with the same. By default XLA
# shards the update of the largest weights over the replicas and sends the new weights
# in float32: more bytes and, for ViT-G/14, 210 collectives instead of one per 122 MB.
TPU_COMPILER_OPTIONS = {"xla_jf_auto_cross_replica_sharding": "false"}
DISTRIBUTIONS = ("one_device", "mirrored", "multi_worker_mirrored", "tpu")


def make_strategy(
    distribution: str = "one_device",
    *,
    tpu: str | None = None,
    num_virtual_devices: int = 0,
) -> tf.distribute.Strategy:
    """Return the strategy under which a run trains and evaluates.

    Args:
        distribution: "one_device" (a GPU where there is one, else the CPU), "mirrored"
            (all local GPUs, or all logical CPUs), "multi_worker_mirrored" (reads
            `TF_CONFIG`) or "tpu".
        tpu: Name or address of the TPU, "local" on a TPU VM. Only for "tpu".
        num_virtual_devices: Logical CPU devices to split the CPU into, for trying
            replicas on a laptop. 0 does not split it.

    Raises:
        ValueError: The distribution is unknown, `tpu` is missing or has no effect,
            virtual devices are given for another distribution than "mirrored" or after
            TensorFlow started, or `TF_CONFIG` names no cluster of workers.
    """
    check_known("distribution", distribution, DISTRIBUTIONS)
    if (distribution == "tpu") != (tpu is not None):
        raise ValueError(
            "`tpu` names the TPU of distribution 'tpu' and goes with no other; "
            f"received distribution={distribution!r}, tpu={tpu!r}. On a TPU VM pass "
            "--distribution=tpu --tpu=local."
        )
    if num_virtual_devices:
        if distribution != "mirrored":
            raise ValueError(
                "`num_virtual_devices` splits the CPU for distribution 'mirrored' and "
                f"goes with no other; received {num_virtual_devices}, "
                f"distribution={distribution!r}. Pass --distribution=mirrored, or "
                "leave it out."
            )
        split_cpu(num_virtual_devices)
    gpus = len(tf.config.list_physical_devices("GPU"))
    grow_gpu_memory()
    if distribution == "mirrored" and not gpus:
        # distribute_utils would make a single replica on CPU:0.
        devices = tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy(
            [device.name for device in devices],
            # The default's collectives clash with those of another strategy of the
            # same process: "Shape mismatch in the collective instance".
            cross_device_ops=tf.distribute.ReductionToOneDevice(),
        )
    if distribution == "multi_worker_mirrored":
        _check_cluster(os.environ.get("TF_CONFIG"))
        # distribute_utils would make the deprecated experimental class.
        return _broadcast_bfloat16_as_float32(
            tf.distribute.MultiWorkerMirroredStrategy()
        )
    if distribution == "one_device":
        gpus = min(gpus, 1)
    if distribution == "tpu":
        # libtpu reads it when it starts. A TPU that is not local has its own.
        options = (f"--{key}={value}" for key, value in tpu_compiler_options().items())
        os.environ["LIBTPU_INIT_ARGS"] = " ".join(options)
    return distribute_utils.get_distribution_strategy(
        distribution, num_gpus=gpus, tpu_address=tpu
    )


def tpu_compiler_options() -> dict[str, str]:
    """Return the TPU compiler's options: LIBTPU_INIT_ARGS, else this package's."""
    words = os.environ.get("LIBTPU_INIT_ARGS", "").split()
    given = (word.lstrip("-").partition("=") for word in words)
    return TPU_COMPILER_OPTIONS | {name: value or "true" for name, _, value in given}


def _check_cluster(config: str | None) -> None:
    """Check that a worker knows its cluster, without which it would train alone.

    Args:
        config: Value of `TF_CONFIG`.

    Raises:
        ValueError: It does not name the workers, or not which of them this process is.
    """
    try:
        content = json.loads(config or "{}")
        is_complete = bool(content["cluster"]) and (
            {"type", "index"} <= content["task"].keys()
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        is_complete = False
    if not is_complete:
        raise ValueError(
            "`distribution` 'multi_worker_mirrored' needs the variable TF_CONFIG to "
            "name all workers and this one, such as "
            '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
            '"task": {"type": "worker", "index": 0}}; received '
            f"TF_CONFIG={config!r}. tools/launch_local_workers.sh sets it for workers "
            "on one machine; a single process takes --distribution=mirrored."
        )


def _broadcast_bfloat16_as_float32(
    strategy: tf.distribute.MultiWorkerMirroredStrategy,
) -> tf.distribute.MultiWorkerMirroredStrategy:
    """Let workers share the initial value of bfloat16 variables, such as a momentum.

    The collective that sends initial values does not support bfloat16. They are sent as
    float32, which represents each of them exactly.
    """
    extended = strategy.extended
    send = extended._get_variable_creator_initial_value

    def initial_value(replica_id: int, **kwargs: Any) -> Callable[[], Any]:
        dtype = kwargs.get("dtype")
        if replica_id or dtype is None or tf.as_dtype(dtype) != tf.bfloat16:
            return send(replica_id, **kwargs)
        initial = kwargs.pop("initial_value")

        def widened() -> tf.Tensor:
            return tf.cast(initial() if callable(initial) else initial, tf.float32)

        kwargs.update(initial_value=widened, dtype=tf.float32)
        value = send(replica_id, **kwargs)
        return lambda: tf.cast(value(), tf.bfloat16)

    extended._get_variable_creator_initial_value = initial_value
    return strategy


def split_cpu(num_virtual_devices: int) -> None:
    """Split the CPU into logical devices; call it before TensorFlow starts.

    Raises:
        ValueError: TensorFlow has started with another number of logical CPUs.
    """
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * num_virtual_devices
        )
    except RuntimeError:  # TensorFlow has started.
        present = len(tf.config.list_logical_devices("CPU"))
        if present != num_virtual_devices:
            raise ValueError(
                f"`num_virtual_devices` must be set before TensorFlow starts; received "
                f"{num_virtual_devices}, but {present} logical CPU devices exist."
            ) from None


def is_tpu(strategy: tf.distribute.Strategy) -> bool:
    """Whether the strategy's replicas are TPU cores."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes checkpoints and logs for all processes."""
    resolver = strategy.cluster_resolver
    if resolver is None or is_tpu(strategy) or not resolver.task_type:
        return True
    if resolver.task_type == "worker":  # The first one, if no task is called chief.
        return not resolver.task_id and "chief" not in resolver.cluster_spec().jobs
    return resolver.task_type == "chief"


def has_several_processes(strategy: tf.distribute.Strategy) -> bool:
    """Whether several workers each run this program in a separate process.

    On a TPU pod one program drives all hosts. Under MultiWorkerMirroredStrategy each
    worker runs its own, and an operation that only one of them starts blocks forever.
    """
    return (
        isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        and getattr(strategy.extended, "_num_workers", 1) > 1
    )


def sum_over_processes(strategy: tf.distribute.Strategy) -> Callable[[int], int]:
    """Return a function from this process's number to the sum over all processes.

    Every process must call it equally often, because each call waits for the others.
    With a single process it is `int`.
    """
    if not has_several_processes(strategy):
        return int
    local_replicas = len(strategy.extended.worker_devices)

    @tf.function(autograph=False)
    def total(number: tf.Tensor) -> tf.Tensor:
        values = strategy.run(tf.identity, args=(number,))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

    # Each of a process's replicas adds the process's number once.
    return lambda number: int(total(tf.constant(number, tf.int64))) // local_replicas


def grow_gpu_memory() -> None:
    """Let each GPU's memory be taken as it is needed, not all at the start.

    Then the peak that TensorFlow reports is the run's own, and several processes can
    share a GPU. Without effect after TensorFlow has started its GPUs.
    """
    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)


def count_cores(strategy: tf.distribute.Strategy) -> int:
    """Return the cores that core-hours count: replicas, or on CPU the hosts' cores.

    Workers on one host share its cores, which count once.
    """
    if is_tpu(strategy) or tf.config.list_physical_devices("GPU"):
        return strategy.num_replicas_in_sync
    resolver = strategy.cluster_resolver
    tasks = resolver.cluster_spec().as_dict() if resolver is not None else {}
    addresses = [*tasks.get("chief", ()), *tasks.get("worker", ())]
    hosts = {address.rpartition(":")[0] for address in addresses}
    return (os.cpu_count() or 1) * max(1, len(hosts))


def count_input_pipelines(strategy: tf.distribute.Strategy) -> int:
    """Return the number of hosts among which the data is sharded."""
    if is_tpu(strategy):
        return int(strategy.extended.num_hosts)
    if not has_several_processes(strategy):
        return 1
    return int(strategy.extended._num_workers)


class XLA(NamedTuple):
    """What XLA compiles: the whole step, or each replica's forward and backward pass.

    It cannot compile the sum over replicas, so it compiles the whole step only under a
    strategy without such a sum.
    """

    whole_step: bool
    each_replica: bool

    @property
    def on(self) -> bool:
        """Whether XLA compiles anything."""
        return self.whole_step or self.each_replica


def choose_xla(strategy: tf.distribute.Strategy, wanted: bool | None = None) -> XLA:
    """Return what XLA compiles.

    On a CPU TensorFlow's own kernels, those of oneDNN, are faster than XLA's, and the
    first step comes sooner. A TPU always compiles, without being asked to.

    Args:
        strategy: The run's strategy.
        wanted: Whether to compile. None: on a single GPU only.
    """
    if is_tpu(strategy):
        return XLA(False, False)
    single = strategy.num_replicas_in_sync == 1
    if wanted is None:
        wanted = single and not backend.has_only_cpus()
    if not wanted:
        return XLA(False, False)
    # These two sum over replicas even if there is only one.
    sums = isinstance(
        strategy,
        tf.distribute.MirroredStrategy | tf.distribute.MultiWorkerMirroredStrategy,
    )
    return XLA(whole_step=single and not sums, each_replica=sums or not single)


def accelerator_name(strategy: tf.distribute.Strategy) -> str | None:
    """Return the manufacturer's name of a replica's accelerator, None for a CPU.

    Such as "NVIDIA A100-SXM4-40GB". On TPU the value of `TPU_ACCELERATOR_TYPE`, such as
    "v3-8", or "TPU" if it is not set.
    """
    if is_tpu(strategy):
        return os.environ.get("TPU_ACCELERATOR_TYPE", "TPU")
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name"))


def measure_cpu_flops_per_core(size: int = 1024, tries: int = 3) -> float:
    """Measure the operations per second and core of a float32 matrix product.

    The best of a few tries is returned, because other programs can only slow it down.
    """
    matrix = tf.random.stateless_normal((size, size), (0, 0))
    product = tf.function(lambda: tf.matmul(matrix, matrix))
    seconds = []
    for _ in range(tries + 1):  # The first try starts the threads.
        started = time.perf_counter()
        product().numpy()
        seconds.append(time.perf_counter() - started)
    return 2.0 * size**3 / min(seconds) / (os.cpu_count() or 1)
