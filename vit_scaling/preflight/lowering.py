"""Lower a run's training step to StableHLO, without memory for its variables."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from vit_scaling import backend
from vit_scaling.checks import check_at_least
from vit_scaling.experiment import Experiment
from vit_scaling.preflight import program


class StepLowering:
    """The step of one replica of a run: model, loss, gradients, optimizer, averages.

    Args:
        experiment: From `configurables.Experiment()`. No data is read.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        # Known lengths do not change the program, only constants in it.
        schedule = experiment.schedule
        if not schedule.resolved:
            schedule = schedule.in_steps(
                batch_size=experiment.batch_size, train_examples=1_000_000
            )
        with unfilled_variables():
            self.model = experiment.build_model()
            self.optimizer = experiment.build_optimizer(self.model, schedule)

    def lower(
        self, per_core_batch: int, replicas: int = 1, *, for_tpu: bool = True
    ) -> str:
        """Return the program for a batch, which is pure StableHLO.

        Args:
            per_core_batch: Images of one replica.
            replicas: Number of replicas that exchange gradients.
            for_tpu: Whether layers take their forms for TPUs.

        Raises:
            UnsupportedError: XLA has no kernel for an operation.
            IndivisibleBatchError: The batch is not divisible by the micro-batches.
            ValueError: The batch is below 1.
        """
        check_at_least(1, per_core_batch=per_core_batch)
        inputs, classes = self.model.inputs[0], self.experiment.train_data.classes
        images = tf.TensorSpec((per_core_batch, *inputs.shape[1:]), inputs.dtype)
        labels = tf.TensorSpec((per_core_batch, classes), tf.float32)
        step = self.experiment.make_step(self.model, self.optimizer, replicas=replicas)
        try:
            text = lower_step(step, images, labels, replicas=replicas, for_tpu=for_tpu)
            return program.make_pure_stablehlo(text)
        except ValueError as error:
            # Parsed, because AutoGraph re-raises errors as one of Python's own types.
            match = re.search(r"received micro_batches=(\d+) and a tensor", str(error))
            if match is None or not per_core_batch % int(match[1]):
                raise
            raise program.IndivisibleBatchError(str(error), int(match[1])) from error

    @property
    def parameters(self) -> int:
        """Number of trained weights."""
        return sum(math.prod(v.shape) for v in self.model.trainable_variables)


def lower_step(
    step: Callable[..., Any],
    images: Any,
    labels: Any,
    *,
    replicas: int = 1,
    for_tpu: bool = True,
) -> str:
    """Return a step as TensorFlow's own StableHLO, as XLA compiles it for a device.

    Args:
        step: From {"images", "labels"} to outputs. Its variables are captured.
        images: Specification of the images, of static shape.
        labels: Specification of the labels.
        replicas: Number of replicas over which `ReplicaContext.all_reduce` sums.
        for_tpu: Whether layers take their forms for TPUs.

    Raises:
        UnsupportedError: XLA has no kernel for an operation.
    """

    def replica_step(images: tf.Tensor, labels: tf.Tensor) -> Any:
        with _ReplicaOfSlice(replicas):
            return step({"images": images, "labels": labels})

    function = tf.function(replica_step, jit_compile=True, autograph=False)
    try:
        with backend.lowering_for_tpu() if for_tpu else contextlib.nullcontext():
            return function.experimental_get_compiler_ir(images, labels)(
                stage="stablehlo"
            )
    except (ValueError, tf.errors.OpError) as error:
        # TensorFlow's error names the operations without an XLA kernel.
        names = re.findall(r"(\w+) \(No registered '\1' OpKernel", str(error))
        if not names:
            raise
        raise program.UnsupportedError(sorted(set(names))) from error


class _ReplicaOfSlice(tf.distribute.ReplicaContext):
    """The context of a step that one of several replicas runs, for lowering it.

    TPUStrategy needs a TPU to lower for. Here the step's sums over replicas become
    all-reduces of StableHLO, as they do there.
    """

    def __init__(self, replicas: int) -> None:
        super().__init__(tf.distribute.get_strategy(), replica_id_in_sync_group=0)
        self._replicas = replicas

    @property
    def num_replicas_in_sync(self) -> int:
        return self._replicas

    def all_reduce(self, reduce_op: Any, value: Any, options: Any = None) -> Any:
        # No public operation of TensorFlow lowers to it.
        from tensorflow.compiler.tf2xla.ops import gen_xla_ops

        if reduce_op != tf.distribute.ReduceOp.SUM:
            raise NotImplementedError(f"Only sums are lowered; received {reduce_op}.")
        groups = tf.range(self._replicas)[tf.newaxis]
        return tf.nest.map_structure(
            lambda tensor: gen_xla_ops.xla_all_reduce(
                input=tensor,
                group_assignment=groups,
                reduce_op="Add",
                mode="CrossReplica",
            ),
            value,
        )


@contextlib.contextmanager
def unfilled_variables() -> Iterator[None]:
    """Context manager: variables get their shape, but their memory is never written.

    Only shapes are needed to compile a program, and memory that is not written uses no
    RAM. So G/14's 10.6 GiB of weights and state cost nothing.
    """
    scratch = tf.__internal__.FuncGraph("first_values")

    def creator(next_creator: Callable[..., Any], **arguments: Any) -> Any:
        first = arguments["initial_value"]
        if callable(first):
            with scratch.as_default():  # Built for its shape, never run.
                first = first()
        shape, dtype = first.shape.as_list(), first.dtype
        arguments["initial_value"] = lambda: tf.raw_ops.Empty(
            shape=shape, dtype=dtype, init=False
        )
        return next_creator(**arguments)

    with tf.variable_creator_scope(creator):
        yield
