"""The part of a global batch that one host's input pipeline makes."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Host:
    """One of several hosts, each of which reads its part of the data.

    Args:
        index: Number of this host, from 0.
        count: Number of hosts (input pipelines).
        replicas: Number of replicas of all hosts together.
    """

    index: int = 0
    count: int = 1
    replicas: int = 1

    @classmethod
    def from_context(cls, context: tf.distribute.InputContext | None) -> "Host":
        """Convert a strategy's input context; None is a single device."""
        if context is None:
            return cls()
        return cls(
            context.input_pipeline_id,
            context.num_input_pipelines,
            context.num_replicas_in_sync,
        )

    @property
    def local_replicas(self) -> int:
        """Number of replicas that this host feeds."""
        return self.replicas // self.count

    def local_batch_size(self, batch_size: int) -> int:
        """Return the number of images of a global batch that this host makes.

        Raises:
            ValueError: The batch cannot be divided among the replicas.
        """
        if batch_size < 1 or batch_size % self.replicas:
            raise ValueError(
                "`batch_size` must be a positive multiple of the number of replicas; "
                f"received batch_size={batch_size} for {self.replicas} replicas."
            )
        return batch_size // self.count
