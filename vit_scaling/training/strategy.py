"""The tf.distribute strategy of a run: one device, mirrored, many workers or TPU."""
# SPDX-License-Identifier: Apache-2.0

import difflib
import json
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
from official.common import distribute_utils

from vit_scaling.training.agreement import has_several_processes

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
            replicas on a laptop; 0 leaves it whole.

    Raises:
        ValueError: Unknown distribution, `tpu` missing or given in vain, virtual
            devices for another distribution than "mirrored" or other ones than exist,
            or workers without a cluster in `TF_CONFIG`.
    """
    _check_arguments(distribution, tpu, num_virtual_devices)
    if num_virtual_devices:
        split_cpu(num_virtual_devices)
    gpus = len(tf.config.list_physical_devices("GPU"))
    if distribution == "mirrored" and not gpus:
        # distribute_utils makes one replica on CPU:0, whatever the number of devices.
        devices = tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy(
            [device.name for device in devices],
            # The default's collectives clash with those of another strategy that the
            # process made: "Shape mismatch in the collective instance".
            cross_device_ops=tf.distribute.ReductionToOneDevice(),
        )
    if distribution == "multi_worker_mirrored":
        _check_cluster(os.environ.get("TF_CONFIG"))
        # distribute_utils makes its deprecated namesake.
        return _broadcasting_bfloat16(tf.distribute.MultiWorkerMirroredStrategy())
    if distribution == "one_device":
        gpus = min(gpus, 1)
    return distribute_utils.get_distribution_strategy(
        distribution, num_gpus=gpus, tpu_address=tpu
    )


def _check_arguments(
    distribution: str, tpu: str | None, num_virtual_devices: int
) -> None:
    """Refuse what `make_strategy` cannot make.

    Raises:
        ValueError: As `make_strategy` says.
    """
    if distribution not in DISTRIBUTIONS:
        nearest = difflib.get_close_matches(distribution, DISTRIBUTIONS, 1, 0.0)[0]
        raise ValueError(
            f"`distribution` must be one of {', '.join(DISTRIBUTIONS)}; received "
            f"{distribution!r}. Did you mean {nearest!r}?"
        )
    if (distribution == "tpu") != (tpu is not None):
        raise ValueError(
            "`tpu` names the TPU of distribution 'tpu' and goes with no other; "
            f"received distribution={distribution!r}, tpu={tpu!r}. On a TPU VM pass "
            "--distribution=tpu --tpu=local."
        )
    if num_virtual_devices and distribution != "mirrored":
        raise ValueError(
            "`num_virtual_devices` splits the CPU for distribution 'mirrored' and goes "
            f"with no other; received num_virtual_devices={num_virtual_devices}, "
            f"distribution={distribution!r}. Pass --distribution=mirrored, or leave it "
            "out."
        )


def _check_cluster(config: str | None) -> None:
    """Refuse workers that know of no cluster: each would train alone, and none say so.

    Raises:
        ValueError: `config`, which is `TF_CONFIG`, names no workers or not which of
            them this process is.
    """
    try:
        read = json.loads(config or "{}")
        complete = bool(read["cluster"]) and {"type", "index"} <= read["task"].keys()
    except (AttributeError, KeyError, TypeError, ValueError):
        complete = False
    if not complete:
        raise ValueError(
            "`distribution` 'multi_worker_mirrored' needs the variable TF_CONFIG to "
            "name all workers and this one, such as "
            '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
            '"task": {"type": "worker", "index": 0}}; received '
            f"TF_CONFIG={config!r}. tools/launch_local_workers.sh sets it for workers "
            "on one machine; a single process takes --distribution=mirrored."
        )


def _broadcasting_bfloat16(
    strategy: tf.distribute.MultiWorkerMirroredStrategy,
) -> tf.distribute.MultiWorkerMirroredStrategy:
    """Let workers share the first value of bfloat16 variables, such as a momentum.

    The collective that sends first values takes no bfloat16: they go as float32, which
    holds each of them exactly.
    """
    extended = strategy.extended
    sent = extended._get_variable_creator_initial_value

    def first_value(replica_id: int, **kwargs: Any) -> Callable[[], Any]:
        dtype = kwargs.get("dtype")
        if replica_id or dtype is None or tf.as_dtype(dtype) != tf.bfloat16:
            return sent(replica_id, **kwargs)
        made = kwargs.pop("initial_value")

        def widened() -> tf.Tensor:
            return tf.cast(made() if callable(made) else made, tf.float32)

        kwargs.update(initial_value=widened, dtype=tf.float32)
        value = sent(replica_id, **kwargs)
        return lambda: tf.cast(value(), tf.bfloat16)

    extended._get_variable_creator_initial_value = first_value
    return strategy


def split_cpu(num_virtual_devices: int) -> None:
    """Split the CPU into logical devices, which must happen before TensorFlow starts.

    Raises:
        ValueError: TensorFlow has started with another number of logical CPUs.
    """
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * num_virtual_devices
        )
    except RuntimeError:  # TensorFlow has started: then the number must fit already.
        present = len(tf.config.list_logical_devices("CPU"))
        if present != num_virtual_devices:
            raise ValueError(
                f"`num_virtual_devices` must be set before TensorFlow starts; received "
                f"{num_virtual_devices}, but {present} logical CPU devices exist."
            ) from None


def is_tpu(strategy: tf.distribute.Strategy) -> bool:
    """Return whether the strategy's replicas are TPU cores."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Return whether this process writes checkpoints and logs for all."""
    resolver = strategy.cluster_resolver
    if resolver is None or is_tpu(strategy) or not resolver.task_type:
        return True
    if resolver.task_type == "worker":  # The first of them, where none is called chief.
        return not resolver.task_id and "chief" not in resolver.cluster_spec().jobs
    return resolver.task_type == "chief"


