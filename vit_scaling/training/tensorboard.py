"""TensorBoard's event files of a run: scalars, texts, images, hyper-parameters."""
# SPDX-License-Identifier: Apache-2.0

import textwrap
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from etils import epath

_MAX_TEXT = 100  # Characters of a hyper-parameter that are shown.


class TensorBoard:
    """Writes a folder of event files per kind: `train`, and each evaluation set."""

    def __init__(self, model_dir: epath.PathLike) -> None:
        """Take the folder of the run; files are created when first written to."""
        self._directory = epath.Path(model_dir)
        self._writers: dict[str, Any] = {}

    def write_scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Write numbers by name."""
        with self._writer(kind).as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self._writer(kind).flush()

    def write_start(
        self,
        step: int,
        texts: Mapping[str, str],
        settings: Mapping[str, tuple[str, str]],
        images: tf.Tensor,
    ) -> None:
        """Write what a run starts with.

        Args:
            step: Number of updates done.
            texts: By name, such as {"config.gin": …}.
            settings: Hyper-parameters: by key, the name and the value as text.
            images: Training images as the model sees them, (count, height, width, 3) in
                [0, 1].
        """
        # Not at import: it is only needed here and takes a while.
        from tensorboard.plugins.hparams import api as hparams

        with self._writer("train").as_default(step=step):
            for name, text in texts.items():
                tf.summary.text(name, textwrap.indent(text, "    "))  # Markdown's code.
            tf.summary.image("training_images", images, max_outputs=images.shape[0])
            hparams.hparams({n: _shown(value) for n, value in settings.values()})
        self._writer("train").flush()

    def restart(self, step: int, *, evaluates: bool) -> None:
        """Let TensorBoard drop the points that will be written again.

        Args:
            step: Number of updates done: later points are dropped, in every folder.
            evaluates: Whether the evaluation at `step` is repeated too.
        """
        pattern = "*/events.out.tfevents.*"
        kinds = {path.parent.name for path in self._directory.glob(pattern)}
        for kind in sorted(kinds):
            first = step if evaluates and kind != "train" else step + 1
            start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
            event = tf.compat.v1.Event(step=first, session_log=start)
            writer = self._writer(kind)
            # TensorFlow's own writers mark a start by this event. TensorBoard takes
            # the first one of a folder for the run's beginning, which drops nothing.
            for _ in range(2):
                tf.raw_ops.ImportEvent(
                    writer=writer._resource, event=event.SerializeToString()
                )
            writer.flush()

    def _writer(self, kind: str) -> Any:
        if kind not in self._writers:
            folder = str(self._directory / kind)
            self._writers[kind] = tf.summary.create_file_writer(folder)
        return self._writers[kind]


def _shown(value: str) -> float | str:
    """Return a hyper-parameter as a number if it is one, or as a short text."""
    try:
        return float(value)
    except ValueError:
        return textwrap.shorten(value, _MAX_TEXT)
