"""Which part of the global batch an input pipeline makes."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Hosts:
    """One host among several.

    Args:
        number: Of this host, from 0.
        count: Of hosts (input pipelines).
        replicas: Of all hosts together.
    """

    number: int = 0
    count: int = 1
    replicas: int = 1

    @classmethod
    def of(cls, context: tf.distribute.InputContext | None) -> "Hosts":
        """Return what a strategy's input context says; None is one device."""
        if context is None:
            return cls()
        return cls(
            context.input_pipeline_id,
            context.num_input_pipelines,
            context.num_replicas_in_sync,
        )

    @property
    def local_replicas(self) -> int:
        """How many replicas this host feeds."""
        return self.replicas // self.count

    def share(self, batch_size: int) -> int:
        """Return how many images of a global batch this host makes.

        Raises:
            ValueError: The replicas cannot have equal shares.
        """
        if batch_size < 1 or batch_size % self.replicas:
            raise ValueError(
                "`batch_size` must be a positive multiple of the number of replicas; "
                f"received batch_size={batch_size} for {self.replicas} replicas."
            )
        return batch_size // self.count