def cores(strategy: tf.distribute.Strategy) -> int:
    """Return the cores that core-hours count: replicas, or the processors' on CPU.

    Workers of one host share its processor, which counts once.
    """
    on_cpu = not is_tpu(strategy) and not tf.config.list_physical_devices("GPU")
    if not on_cpu:
        return strategy.num_replicas_in_sync
    return (os.cpu_count() or 1) * len(_hosts(strategy))


def input_pipelines(strategy: tf.distribute.Strategy) -> int:
    """Return how many hosts read their own part of the data: workers, a pod's hosts."""
    if is_tpu(strategy):
        return int(strategy.extended.num_hosts)
    if not has_several_processes(strategy):
        return 1
    return int(strategy.extended._num_workers)


def _hosts(strategy: tf.distribute.Strategy) -> set[str]:
    """Return the hosts of the workers that train; of a single process, one."""
    resolver = strategy.cluster_resolver
    tasks = resolver.cluster_spec().as_dict() if resolver is not None else {}
    addresses = [one for job in ("chief", "worker") for one in tasks.get(job, ())]
    return {address.rpartition(":")[0] for address in addresses} or {"this one"}


class XLA(NamedTuple):
    """What XLA compiles: the whole step, or each replica's forward and backward pass.

    It cannot compile the sum over replicas, so the whole step only under a strategy
    that has none.
    """

    whole_step: bool
    each_replica: bool

    @property
    def on(self) -> bool:
        """Whether it compiles anything."""
        return self.whole_step or self.each_replica


def xla_of(strategy: tf.distribute.Strategy, asked_for: bool | None = None) -> XLA:
    """Return what XLA compiles: as asked for, else the step on a single device.

    It made the step of a ViT-Ti/16 1.5 times faster on one CPU device. TPUs compile by
    themselves.
    """
    if is_tpu(strategy):
        return XLA(False, False)
    single = strategy.num_replicas_in_sync == 1
    if not (single if asked_for is None else asked_for):
        return XLA(False, False)
    # These two sum over replicas even where there is but one.
    sums = isinstance(
        strategy,
        tf.distribute.MirroredStrategy | tf.distribute.MultiWorkerMirroredStrategy,
    )
    return XLA(whole_step=single and not sums, each_replica=sums or not single)


def accelerator(strategy: tf.distribute.Strategy) -> str | None:
    """Return what a replica runs on, as its maker calls it; None for a processor.

    Such as "NVIDIA A100-SXM4-40GB", or "v3-8" where a TPU's machine says so in
    `TPU_ACCELERATOR_TYPE` (else "TPU").
    """
    if is_tpu(strategy):
        return os.environ.get("TPU_ACCELERATOR_TYPE", "TPU")
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name"))


def processor_peak_flops_per_core(size: int = 1024, tries: int = 3) -> float:
    """Return the operations a second of a float32 matrix product, per core.

    Measured here and now, the best of a few tries: what else the machine does counts
    against it.
    """
    matrix = tf.random.stateless_normal((size, size), (0, 0))
    product = tf.function(lambda: tf.matmul(matrix, matrix))
    seconds = []
    for _ in range(tries + 1):  # The first one starts the threads.
        started = time.perf_counter()
        product().numpy()
        seconds.append(time.perf_counter() - started)
    return 2.0 * size**3 / min(seconds) / (os.cpu_count() or 1)
