"""Records of models to export: their preprocessing, and models without a run."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Sequence
from typing import Any

from vit_scaling.data.preprocessing import CentralCrop, Resize
from vit_scaling.evaluation.images import SquashAndCrop
from vit_scaling.run_record import RunRecord

# How images become a model's input, and what evaluation calls it.
PREPROCESSING: dict[str, CentralCrop | Resize | SquashAndCrop] = {
    "central_crop": CentralCrop(),
    "resize": Resize(),
    "squash_and_crop": SquashAndCrop(),
}
LOSSES = ("softmax_cross_entropy", "sigmoid_cross_entropy")


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
