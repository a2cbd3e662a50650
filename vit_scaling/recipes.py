"""Settings for training on a set of images, chosen by documented rules.

The rules are a start for thousands to a million images, not a search. Every choice is
a gin binding that can be overridden.
"""
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Sequence
from typing import NamedTuple

from vit_scaling.modeling.shapes import shape_named

SMALL_SIDE = 64  # Images up to this side get a small model with small patches.
MAX_SIDE = 128  # Of larger images, on a CPU; give IMAGE_SIZE for more.
MIN_TOKENS_PER_SIDE = 8
MAX_BATCH = 128
MIN_STEPS, MAX_STEPS, EPOCHS = 300, 20_000, 40
HELD_OUT = 0.1
_SMALL = "@small/ViTShape()"


class Choice(NamedTuple):
    """A gin binding, and the reason for its value."""

    name: str
    value: str
    reason: str

    @property
    def binding(self) -> str:
        """The binding as gin reads it."""
        return f"{self.name} = {self.value}"


def choose_settings(
    *,
    classes: int,
    train_images: int,
    median_side: int,
    shape: str | None = None,
    total_steps: int | None = None,
) -> list[Choice]:
    """Return the bindings of a run, each with its reason.

    Args:
        classes: Number of classes.
        train_images: Number of training images.
        median_side: Median of the images' smaller sides, in pixels.
        shape: A row of Table 2, or NAME/PATCH; None chooses by the images' size.
        total_steps: Length of the run; None chooses it by the number of images.
    """
    batch = _batch_size(train_images)
    steps = total_steps or _total_steps(train_images, batch)
    return [
        *_model(median_side, shape),
        Choice("CLASSES", str(classes), "classes of the training images"),
        Choice(
            "HEAD_BIAS",
            f"{0.0 - math.log(max(classes - 1, 1)):.2f}",
            f"ln(1 / {max(classes - 1, 1)}): all classes are as likely at first",
        ),
        Choice(
            "BATCH_SIZE",
            str(batch),
            f"a power of two, at least 8 batches in {train_images:,} images, at most "
            f"{MAX_BATCH}",
        ),
        *choose_lengths(steps, batch, train_images),
    ]


def gin_files(choices: Sequence[Choice]) -> list[str]:
    """Return the gin files that the choices are bound over."""
    files = ["experiments/folder.gin"]
    if any(choice.value == _SMALL for choice in choices):
        files.append("models/small.gin")
    return files


def choose_lengths(steps: int, batch: int, train_images: int) -> list[Choice]:
    """Return the bindings of a run's lengths."""
    epochs = steps * batch / train_images
    return [
        Choice("TOTAL_STEPS", str(steps), f"{epochs:.0f} passes over the images"),
        Choice("WARMUP_STEPS", str(max(1, steps // 10)), "a tenth of the steps"),
        Choice("TIMESCALE", str(max(1, steps // 10)), "as the warm-up"),
        Choice("COOLDOWN_STEPS", str(max(1, steps // 2)), "half of the steps"),
        Choice("STEPS_PER_LOOP", str(min(50, max(1, steps // 10))), "a line each"),
        Choice("CHECKPOINT_EVERY", str(max(1, steps // 4)), "four in a run"),
        Choice("EVAL_EVERY", str(max(1, steps // 4)), "four in a run"),
    ]


def _batch_size(train_images: int) -> int:
    largest = max(8, min(MAX_BATCH, train_images // 8))
    return 2 ** int(math.log2(largest))


def _total_steps(train_images: int, batch: int) -> int:
    return max(MIN_STEPS, min(MAX_STEPS, round(EPOCHS * train_images / batch)))


def _model(side: int, shape: str | None) -> list[Choice]:
    """Return the shape, the image size and the training images' preprocessing."""
    if shape is not None:
        patch = shape_named(shape).patch
        size = max(MIN_TOKENS_PER_SIDE, min(round(side / patch), 224 // patch)) * patch
        chosen = [Choice("SHAPE", repr(shape), "as given")]
    elif side <= SMALL_SIDE:
        size = max(16, round(side / 4) * 4)
        chosen = [
            Choice("SHAPE", _SMALL, f"images of {side} pixels are small"),
            Choice("small/ViTShape.patch", str(size // 4), "16 patches an image"),
        ]
    else:
        size = min(MAX_SIDE, round(side / 16) * 16)
        chosen = [Choice("SHAPE", "'Ti/16'", "the smallest row of Table 2 for a CPU")]
    reason = f"near the images' median side, {side}, in whole patches"
    chosen.append(Choice("IMAGE_SIZE", str(size), reason))
    if side <= SMALL_SIDE:
        padding = str(max(1, size // 8))
        chosen += [
            Choice("TrainData.preprocess", "@small/PaddedCrop()", "small images"),
            Choice("small/PaddedCrop.padding", padding, "an eighth of the image"),
            Choice("EvalData.preprocess", "@Resize()", "small images are not cropped"),
        ]
    return chosen
