"""A run's checkpoints, keyed by variable path: save, keep by rules, resume."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from absl import logging
from etils import epath

from vit_scaling.training.checkpoint_files import (
    CorruptCheckpointError,
    checkpoint_folder,
    flush_folder,
    is_remote,
    read_checkpoint,
    remedy,
    remove_checkpoint,
    saved_steps,
    step_folders,
    write_checkpoint,
    write_json,
)

FOLDER = "checkpoints"
_WRITING = ".writing_"  # Before the name of a local checkpoint that is not yet whole.
GLOBAL_STEP = "run/global_step"


def variables_of(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer | None = None,
    global_step: Any = None,
) -> dict[str, Any]:
    """Return the variables that a checkpoint holds, by key.

    Averaged weights are keyed by the path of the weight they average, so that they can
    be read without the optimizer.

    Raises:
        ValueError: Two variables have one path; only one of them could be saved.
    """
    keyed = [(f"model/{variable.path}", variable) for variable in model.variables]
    if optimizer is not None:
        trainable = model.trainable_variables
        averages = optimizer.averages(trainable) or []
        averaged = {id(average) for average in averages}
        keyed += [
            (f"averages/{variable.path}", average)
            for variable, average in zip(trainable, averages, strict=False)
        ]
        keyed += [
            (f"optimizer/{variable.path}", variable)
            for variable in optimizer.variables
            if id(variable) not in averaged
        ]
    if global_step is not None:
        keyed.append((GLOBAL_STEP, global_step))
    named = dict(keyed)
    if len(named) != len(keyed):
        keys = [key for key, _ in keyed]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise ValueError(
            "Variable paths must be unique to be checkpoint keys; more than one "
            f"variable is called {', '.join(twice[:5])}. Give every layer its own name."
        )
    return named


class Checkpoints:
    """Write, keep, verify and read the checkpoints of one `model_dir`."""

    def __init__(
        self,
        model_dir: epath.PathLike,
        *,
        keep_last: int | None = 3,
        keep_every_steps: int | None = None,
        keep_steps: Sequence[int] = (),
        scheduled: Callable[[int], bool] = lambda step: True,
        asynchronous: bool = True,
        writes: bool = True,
    ) -> None:
        """Open the folder `model_dir/checkpoints`, which need not exist.

        Args:
            model_dir: The run's folder.
            keep_last: How many of the newest scheduled checkpoints stay, beside the
                very newest; None: all of them.
            keep_every_steps: Checkpoints at multiples of this many steps stay as well
                (10,000 in the authors' configuration).
            keep_steps: Steps whose checkpoints stay as well.
            scheduled: Whether an undisturbed run saves at a step. What was saved in
                between, as at SIGTERM, must not change what stays or is gone back to.
            asynchronous: Whether files are written by a thread while training goes on.
            writes: False for workers other than the chief, which only read.

        Raises:
            ValueError: `keep_last` or `keep_every_steps` is less than 1.
        """
        for name, number in (
            ("keep_last", keep_last),
            ("keep_every_steps", keep_every_steps),
        ):
            if number is not None and number < 1:
                raise ValueError(f"`{name}` must be at least 1; received {number}.")
        self.directory = epath.Path(model_dir) / FOLDER
        self._keep_last = keep_last
        self._keep_every_steps = keep_every_steps
        self._keep_steps = frozenset(keep_steps)
        self._scheduled = scheduled
        self._asynchronous = asynchronous
        self.writes = writes
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

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
            variables: What `variables_of` returned, and more of the kind.
            state: Plain JSON values: images seen, seconds, seed, metrics so far.

        Raises:
            OSError: An earlier write failed, for instance on a full disk. What was
                saved before it is still there.
        """
        self.wait()
        if not self.writes or step in self.steps():
            return
        values = {
            key: np.asarray(value.numpy())  # A copy already.
            for key, value in variables.items()
        }
        arguments = (step, values, dict(state))
        if self._asynchronous:
            self._thread = threading.Thread(target=self._write, args=arguments)
            self._thread.start()
        else:
            self._write(*arguments)
            self.wait()

    def wait(self) -> None:
        """Wait for the write in the background and raise what went wrong in it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise OSError(
                f"A checkpoint could not be written to `{self.directory}`: {error}. "
                f"Complete checkpoints: {self.steps() or 'none'}. {remedy(error)}."
            ) from error

    def restore(
        self,
        variables: Mapping[str, Any],
        *,
        step: int | None = None,
        scheduled: bool = False,
    ) -> dict[str, Any] | None:
        """Assign a checkpoint's values; return its state, or None where there is none.

        Args:
            variables: The variables to assign, by key; the checkpoint must have exactly
                these keys and shapes.
            step: The checkpoint to read; None takes the newest that is whole, naming
                each that is not.
            scheduled: Whether such as an undisturbed run would have are tried first.

        Raises:
            ValueError: The checkpoint is of another model or optimizer.
            CorruptCheckpointError: It is damaged, and so are all before it.
            FileNotFoundError: There is no checkpoint of `step`.
        """
        # One without its manifest is named as well.
        steps = step_folders(self.directory) if step is None else [step]
        if scheduled:
            is_scheduled = self._scheduled_or_best(self.best())
            steps.sort(key=lambda each: (is_scheduled(each), each))
        damaged = []
        for candidate in reversed(steps):
            try:
                values, manifest = read_checkpoint(self.path(candidate))
            except CorruptCheckpointError as error:
                logging.error("%s The one before it is tried.", error)
                damaged.append(str(error))
                continue
            _check_same_variables(self.path(candidate), variables, values)
            for key, variable in variables.items():
                variable.assign(values[key])
            return {**manifest["state"], "step": manifest["step"]}
        if damaged:
            raise CorruptCheckpointError(
                f"No whole checkpoint is left in `{self.directory}`: "
                f"{' '.join(damaged)}"
            )
        return None

    def discard_after(self, step: int) -> None:
        """Set aside checkpoints newer than `step`: damaged ones and a lost future.

        Half-written ones, of a process that was killed meanwhile, are removed.
        """
        if not self.writes:
            return
        for rest in self.directory.glob(f"{_WRITING}*"):
            logging.warning("`%s` was half-written and is removed.", rest)
            remove_checkpoint(rest)
        for later in step_folders(self.directory):
            if later > step:
                aside = self.path(later).with_name(f"damaged_{later:09d}")
                remove_checkpoint(aside)
                self.path(later).rename(aside)
        best = self.best()
        if best is not None and best["step"] > step:
            (self.directory / "best.json").unlink()

    def mark_best(self, step: int, metric: str, value: float) -> None:
        """Keep the checkpoint of `step` as the best by a metric, once it is written."""
        self.wait()
        if self.writes:
            record = {"step": step, "metric": metric, "value": value}
            write_json(self.directory / "best.json", record)
            self._remove_old()

    def best(self) -> dict[str, Any] | None:
        """Return {"step", "metric", "value"} of the best checkpoint so far, or None."""
        path = self.directory / "best.json"
        return json.loads(path.read_text()) if path.exists() else None

    def _write(
        self, step: int, values: Mapping[str, np.ndarray], state: Mapping[str, Any]
    ) -> None:
        final = self.path(step)
        remote = is_remote(final)
        working = final if remote else final.with_name(f"{_WRITING}{final.name}")
        try:
            for rest in {working, final}:  # Of a write that was cut off.
                remove_checkpoint(rest)
            working.mkdir(parents=True)
            write_checkpoint(working, step, values, state)
            if not remote:
                working.rename(final)
            flush_folder(self.directory)  # Before what came before it is removed.
            self._remove_old()
        except Exception as error:  # In a thread nobody else would hear of it.
            self._error = error
            with contextlib.suppress(OSError):
                remove_checkpoint(working)

    def _remove_old(self) -> None:
        steps = self.steps()
        best = self.best()
        scheduled = list(filter(self._scheduled_or_best(best), steps))
        last = scheduled if self._keep_last is None else scheduled[-self._keep_last :]
        kept = {*last, *self._keep_steps}
        if best is not None:
            kept.add(best["step"])
        for step in step_folders(self.directory):
            every = self._keep_every_steps
            old = bool(steps) and step < steps[-1]
            if old and step not in kept and not (every and step and step % every == 0):
                remove_checkpoint(self.path(step))

    def _scheduled_or_best(
        self, best: Mapping[str, Any] | None
    ) -> Callable[[int], bool]:
        """Return whether an undisturbed run would have a step's checkpoint too."""
        best_step = None if best is None else best["step"]
        return lambda step: self._scheduled(step) or step == best_step


def restore_model(
    model: keras.Model,
    model_dir: epath.PathLike,
    *,
    averages: bool = False,
    step: int | None = None,
) -> int:
    """Assign a run's weights to a model of the same shape; return their step.

    Args:
        model: Built as the run's model was, under any strategy and precision.
        model_dir: The run's folder.
        averages: Whether averaged weights are taken where the run kept them.
        step: Which checkpoint; None takes the newest that is whole.

    Raises:
        FileNotFoundError: The run has no checkpoint (of that step).
        ValueError: The checkpoint is of another model, or has no averages.
    """
    directory = epath.Path(model_dir) / FOLDER
    steps = step_folders(directory) if step is None else [step]
    if not steps:
        raise FileNotFoundError(
            f"`model_dir` must hold a trained run; `{directory}` has no checkpoint."
        )
    wanted = {f"model/{variable.path}": variable for variable in model.variables}
    problems = []
    for candidate in reversed(steps):
        folder = checkpoint_folder(directory, candidate)
        try:
            values, manifest = read_checkpoint(folder, prefixes=["model/", "averages/"])
        except CorruptCheckpointError as error:
            logging.error("%s", error)
            problems.append(str(error))
            continue
        averaged = [key for key in values if key.startswith("averages/")]
        means = {key: values.pop(key) for key in averaged}
        if averages and not means:
            raise ValueError(
                f"`averages` asks for averaged weights, and `{folder}` holds none; "
                "bind the optimizer's `average_decay` when training."
            )
        _check_same_variables(folder, wanted, values)
        for key, variable in wanted.items():
            mean = means.get("averages/" + key.removeprefix("model/"))
            variable.assign(mean if averages and mean is not None else values[key])
        return int(manifest["step"])
    raise CorruptCheckpointError(" ".join(problems))


def _check_same_variables(
    folder: epath.Path, variables: Mapping[str, Any], values: Mapping[str, np.ndarray]
) -> None:
    missing = sorted(set(variables) - set(values))
    left = sorted(set(values) - set(variables))
    other = [
        f"{key} is {tuple(values[key].shape)} there and {tuple(variable.shape)} here"
        for key, variable in sorted(variables.items())
        if key in values and tuple(values[key].shape) != tuple(variable.shape)
    ]
    if missing or left or other:
        told = [f"not in the checkpoint: {', '.join(missing[:3])}"] if missing else []
        told += [f"not in this run: {', '.join(left[:3])}"] if left else []
        told += other[:3]
        raise ValueError(
            f"`model_dir` holds another model or optimizer: `{folder}` differs in "
            f"{len(missing) + len(left) + len(other)} variables ({'; '.join(told)}). "
            "Take a new --model_dir, or the configuration that wrote this one "
            "(its config.gin)."
        )
