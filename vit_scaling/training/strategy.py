"""The tf.distribute strategy of a run: one device, mirrored, many workers or TPU."""
# SPDX-License-Identifier: Apache-2.0

import difflib
import os

import tensorflow as tf
from official.common import distribute_utils

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
        ValueError: Unknown distribution, `tpu` missing or given in vain, or fewer
            logical devices than asked for.
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
    if distribution == "one_device":
        gpus = min(gpus, 1)
    return distribute_utils.get_distribution_strategy(
        distribution, num_gpus=gpus, tpu_address=tpu
    )


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
    return resolver.task_type == "chief" or (
        resolver.task_type == "worker" and not resolver.task_id
    )


def cores(strategy: tf.distribute.Strategy) -> int:
    """Return the cores that core-hours count: replicas, or the processor's on CPU."""
    on_cpu = not is_tpu(strategy) and not tf.config.list_physical_devices("GPU")
    if not on_cpu:
        return strategy.num_replicas_in_sync
    local = max(1, getattr(strategy.extended, "_num_workers", 1))
    return (os.cpu_count() or 1) * local


def compiled_by_xla(
    strategy: tf.distribute.Strategy, asked_for: bool | None = None
) -> bool:
    """Return whether XLA compiles the step: as asked for, else on a single device.

    XLA made the step of a ViT-Ti/16 1.5 times faster on one CPU device; it fails
    inside `strategy.run` with several CPU devices, and TPUs compile by themselves.

    Raises:
        ValueError: It is asked for where TensorFlow cannot.
    """
    alone = strategy.num_replicas_in_sync == 1
    gpus = tf.config.list_physical_devices("GPU")
    if asked_for and not (alone or is_tpu(strategy) or gpus):
        raise ValueError(
            "`jit_compile` needs a single device, since TensorFlow cannot compile for "
            f"several CPU replicas; received {strategy.num_replicas_in_sync} of them. "
            "Leave --jit_compile out."
        )
    if is_tpu(strategy):
        return False
    return alone if asked_for is None else asked_for
