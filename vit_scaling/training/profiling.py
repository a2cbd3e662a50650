"""A TensorBoard profile of a few chosen steps of a run."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence

import tensorflow as tf
from absl import logging
from etils import epath


class Profiler:
    """Record the operations between two steps, for TensorBoard's profile page.

    Loops must end at both steps (see `RunOptions.loop_length`). A run that resumes
    after the first step records nothing and logs a warning.
    """

    def __init__(
        self,
        model_dir: epath.PathLike,
        steps: Sequence[int] = (),
        *,
        enabled: bool = True,
    ) -> None:
        """Create a profiler that records nothing yet.

        Args:
            model_dir: The profile goes to `model_dir/plugins/profile`.
            steps: Such as (20, 30), which records the steps 21 to 30, or nothing.
            enabled: False for workers other than the chief.
        """
        self._steps = tuple(steps) if enabled else ()
        self._directory = str(model_dir)
        self._is_recording = False
        self._is_first_loop = True

    def before_loop(self, step: int) -> None:
        """Start recording if the loop that begins at `step` is the first to record."""
        if not self._steps:
            return
        if self._is_first_loop and step > self._steps[0]:
            logging.warning(
                "Nothing is profiled: the run continues from step %d, after the first "
                "of --profile_steps=%d,%d.",
                step,
                *self._steps,
            )
        self._is_first_loop = False
        if step == self._steps[0] and not self._is_recording:
            tf.profiler.experimental.start(self._directory)
            self._is_recording = True

    def after_loop(self, step: int) -> None:
        """Write the profile if the last step to record is done."""
        if self._is_recording and step >= self._steps[1]:
            self.close()

    def close(self) -> None:
        """Write the profile if one is being recorded, also an unfinished one."""
        if self._is_recording:
            self._is_recording = False
            tf.profiler.experimental.stop()
