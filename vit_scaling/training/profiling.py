"""A TensorBoard profile of a few chosen steps of a run."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence

import tensorflow as tf
from etils import epath


class Profiler:
    """Record what runs between two steps, for TensorBoard's profile page.

    Loops must end at both steps (`steps`, given to `run.loop_length`). A run that
    starts again after the first of them records nothing.
    """

    def __init__(
        self, model_dir: epath.PathLike, steps: Sequence[int] = (), *, on: bool = True
    ) -> None:
        """Take the folder of the run, and (first step left out, last step) or nothing.

        Args:
            model_dir: The profile goes to `model_dir/plugins/profile`.
            steps: Such as (20, 30), which records the steps 21 to 30.
            on: False for workers that leave it to the chief.

        Raises:
            ValueError: `steps` is not a pair of rising steps.
        """
        self.steps = tuple(int(step) for step in steps)
        if self.steps and not (
            len(self.steps) == 2 and 0 <= self.steps[0] < self.steps[1]
        ):
            raise ValueError(
                "`profile_steps` must be two rising steps, such as 20,30; received "
                f"{','.join(map(str, steps))}."
            )
        self._directory = str(model_dir)
        self._on = on
        self._runs = False

    def __enter__(self) -> "Profiler":
        """Return it; on leaving the `with`, what was recorded is written."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def before_loop(self, step: int) -> None:
        """Start recording if a loop that begins at `step` is the first to record."""
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
