"""A TensorBoard profile of a few chosen steps of a run."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence

import tensorflow as tf
from absl import logging
from etils import epath


class Profiler:
    """Record what runs between two steps, for TensorBoard's profile page.

    Loops must end at both steps (`steps`, given to `run.loop_length`). A run that
    starts again after the first of them records nothing, and says so.
    """

    def __init__(
        self,
        model_dir: epath.PathLike,
        steps: Sequence[int] = (),
        total_steps: int | None = None,
        *,
        on: bool = True,
    ) -> None:
        """Take the folder of the run, and (first step left out, last step) or nothing.

        Args:
            model_dir: The profile goes to `model_dir/plugins/profile`.
            steps: Such as (20, 30), which records the steps 21 to 30.
            total_steps: Length of the run, if known.
            on: False for workers that leave it to the chief.

        Raises:
            ValueError: `steps` is not a pair of rising steps, or begins at the end.
        """
        self.steps = tuple(int(step) for step in steps)
        if self.steps and not (
            len(self.steps) == 2 and 0 <= self.steps[0] < self.steps[1]
        ):
            raise ValueError(
                "`profile_steps` must be two rising steps, such as 20,30; received "
                f"{','.join(map(str, steps))}."
            )
        if self.steps and total_steps is not None and self.steps[0] >= total_steps:
            raise ValueError(
                f"`profile_steps` must begin before the run's end, step {total_steps}; "
                f"received {self.steps[0]},{self.steps[1]}."
            )
        self._directory = str(model_dir)
        self._on = on
        self._runs = False
        self._begun = False

    def __enter__(self) -> "Profiler":
        """Return it; on leaving the `with`, what was recorded is written."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def before_loop(self, step: int) -> None:
        """Start recording if a loop that begins at `step` is the first to record."""
        if self._on and self.steps and step > self.steps[0] and not self._begun:
            logging.warning(
                "Nothing is profiled: the run goes on from step %d, after the first of "
                "--profile_steps=%d,%d.",
                step,
                *self.steps,
            )
        self._begun = True
        if self._on and self.steps and step == self.steps[0] and not self._runs:
            tf.profiler.experimental.start(self._directory)
            self._runs = True

    def after_loop(self, step: int) -> None:
        """Write the profile once the last step to record is done."""
        if self._runs and step >= self.steps[1]:
            self.close()

    def close(self) -> None:
        """Write what was recorded, if recording runs."""
        if self._runs:
            self._runs = False
            tf.profiler.experimental.stop()
