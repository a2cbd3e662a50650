"""Checkpoints of a run, keyed by variable path: save, keep by rules, restore."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging
from etils import epath

from vit_scaling import io_files
from vit_scaling.training.checkpoint_files import (
    PARTIAL_PREFIX,
    checkpoint_folder,
    new_checkpoint,
    read_newest,
    remove_checkpoint,
    saved_steps,
    step_folders,
    write_checkpoint,
    write_failure_advice,
)
from vit_scaling.training.checkpoint_variables import (
    assign_values,
    check_same_variables,
    read_variables,
)

FOLDER = "checkpoints"


@dataclasses.dataclass(eq=False)
class Checkpoints:
    """Writes, keeps and reads the checkpoints of one `model_dir`.

    The folder `model_dir/checkpoints` need not exist.

    Attributes:
        model_dir: The run's folder.
        keep_last: Number of the newest scheduled checkpoints to keep, in addition to
            the very newest one. None: keep all.
        keep_every_steps: Multiples of this step are kept as well.
        keep_steps: These steps are kept as well.
        scheduled: Whether an uninterrupted run saves at a step. Checkpoints saved in
            between, as at SIGTERM, do not change which others are kept or which one is
            restored in a roll-back.
        asynchronous: Whether a thread writes files while training continues.
        writes: False for workers other than the chief, which only read.
    """

    model_dir: epath.PathLike
    _: dataclasses.KW_ONLY
    keep_last: int | None = 3
    keep_every_steps: int | None = None
    keep_steps: Sequence[int] = ()
    scheduled: Callable[[int], bool] = lambda step: True
    asynchronous: bool = True
    writes: bool = True
    _thread: threading.Thread | None = None
    _error: Exception | None = None

    @property
    def directory(self) -> epath.Path:
        """Folder of the checkpoints."""
        return epath.Path(self.model_dir) / FOLDER

    def steps(self) -> list[int]:
        """Return the steps of the complete checkpoints, ascending."""
        return saved_steps(self.directory)

    def path(self, step: int) -> epath.Path:
        """Return the folder of the checkpoint of a step."""
        return checkpoint_folder(self.directory, step)

    def save(
        self, step: int, variables: Mapping[str, Any], state: Mapping[str, Any]
    ) -> None:
        """Save values as they are now; the files may be written in the background.

        Args:
            step: Number of updates done.
            variables: By key, as `variables_of` returns them.
            state: Further state as JSON values: images seen, seconds, seed.

        Raises:
            OSError: An earlier write failed, for instance on a full disk. Checkpoints
                before it still exist.
        """
        self.wait()
        if not self.writes or step in self.steps():
            return
        arguments = (step, read_variables(variables), dict(state))
        if self.asynchronous:
            self._thread = threading.Thread(target=self._write, args=arguments)
            self._thread.start()
        else:
            self._write(*arguments)
            self.wait()

    def check(self) -> None:
        """Raise OSError if a write in the background has failed; do not wait for it."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Wait for the write in the background; raise OSError if it failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise OSError(
                f"A checkpoint could not be written to `{self.directory}`: {error}. "
                f"Complete checkpoints: {self.steps() or 'none'}. "
                f"{write_failure_advice(error)}"
            ) from error

    def restore(
        self,
        variables: Mapping[str, Any],
        *,
        step: int | None = None,
        scheduled: bool = False,
    ) -> dict[str, Any] | None:
        """Assign a checkpoint's values; return its state, or None without checkpoints.

        Args:
            variables: The variables to assign, by key. The checkpoint must have exactly
                these keys and shapes.
            step: The checkpoint to read. None takes the newest complete one, and logs
                an error for each newer, damaged one.
            scheduled: Whether checkpoints of an uninterrupted run are tried first.

        Raises:
            ValueError: The checkpoint is of another model or optimizer.
            CorruptCheckpointError: It is damaged, and so are all before it.
            FileNotFoundError: The checkpoint of `step` does not exist.
        """
        # Folders without a manifest are included, so that they are logged as well.
        steps = step_folders(self.directory) if step is None else [step]
        if scheduled:
            is_scheduled = self._scheduled_or_best(self.best())
            steps.sort(key=lambda step: (is_scheduled(step), step))
        if not steps:
            return None
        values, manifest = read_newest(self.directory, steps)
        check_same_variables(self.path(manifest["step"]), variables, values)
        assign_values(variables, values)
        return {**manifest["state"], "step": manifest["step"]}

    def discard_after(self, step: int) -> None:
        """Rename checkpoints newer than `step`, damaged ones or of a rolled-back run.

        Partial ones, of a process that was killed meanwhile, are removed.
        """
        if not self.writes:
            return
        for partial in self.directory.glob(f"{PARTIAL_PREFIX}*"):
            logging.warning("`%s` is incomplete and is removed.", partial)
            remove_checkpoint(partial)
        for later in step_folders(self.directory):
            if later > step:
                discarded = self.path(later).with_name(f"damaged_{later:09d}")
                remove_checkpoint(discarded)
                self.path(later).rename(discarded)
        best = self.best()
        if best is not None and best["step"] > step:
            self._best_file.unlink()

    def mark_best(self, step: int, metric: str, value: float) -> None:
        """Keep the checkpoint of `step` as the best by a metric, once it is written."""
        self.wait()
        if self.writes:
            best = {"step": step, "metric": metric, "value": value}
            io_files.write_json(self._best_file, best)
            self._remove_old()

    def best(self) -> dict[str, Any] | None:
        """Return {"step", "metric", "value"} of the best checkpoint so far, or None.

        A damaged `best.json` is logged and counts as none.
        """
        path = self._best_file
        if not path.exists():
            return None
        try:
            best = io_files.read_json(path)
            return {key: best[key] for key in ("step", "metric", "value")}
        except (IsADirectoryError, KeyError, TypeError, ValueError) as error:
            logging.error(
                "`%s` is damaged: %s. No checkpoint is removed until another is the "
                "best or the file is deleted.",
                path,
                error,
            )
            return None

    @property
    def _best_file(self) -> epath.Path:
        return self.directory / "best.json"

    def _write(
        self, step: int, values: Mapping[str, tf.Tensor], state: Mapping[str, Any]
    ) -> None:
        try:
            with new_checkpoint(self.path(step)) as folder:
                write_checkpoint(folder, step, values, state)
            self._remove_old()
        except Exception as error:  # `wait` raises it in the main thread.
            self._error = error

    def _remove_old(self) -> None:
        steps = self.steps()
        best = self.best()
        if best is None and self._best_file.exists():
            return  # Damaged: the best is one of them.
        scheduled = list(filter(self._scheduled_or_best(best), steps))
        last = scheduled if self.keep_last is None else scheduled[-self.keep_last :]
        kept = {*last, *self.keep_steps}
        if best is not None:
            kept.add(best["step"])
        every = self.keep_every_steps
        for step in step_folders(self.directory):
            is_old = bool(steps) and step < steps[-1]
            is_multiple = every and step and step % every == 0
            if is_old and step not in kept and not is_multiple:
                remove_checkpoint(self.path(step))

    def _scheduled_or_best(
        self, best: Mapping[str, Any] | None
    ) -> Callable[[int], bool]:
        """Return whether an uninterrupted run would have a step's checkpoint too."""
        best_step = None if best is None else best["step"]
        return lambda step: self.scheduled(step) or step == best_step
