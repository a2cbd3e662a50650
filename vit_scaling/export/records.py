"""Records of models to export: their preprocessing, and models without a run."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from absl import logging

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
    known: RunRecord | None = None,
    **fields: Any,
) -> RunRecord:
    """Return a record for a model that was not trained by this package.

    Args:
        input_shape: (batch, height, width, 3) of the model.
        classes: Number of its logits.
        class_names: One per logit; None takes those that are known, or the numbers.
        known: The record that came with the weights.
        **fields: Fields of `RunRecord` that replace the known ones. By default images
            get the central crop of evaluation.

    Raises:
        ValueError: The image size is not fixed, `class_names` contradict the known
            ones, or a field has no valid value.
    """
    height, width = input_shape[1:3]
    if not height or not width:
        raise ValueError(
            "The model must take images of a fixed size; its input is of shape "
            f"{tuple(input_shape)}. Build it with `image_size`."
        )
    preprocess, resize = fields.pop("preprocess", None), fields.pop("resize", None)
    if known is None:
        # Without a preprocessing, so that the default size before the crop is used.
        known = RunRecord((), (height, width), preprocess=None)
        preprocess = preprocess or "central_crop"
    names = _choose_names(class_names, known.class_names)
    names = names or tuple(map(str, range(classes)))
    record = dataclasses.replace(
        known.at_size((height, width)), class_names=names, **fields
    )
    return with_preprocess(record, preprocess, resize)


def _choose_names(
    given: Sequence[str] | None, known: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the class names in the order of the logits.

    Raises:
        ValueError: The given names contradict the known ones.
    """
    given = tuple(given or ())
    if not given or not known or given == known:
        return given or known
    if sorted(given) == sorted(known):
        logging.warning(
            "The file of --class_names lists the model's classes in another order; the "
            "model's own order is used."
        )
        return known
    if set(given).isdisjoint(known) and len(given) == len(known):
        logging.warning("The model's classes (%s, …) are renamed.", known[0])
        return given
    place = next(
        n for n, pair in enumerate(zip_longest(given, known)) if len({*pair}) > 1
    )
    raise ValueError(
        f"`class_names` (--class_names) has {len(given)} names, and "
        f"{(*given, None)[place]!r} for class {place}, where the model's {len(known)} "
        f"have {(*known, None)[place]!r}. Leave it out to take the model's names."
    )
