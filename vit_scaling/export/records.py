"""Records of models to export: their preprocessing, and models without a run."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Sequence
from typing import Any

from vit_scaling import naming
from vit_scaling.image_preprocessing import EVALUATION_PREPROCESSING
from vit_scaling.run_record import RunRecord

LOSSES = ("softmax_cross_entropy", "sigmoid_cross_entropy")


def with_preprocess(
    record: RunRecord, preprocess: str | None, resize: int | None
) -> RunRecord:
    """Return a record with another preprocessing, or another size before the crop.

    Args:
        record: Record of the run.
        preprocess: Replaces the record's; None keeps it.
        resize: Replaces the record's; None keeps it or, with another `preprocess`,
            takes the default of evaluation.

    Raises:
        ValueError: `preprocess` is unknown, or `resize` is given without a crop.
    """
    if preprocess not in (None, record.preprocess):
        naming.check_known("preprocess", preprocess, EVALUATION_PREPROCESSING)
        default = EVALUATION_PREPROCESSING[preprocess]()
        fields = default.to_record(max(record.image_size))
        record = dataclasses.replace(record, **fields)
    if resize is not None and record.preprocess == "resize":
        raise ValueError(
            "`resize` (--resize) is the size before a crop, and `preprocess` is "
            f"'resize', which crops nothing; received resize={resize}. Leave it out, "
            "or take --preprocess=central_crop."
        )
    return record if resize is None else dataclasses.replace(record, resize=resize)


def make_record(
    input_shape: Sequence[int | None],
    classes: int,
    class_names: Sequence[str] | None = None,
    **fields: Any,
) -> RunRecord:
    """Return a record for a model that was not trained by this package.

    Args:
        input_shape: (batch, height, width, 3) of the model.
        classes: Number of its logits.
        class_names: One per logit; None takes the numbers.
        **fields: Further fields of `RunRecord`. By default images get the central crop
            of evaluation.

    Raises:
        ValueError: The image size is not fixed, or a field has no valid value.
    """
    height, width = input_shape[1:3]
    if not height or not width:
        raise ValueError(
            "The model must take images of a fixed size; its input is of shape "
            f"{tuple(input_shape)}. Build it with `image_size`."
        )
    preprocess, resize = fields.pop("preprocess", None), fields.pop("resize", None)
    names = class_names or tuple(map(str, range(classes)))
    # First without a preprocessing, so that the default size before the crop is used.
    record = RunRecord(tuple(names), (height, width), preprocess=None, **fields)
    return with_preprocess(record, preprocess or "central_crop", resize)
