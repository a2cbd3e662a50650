"""The preprocessing that timm's and transformers' configurations define."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from vit_scaling.argument_types import Interpolation, ValueRange
from vit_scaling.run_record import RunRecord

Config = Mapping[str, Any]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Pillow's numbers of filters, in transformers' `resample`.
PILLOW_FILTERS: dict[int, Interpolation] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}
# transformers' processors for which a `size` of one number means the shorter side.
SHORTER_SIDE = ("CLIP", "Bit", "Siglip", "ConvNext")


def value_range(mean: Sequence[float], deviation: Sequence[float]) -> ValueRange:
    """Return the values of pixels 0 and 255 after (pixel / 255 - mean) / deviation."""
    low = tuple(-m / d for m, d in zip(mean, deviation, strict=True))
    high = tuple((1 - m) / d for m, d in zip(mean, deviation, strict=True))
    if len({*low}) == len({*high}) == 1:
        return low[0], high[0]
    return low, high  # type: ignore[return-value]  # Of three channels.


def mean_and_deviation(range_: ValueRange) -> tuple[list[float], list[float]]:
    """Return the inverse of `value_range`, each a list of three numbers."""
    low, high = ([v] * 3 if isinstance(v, int | float) else v for v in range_)
    deviation = [1 / (b - a) for a, b in zip(low, high, strict=True)]
    return [-a * d for a, d in zip(low, deviation, strict=True)], deviation


def record_from_timm(config: Config, image_size: tuple[int, int]) -> RunRecord | None:
    """Return the preprocessing of timm's `create_transform` for a config.json.

    Args:
        config: The hub's config.json, in its present or its older, flat form.
        image_size: (height, width) of the model's images.

    Returns:
        The record, without class names and, where the crop is not supported, without
        a preprocessing; None if the configuration defines no pixel values.
    """
    known = config.get("pretrained_cfg") or config
    if not {"mean", "std", "crop_pct", "interpolation"} & known.keys():
        return None
    mean, deviation = known.get("mean"), known.get("std")
    names = {
        None: "central_crop",
        "center": "central_crop",
        "squash": "squash_and_crop",
    }
    interpolation: Any = known.get("interpolation") or "bicubic"
    is_square = image_size[0] == image_size[1]
    preprocess = names.get(known.get("crop_mode"))
    if not is_square or interpolation not in get_args(Interpolation):
        preprocess = None
    record = RunRecord(
        (),
        image_size,
        value_range=value_range(mean or IMAGENET_MEAN, deviation or IMAGENET_STD),
        preprocess=preprocess,
    )
    if preprocess is None:
        return record
    return dataclasses.replace(
        record,
        resize=math.floor(image_size[0] / (known.get("crop_pct") or 0.875)),
        interpolation=interpolation,
        crop_to_even=True,
    )


def record_from_transformers(
    config: Config, image_size: tuple[int, int]
) -> RunRecord | None:
    """Return the preprocessing of a processor's preprocessor_config.json.

    Args:
        config: The file's content, or {}.
        image_size: (height, width) of the model's images, for which the processor's
            sizes are scaled.

    Returns:
        The record, without class names and, where sizes or filter are not supported,
        without a preprocessing; None if the configuration defines no pixel values.
    """
    if not config:
        return None
    factor = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", 1) else 1
    mean: Sequence[float] | None = (0.0, 0.0, 0.0)
    deviation: Sequence[float] | None = (1.0, 1.0, 1.0)
    if config.get("do_normalize", True):
        mean, deviation = config.get("image_mean"), config.get("image_std")
    if not mean or not deviation:
        return None
    scale = 255 * factor  # Of the values from which the mean is subtracted.
    pixels = value_range([m / scale for m in mean], [d / scale for d in deviation])
    record = RunRecord((), image_size, value_range=pixels, preprocess=None)
    interpolation = PILLOW_FILTERS.get(int(config.get("resample") or 0))
    sizes = _sizes(config)
    if sizes is None or interpolation is None:
        return record
    own = dataclasses.replace(record, **sizes, interpolation=interpolation)
    return own.at_size(image_size)


def _sizes(config: Config) -> dict[str, Any] | None:
    """Return the fields `image_size`, `preprocess` and `resize`; None: unsupported."""
    kind = str(
        config.get("image_processor_type") or config.get("feature_extractor_type")
    )
    size, crop = config.get("size"), config.get("crop_size")
    if not config.get("do_center_crop", bool(crop)):
        crop = None
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
    if isinstance(size, int) and kind.startswith(SHORTER_SIDE):
        size = {"shortest_edge": size}
    elif isinstance(size, int):
        size = {"height": size, "width": size}
    if not size or not config.get("do_resize", True) or config.get("do_pad"):
        return None
    size = {name: value for name, value in size.items() if value}
    target = (crop or size).get("height", 0), (crop or size).get("width", 0)
    if set(size) == {"height", "width"} and size == (crop or size):
        return {"image_size": target, "preprocess": "resize"}
    side = size.get("shortest_edge") or size.get("height", 0)
    if not crop or side != size.get("width", side) or side < max(target):
        return None
    name = "central_crop" if set(size) == {"shortest_edge"} else "squash_and_crop"
    return {"image_size": target, "preprocess": name, "resize": side}


def timm_preprocessing(record: RunRecord) -> dict[str, Any]:
    """Return the entries of timm's `pretrained_cfg` for a record.

    timm has no counterpart of the authors' own resizing (`interpolation` None); the
    closest is its bilinear filter.
    """
    mean, deviation = mean_and_deviation(record.value_range)
    side = max(record.image_size)
    resized = side if record.preprocess == "resize" else record.resize or side * 8 // 7
    ratio = side / resized
    if math.floor(side / ratio) != resized:  # timm divides, and rounds down.
        ratio = side / (resized + 0.25)
    return {
        "mean": mean,
        "std": deviation,
        "interpolation": record.interpolation or "bilinear",
        "crop_pct": ratio,
        "crop_mode": "center" if record.preprocess == "central_crop" else "squash",
    }


def transformers_preprocessing(record: RunRecord) -> dict[str, Any]:
    """Return the content of preprocessor_config.json for a record.

    As in `timm_preprocessing`, the authors' own resizing becomes a bilinear filter.
    """
    mean, deviation = mean_and_deviation(record.value_range)
    height, width = record.image_size
    resized = record.resize or max(record.image_size) * 8 // 7
    crop = {"height": height, "width": width}
    kinds: dict[str | None, dict[str, Any]] = {
        "central_crop": {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": resized},
            "do_center_crop": True,
            "crop_size": crop,
        },
        "squash_and_crop": {
            "image_processor_type": "DeiTImageProcessor",
            "size": {"height": resized, "width": resized},
            "do_center_crop": True,
            "crop_size": crop,
        },
    }
    squashed = {"image_processor_type": "ViTImageProcessor", "size": crop}
    numbers = {name: number for number, name in PILLOW_FILTERS.items()}
    return {
        **kinds.get(record.preprocess, squashed),
        "do_resize": True,
        "resample": numbers[record.interpolation or "bilinear"],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": deviation,
        "do_convert_rgb": True,
    }
