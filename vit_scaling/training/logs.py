"""The log of a run: lines on the screen, JSON lines, TensorBoard summaries."""
# SPDX-License-Identifier: Apache-2.0

import json
import math
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

import tensorflow as tf
from etils import epath

from vit_scaling.training.checkpoint_files import step_folders, write_failure_advice
from vit_scaling.training.checkpoints import FOLDER
from vit_scaling.training.progress import duration_text
from vit_scaling.training.tensorboard import TensorBoard

METRICS_FILE = "metrics.jsonl"


class RunLog:
    """Write records to `metrics.jsonl` and TensorBoard, and short lines to the screen.

    TensorBoard's folders are `model_dir/train` and `model_dir/NAME` per evaluation set.
    """

    def __init__(
        self,
        model_dir: epath.PathLike,
        *,
        writes: bool = True,
        screen: TextIO | None = None,
    ) -> None:
        """Open the log of a run; `writes` is False on workers other than the chief."""
        self._directory = epath.Path(model_dir)
        self.writes = writes
        self._screen = screen or sys.stderr
        self.tensorboard = TensorBoard(model_dir)
        self._appends = False

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Write one record.

        Args:
            kind: "train", an evaluation set's name, or an event such as "roll_back".
            step: Number of updates done.
            values: Numbers, and texts, which go to the JSON lines only.

        Raises:
            OSError: The files could not be written, for instance on a full disk.
        """
        if not self.writes:
            return
        plain = {name: _plain(value) for name, value in values.items()}
        row = {"kind": kind, "step": step, "time": round(time.time(), 3), **plain}
        numbers = {name: v for name, v in plain.items() if isinstance(v, int | float)}
        try:
            self._append(json.dumps(row) + "\n")
            if numbers:
                self.tensorboard.write_scalars(kind, step, numbers)
        except (tf.errors.OpError, OSError) as error:
            raise OSError(
                f"The log of the run could not be written to `{self._directory}`: "
                f"{error}. {write_failure_advice(error)}"
            ) from error

    def say(self, line: str) -> None:
        """Print a line for people, on standard error by default."""
        if self.writes:
            print(line, file=self._screen, flush=True)

    def say_train(self, step: int, total: int, values: Mapping[str, Any]) -> None:
        """Print the progress of training: step, loss, learning rate, speed and ETA."""
        fraction = values.get("share_of_peak")
        self.say(
            f"step {step:>7,}/{total:,} ({step / total:4.0%})"
            f"  loss {float(values['loss']):.4f}"
            f"  lr {float(values['learning_rate']):.2e}"
            f"  {float(values['images_per_second']):,.1f} images/s"
            + (f" ({float(fraction):.1%} of peak)" if fraction is not None else "")
            + f"  ETA {duration_text(float(values['eta_seconds']))}"
        )

    def say_evaluation(
        self, name: str, step: int, values: Mapping[str, Any], seconds: float
    ) -> None:
        """Print the metrics of an evaluation."""
        text = "  ".join(
            f"{key} {float(value):.4f}" if key != "examples" else f"{int(value)} images"
            for key, value in values.items()
        )
        self.say(f"step {step:>7,} {name}: {text}  ({duration_text(seconds)})")

    def _append(self, line: str) -> None:
        path = str(self._directory / METRICS_FILE)
        if not self._appends:
            self._directory.mkdir(parents=True, exist_ok=True)
            line = "\n" * _is_cut_off(path) + line
            self._appends = True
        with tf.io.gfile.GFile(path, "a") as file:
            file.write(line)


def read_metrics(
    model_dir: epath.PathLike, kind: str | None = None
) -> list[dict[str, Any]]:
    """Return the records of a run by step, only the last one written for each step.

    A run that was killed writes some steps again when it resumes. A line that the kill
    cut off is left out.

    Args:
        model_dir: The run's folder.
        kind: Return only records of this kind.
    """
    path = epath.Path(model_dir) / METRICS_FILE
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if kind in (None, row["kind"]):
            rows[row["step"], row["kind"]] = row
    return [rows[key] for key in sorted(rows)]


def check_logged_steps_are_saved(model_dir: epath.PathLike) -> None:
    """Check that a folder with the log of a run has a checkpoint, damaged or not.

    Raises:
        FileNotFoundError: It has none, so that the run would start at step 0 again.
    """
    directory = epath.Path(model_dir) / FOLDER
    if step_folders(directory):
        return
    steps = [row["step"] for row in read_metrics(model_dir, "train")]
    if steps and steps[-1] > 0:
        raise FileNotFoundError(
            f"`{epath.Path(model_dir) / METRICS_FILE}` ends at step {steps[-1]}, but "
            f"`{directory}` has no checkpoint. Put the checkpoints back, or start "
            "again with a new --model_dir."
        )


def _is_cut_off(path: str) -> bool:
    """Whether the last line has no end, because the run was killed as it wrote it."""
    if not tf.io.gfile.exists(path) or not tf.io.gfile.stat(path).length:
        return False
    with tf.io.gfile.GFile(path, "rb") as file:
        file.seek(tf.io.gfile.stat(path).length - 1)
        return file.read(1) != b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    number = float(value)
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else number
