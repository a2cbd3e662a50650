"""What an export must know of a model beside its weights: the content of run.json."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Sequence
from typing import Any

from vit_scaling.data.preprocessing import CentralCrop, Resize
from vit_scaling.evaluation.images import SquashAndCrop

# How images become a model's input, and what evaluation calls it.
PREPROCESSING: dict[str, CentralCrop | Resize | SquashAndCrop] = {
    "central_crop": CentralCrop(),
    "resize": Resize(),
    "squash_and_crop": SquashAndCrop(),
}
LOSSES = ("softmax_cross_entropy", "sigmoid_cross_entropy")


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What a run says of its model beside the weights: the content of `run.json`.

    Attributes:
        class_names: One name per logit, in the order of the logits; a run whose data
            has no names (none in `run.json`) gets the numbers.
        image_size: (height, width) in pixels of the images that the model takes.
        step: Training step of the weights.
        value_range: (lowest, highest) value of an input pixel.
        loss: "softmax_cross_entropy" or "sigmoid_cross_entropy": which function turns
            the logits into probabilities.
        preprocess: How evaluation made an image of this size: "central_crop" (smaller
            side resized, then cropped), "resize" (whole image, aspect lost) or
            "squash_and_crop" (resized to a square, then cropped); None: by a function
            that no export knows.
        resize: Length in pixels to which an image's smaller side, or the square's, is
            brought before the crop; None, of older runs, is 8/7 of the crop's longer
            side (256 before 224).
    """

    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    step: int = 0
    value_range: tuple[float, float] = (-1.0, 1.0)
    loss: str = "softmax_cross_entropy"
    preprocess: str | None = "central_crop"
    resize: int | None = None

    def __post_init__(self) -> None:
        """Refuse what an export could not honour."""
        if self.loss not in LOSSES:
            raise ValueError(
                f"`loss` must be one of {', '.join(LOSSES)}; received {self.loss!r}."
            )
        if self.preprocess not in (None, *PREPROCESSING):
            raise ValueError(
                f"`preprocess` must be one of {', '.join(PREPROCESSING)}; received "
                f"{self.preprocess!r}."
            )
        if self.resize is not None and self.resize < max(self.image_size):
            raise ValueError(
                "`resize` must be at least the image's size, or the crop would not "
                f"fit; received resize={self.resize}, image_size={self.image_size}."
            )
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            raise ValueError(
                "`image_size` must be (height, width) in pixels, both positive; "
                f"received {self.image_size}."
            )
        low, high = self.value_range
        if not low < high:
            raise ValueError(
                "`value_range` must be (lowest, highest) with lowest < highest; "
                f"received {self.value_range}."
            )

    @property
    def smaller_side(self) -> int:
        """Pixels of an image's smaller side, or the square's, before the crop."""
        return self.resize or round(max(self.image_size) * 8 / 7)

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON's own types."""
        return dataclasses.asdict(self)


def record_from(fields: dict[str, Any], *, source: str) -> RunRecord:
    """Return the record in `fields`, a `run.json` as read; unknown keys are left alone.

    Args:
        fields: Decoded JSON object.
        source: Where it was read, for messages.

    Raises:
        ValueError: A field is missing or has no sense.
    """
    missing = {"class_names", "image_size"} - set(fields)
    if missing:
        raise ValueError(f"{source} says nothing of {', '.join(sorted(missing))}.")
    known = {field.name for field in dataclasses.fields(RunRecord)}
    kept = {key: value for key, value in fields.items() if key in known}
    kept["class_names"] = tuple(str(name) for name in fields["class_names"] or ())
    size = fields["image_size"]
    kept["image_size"] = (
        (size, size) if isinstance(size, int) else tuple(int(side) for side in size)
    )
    if "value_range" in fields:
        kept["value_range"] = tuple(float(value) for value in fields["value_range"])
    return RunRecord(**kept)


def with_preprocess(
    record: RunRecord, preprocess: str | None, resize: int | None
) -> RunRecord:
    """Return a record with another way to prepare images, or another size of it.

    Args:
        record: What the run says.
        preprocess: In place of the record's; None keeps it.
        resize: In place of the record's; None keeps it, or with another `preprocess`
            takes what evaluation has by default.

    Raises:
        ValueError: `preprocess` is none of `PREPROCESSING`, or `resize` comes without a
            crop.
    """
    if preprocess not in (None, record.preprocess):
        record = dataclasses.replace(record, preprocess=preprocess, resize=None)
        known = PREPROCESSING[preprocess].as_recorded(max(record.image_size))
        record = dataclasses.replace(record, **known)
    if resize is not None and record.preprocess == "resize":
        raise ValueError(
            "`resize` (--resize) is the size before a crop, and `preprocess` is "
            f"'resize', which crops nothing; received resize={resize}. Leave it out, "
            "or take --preprocess=central_crop."
        )
    return record if resize is None else dataclasses.replace(record, resize=resize)


def record_of(
    input_shape: Sequence[int | None],
    classes: int,
    class_names: Sequence[str] | None = None,
    **fields: Any,
) -> RunRecord:
    """Return the record of a model that no run of this package recorded.

    Args:
        input_shape: (batch, height, width, 3) of the model.
        classes: Number of its logits.
        class_names: One per logit; None takes the numbers.
        **fields: More of `RunRecord`'s; without `preprocess` and `resize` images get
            the central crop of evaluation.

    Raises:
        ValueError: The model takes images of no fixed size, or a field has no sense.
    """
    height, width = input_shape[1:3]
    if not height or not width:
        raise ValueError(
            "The model must take images of a fixed size; its input is of shape "
            f"{tuple(input_shape)}. Build it with `image_size`."
        )
    preprocess, resize = fields.pop("preprocess", None), fields.pop("resize", None)
    names = class_names or tuple(map(str, range(classes)))
    # Without a way of its own first, so that one is chosen with evaluation's size.
    record = RunRecord(tuple(names), (height, width), preprocess=None, **fields)
    return with_preprocess(record, preprocess or "central_crop", resize)
