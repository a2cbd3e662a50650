"""The record of a training run, `run.json`: one dataclass for writer and readers."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args

from etils import epath

from vit_scaling import io_files
from vit_scaling.argument_types import Interpolation, ValueRange
from vit_scaling.checks import check_value_range
from vit_scaling.naming import check_known

RUN_FILE = "run.json"
FORMAT_VERSION = 1  # Files without a version are older; they have the same fields.
# Names of the evaluation preprocessing that exports can repeat.
PREPROCESSING_NAMES = ("central_crop", "resize", "squash_and_crop")


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What later programs need to know of a run besides its model and weights.

    Attributes:
        class_names: One name per logit, in the order of the logits. Empty if the data
            has no names: an export then uses the numbers.
        image_size: (height, width) in pixels of the images that the model takes.
        step: Training step of exported weights; 0 in a `run.json`.
        value_range: (lowest, highest) value of an input pixel; two numbers or, for
            channels that differ, two triples of red, green and blue.
        loss: Name of the loss function.
        preprocess: How evaluation prepares an image: "central_crop" (resize the smaller
            side, then crop), "resize" (whole image, aspect lost) or "squash_and_crop"
            (resize to a square, then crop). None: by another function.
        resize: Length in pixels to which an image's smaller side, or the square's, is
            resized before the crop. None, in records of older versions, is 8/7 of the
            crop's longer side (256 before 224).
        interpolation: Filter of Pillow by which images are resized, with anti-aliasing:
            "bilinear", "bicubic" or "lanczos". None: as the authors do, by areas before
            a central crop, else bilinearly without anti-aliasing.
        crop_to_even: Whether the crop starts at the even number where a margin is half
            a pixel (torchvision), instead of being rounded down.
        seed: Seed of the run.
        evaluates_averages: Whether the run's averaged weights count instead of the last
            ones: training evaluates them, and later programs take them by default.
        weights: Which weights an export holds, "averaged" or "last"; None in a
            `run.json`, and for exports of files.
        initial_weights: Where the weights came from that training started with, and
            which variables kept initial values; None: all of them did.
        train_images: Number of different training images; None: not recorded.
        parameters: Number of trained weights; None: not recorded.
        versions: Versions of the packages that trained, by name.
        format_version: Version of the file format.

    Raises:
        ValueError: A field has no valid value.
    """

    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    step: int = 0
    value_range: ValueRange = (-1.0, 1.0)
    loss: str = "softmax_cross_entropy"
    preprocess: str | None = "central_crop"
    resize: int | None = None
    interpolation: Interpolation | None = None
    crop_to_even: bool = False
    seed: int = 0
    evaluates_averages: bool = False
    weights: str | None = None
    initial_weights: Mapping[str, Any] | None = None
    train_images: int | None = None
    parameters: int | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.preprocess is not None:
            check_known("preprocess", self.preprocess, PREPROCESSING_NAMES)
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            raise ValueError(
                "`image_size` must be (height, width) in pixels, both positive; "
                f"received {self.image_size}."
            )
        if self.resize is not None and self.resize < max(self.image_size):
            raise ValueError(
                "`resize` must be at least the image's size, or the crop would not "
                f"fit; received resize={self.resize}, image_size={self.image_size}."
            )
        if self.interpolation is not None:
            check_known("interpolation", self.interpolation, get_args(Interpolation))
        check_value_range(self.value_range)

    def at_size(self, image_size: tuple[int, int]) -> "RunRecord":
        """Return the record for images of another size, with the same ratio of crop."""
        if self.resize is None:
            return dataclasses.replace(self, image_size=image_size)
        resize = round(self.resize * max(image_size) / max(self.image_size))
        return dataclasses.replace(self, image_size=image_size, resize=resize)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON's own types."""
        return io_files.to_json_types(dataclasses.asdict(self))


def save_run_record(model_dir: epath.PathLike, record: RunRecord) -> None:
    """Write `run.json` atomically.

    Raises:
        OSError: The file could not be written; an earlier one is unchanged.
    """
    io_files.write_json(epath.Path(model_dir) / RUN_FILE, record.as_dict())


def load_run_record(model_dir: epath.PathLike) -> RunRecord:
    """Read the `run.json` of a run's folder, of this version or an older one.

    Raises:
        FileNotFoundError: The folder has no `run.json`.
        ValueError: The file is damaged, or its format is newer than this code.
    """
    record = find_run_record(model_dir)
    if record is None:
        raise FileNotFoundError(
            "`model_dir` must be the folder of a training run; "
            f"`{epath.Path(model_dir) / RUN_FILE}` is missing. Train first, or correct "
            "the path."
        )
    return record


def find_run_record(model_dir: epath.PathLike) -> RunRecord | None:
    """Read a folder's `run.json`; return None if the file does not exist.

    Raises:
        ValueError: The file is damaged, or its format is newer than this code.
    """
    path = epath.Path(model_dir) / RUN_FILE
    if not path.exists():
        return None
    return record_from_json(io_files.read_json(path), source=str(path))


def uses_averages(model_dir: epath.PathLike, requested: bool | None = None) -> bool:
    """Whether a run's averaged weights are taken instead of the last ones.

    Args:
        model_dir: Folder of the run.
        requested: The user's choice. None: those that the run itself evaluates, as its
            `run.json` says; without that file, the last ones.
    """
    if requested is not None:
        return requested
    record = find_run_record(model_dir)
    return record is not None and record.evaluates_averages


def record_from_json(fields: Mapping[str, Any], *, source: str) -> RunRecord:
    """Return the record of a decoded JSON object; unknown keys are ignored.

    Args:
        fields: Decoded `run.json`, or the record in an exported model.
        source: The file's path, for error messages.

    Raises:
        ValueError: A field is missing or has no valid value, or the format is newer
            than this code.
    """
    version = fields.get("format_version", FORMAT_VERSION)
    if version > FORMAT_VERSION:  # Its fields may have other meanings.
        raise ValueError(
            f"{source} has format version {version}, newer than {FORMAT_VERSION}, the "
            "newest known here. Install a later vit_scaling."
        )
    missing = {"class_names", "image_size"} - set(fields)
    if missing:
        raise ValueError(f"{source} lacks {', '.join(sorted(missing))}.")
    names = {field.name for field in dataclasses.fields(RunRecord)}
    known = {key: value for key, value in fields.items() if key in names}
    size = fields["image_size"]
    known["class_names"] = tuple(str(name) for name in fields["class_names"] or ())
    known["image_size"] = (
        (size, size) if isinstance(size, int) else tuple(int(side) for side in size)
    )
    if "value_range" in fields:
        known["value_range"] = tuple(
            tuple(value) if isinstance(value, list) else float(value)
            for value in fields["value_range"]
        )
    try:
        return RunRecord(**known)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
