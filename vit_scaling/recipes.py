"""Settings for training on a set of images, chosen by documented rules.

The rules are a start for thousands to a million images, not a search. Every choice is
a gin binding that can be overridden.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vit_scaling.modeling.shapes import SHAPES, ViTShape, shape_named

SMALL_SIDE = 64  # Images up to this side get a small model with small patches.
MAX_SIDE = 128  # Of larger images, on a CPU; give IMAGE_SIZE for more.
MIN_TOKENS_PER_SIDE = 8
MAX_BATCH = 128
MIN_STEPS, MAX_STEPS, EPOCHS = 300, 20_000, 40
# Fine-tuning of weights that are trained (App. D: 20,000 steps of 512 on ImageNet).
FINETUNING_EPOCHS, MIN_FINETUNING_STEPS = 8, 200
HELD_OUT = 0.1
# Options of `vit` that weights are trained with; the head is chosen apart.
_OPTIONS = (
    "position",
    "approximate_gelu",
    "norm_epsilon",
    "layer_scale",
    "qk_norm",
    "register_tokens",
    "norm_before_blocks",
    "norm_after_pooling",
)
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
    steps = total_steps or max(
        MIN_STEPS, min(MAX_STEPS, round(EPOCHS * train_images / batch))
    )
    return [
        *_model(median_side, shape),
        Choice(
            "HEAD_BIAS",
            f"{0.0 - math.log(max(classes - 1, 1)):.2f}",
            f"ln(1 / {max(classes - 1, 1)}): all classes are as likely at first",
        ),
        *_choose_batch(classes, train_images, batch),
        *_choose_lengths(steps, batch, train_images),
        Choice("TIMESCALE", str(max(1, steps // 10)), "as the warm-up"),
        Choice("COOLDOWN_STEPS", str(max(1, steps // 2)), "half of the steps"),
    ]


def choose_finetuning(
    source: str,
    arguments: Mapping[str, Any],
    *,
    value_range: Any,
    classes: int,
    train_images: int,
    median_side: int,
    total_steps: int | None = None,
) -> list[Choice]:
    """Return the bindings of a fine-tuning run, each with its reason (App. D).

    Args:
        source: Where the weights come from, as `load_for_finetuning` takes it.
        arguments: Of `vit`, as the weights were trained.
        value_range: Values of pixels 0 and 255 that the weights were trained with.
        classes: Number of classes.
        train_images: Number of training images.
        median_side: Median of the images' smaller sides, in pixels.
        total_steps: Length of the run; None chooses it by the number of images.

    Raises:
        ValueError: The weights are for images that are not square.
    """
    batch = _batch_size(train_images)
    epochs = round(FINETUNING_EPOCHS * train_images / batch)
    steps = total_steps or max(MIN_FINETUNING_STEPS, min(MAX_STEPS, epochs))
    of_weights = "as the weights were trained"
    head = "gap" if arguments["head"] == "none" else arguments["head"]
    fixed = {
        "HEAD": head,
        "IMAGE_SIZE": _side(arguments["image_size"]),
        **{f"vit.{name}": arguments[name] for name in _OPTIONS if name in arguments},
        "TrainData.value_range": value_range,
        "EvalData.value_range": value_range,
    }
    small = []
    if median_side <= SMALL_SIDE:
        small = [Choice("EvalData.preprocess", "@Resize()", "small images")]
    return [
        Choice("INITIAL_WEIGHTS", repr(source), "as given"),
        *_bind_shape(arguments["shape"], of_weights),
        *(Choice(name, repr(value), of_weights) for name, value in fixed.items()),
        Choice("BASE_LEARNING_RATE", "0.01", "the lower of the paper's two rates"),
        *small,
        *_choose_batch(classes, train_images, batch),
        *_choose_lengths(steps, batch, train_images),
    ]


def gin_files(choices: Sequence[Choice]) -> list[str]:
    """Return the gin files that the choices are bound over."""
    if any(choice.name == "INITIAL_WEIGHTS" for choice in choices):
        return ["experiments/finetune.gin"]
    files = ["experiments/folder.gin"]
    if any(choice.value == _SMALL for choice in choices):
        files.append("models/small.gin")
    return files


def _choose_batch(classes: int, train_images: int, batch: int) -> list[Choice]:
    return [
        Choice("CLASSES", str(classes), "classes of the training images"),
        Choice(
            "BATCH_SIZE",
            str(batch),
            f"a power of two, at least 8 batches in {train_images:,} images, at most "
            f"{MAX_BATCH}",
        ),
    ]


def _choose_lengths(steps: int, batch: int, train_images: int) -> list[Choice]:
    epochs = steps * batch / train_images
    return [
        Choice("TOTAL_STEPS", str(steps), f"{epochs:.0f} passes over the images"),
        Choice("WARMUP_STEPS", str(max(1, steps // 10)), "a tenth of the steps"),
        Choice("STEPS_PER_LOOP", str(min(50, max(1, steps // 10))), "a line each"),
        Choice("CHECKPOINT_EVERY", str(max(1, steps // 4)), "four in a run"),
        Choice("EVAL_EVERY", str(max(1, steps // 4)), "four in a run"),
    ]


def _batch_size(train_images: int) -> int:
    largest = max(8, min(MAX_BATCH, train_images // 8))
    return 2 ** int(math.log2(largest))


def _side(image_size: int | tuple[int, int]) -> int:
    """Return the side of square images.

    Raises:
        ValueError: They are not square.
    """
    sides = {image_size} if isinstance(image_size, int) else set(image_size)
    if len(sides) > 1:
        raise ValueError(
            f"The weights are for images of {image_size} pixels; training needs square "
            "ones. Give IMAGE_SIZE and the other settings by --gin_file=experiments/"
            "finetune.gin."
        )
    return sides.pop()


def _bind_shape(shape: ViTShape, reason: str) -> list[Choice]:
    """Return the bindings of a shape: its name, or its sizes."""
    for known in SHAPES:
        name = f"{known.partition('/')[0]}/{shape.patch}"
        if shape_named(name) == shape:
            return [Choice("SHAPE", repr(name), reason)]
    sizes = [
        Choice(f"init/ViTShape.{name}", str(value), reason)
        for name, value in dataclasses.asdict(shape).items()
    ]
    return [Choice("SHAPE", "@init/ViTShape()", reason), *sizes]


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
