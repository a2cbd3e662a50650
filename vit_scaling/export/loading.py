"""Read a trained model back from its model_dir, in float32 unless told otherwise."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json
import os
from typing import Any

import keras
import tensorflow as tf

import vit_scaling.modeling.vit  # noqa: F401  (its layers are found by their names)
from vit_scaling.training import checkpoints

LOWER_PRECISIONS = ("mixed_bfloat16", "mixed_float16", "bfloat16", "float16")
PREPROCESSING = ("central_crop", "resize")
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
            side resized, then cropped) or "resize" (whole image, aspect lost).
        resize: Length in pixels to which an image's smaller side is brought before the
            central crop; None takes 8/7 of the crop's longer side (256 before 224).
    """

    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    step: int = 0
    value_range: tuple[float, float] = (-1.0, 1.0)
    loss: str = "softmax_cross_entropy"
    preprocess: str = "central_crop"
    resize: int | None = None

    def __post_init__(self) -> None:
        """Refuse what an export could not honour."""
        if self.loss not in LOSSES:
            raise ValueError(
                f"`loss` must be one of {', '.join(LOSSES)}; received {self.loss!r}."
            )
        if self.preprocess not in PREPROCESSING:
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
        """Pixels of an image's smaller side before the crop."""
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


def read_record(model_dir: str | os.PathLike[str]) -> RunRecord:
    """Return the record of a run.

    Raises:
        FileNotFoundError: `model_dir` holds no `run.json`.
        ValueError: `run.json` is damaged.
    """
    path = os.path.join(os.fspath(model_dir), "run.json")
    return record_from(_read_json(path, model_dir), source=path)


def load_run(
    model_dir: str | os.PathLike[str],
    *,
    averages: bool = False,
    step: int | None = None,
    float32: bool = True,
) -> tuple[keras.Model, RunRecord]:
    """Return the model of a run with its weights, and the run's record.

    Args:
        model_dir: Folder that a training run wrote: `model.json`, `run.json` and
            `checkpoints/`.
        averages: Take the Polyak averages instead of the weights.
        step: Which checkpoint; None takes the newest.
        float32: Compute in float32 (default: what exports do); False keeps the
            precision of the run.

    Returns:
        (model, record); the record's `step` is the checkpoint's.

    Raises:
        FileNotFoundError: A file of the run is missing.
        ValueError: A file of the run is damaged, or names and logits disagree.
    """
    path = os.path.join(os.fspath(model_dir), "model.json")
    config = _read_json(path, model_dir)
    if float32:
        config = in_float32(config)
    model = keras.models.model_from_json(json.dumps(config))
    record = read_record(model_dir)
    restored = checkpoints.restore_model(
        model, os.fspath(model_dir), averages=averages, step=step
    )
    names = record.class_names or tuple(map(str, range(model.output_shape[-1])))
    record = dataclasses.replace(record, step=int(restored), class_names=names)
    check_classes(model, record)
    return model, record


def load_for_export(
    model_dir: str | os.PathLike[str],
    *,
    averages: bool = False,
    step: int | None = None,
    preprocess: str | None = None,
    resize: int | None = None,
) -> tuple[keras.Model, RunRecord, keras.Model | None]:
    """Return a run's model in float32, its record, and the model as it was run.

    Args:
        model_dir: As the next two, see `load_run`.
        averages: Take the Polyak averages instead of the weights.
        step: Which checkpoint; None takes the newest.
        preprocess: In place of the record's; None keeps it.
        resize: In place of the record's; None keeps it.

    Returns:
        The last is None where the run was in float32.
    """
    model, record = load_run(model_dir, averages=averages, step=step)
    given: dict[str, Any] = {"preprocess": preprocess, "resize": resize}
    chosen = {name: value for name, value in given.items() if value is not None}
    record = dataclasses.replace(record, **chosen)
    as_run, _ = load_run(model_dir, averages=averages, step=record.step, float32=False)
    return model, record, None if computes_in_float32(as_run) else as_run


def check_exportable(model: keras.Model, record: RunRecord) -> None:
    """Raise unless record and model agree and the model computes in float32."""
    check_classes(model, record)
    if not computes_in_float32(model):
        raise ValueError(
            "`model` must compute in float32; load it with `load_run`, which rebuilds "
            "it, or build it with dtype='float32'."
        )


def in_float32(config: Any) -> Any:
    """Return a model's configuration with every lower precision replaced by float32.

    Args:
        config: Decoded `keras.Model.to_json()`.

    Dtype policies, casts written into the graph and tensors' dtypes are all replaced,
    because one cast left over would keep the rounding. Variables are float32 under a
    mixed policy as well, so that the same weights fit.
    """
    if isinstance(config, list):
        return [in_float32(item) for item in config]
    if isinstance(config, dict):
        return {key: in_float32(value) for key, value in config.items()}
    return "float32" if config in LOWER_PRECISIONS else config


def computes_in_float32(model: keras.Model) -> bool:
    """Return whether no layer of the model computes in a lower precision."""
    return all(layer.compute_dtype == "float32" for layer in model.layers)


def check_classes(model: keras.Model, record: RunRecord) -> None:
    """Raise unless the model answers one logit per class name of the record."""
    logits = int(model.output_shape[-1])
    if len(record.class_names) != logits:
        raise ValueError(
            "`class_names` must name every logit: the model answers "
            f"{logits} logits, the record names {len(record.class_names)} classes. "
            "Correct `class_names` in run.json."
        )


def _read_json(path: str, model_dir: str | os.PathLike[str]) -> Any:
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(
            f"No {os.path.basename(path)} in {os.fspath(model_dir)}: `model_dir` must "
            "be a folder that a training run wrote. Train first, or correct the path."
        )
    with tf.io.gfile.GFile(path) as file:
        text = file.read()
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is no whole JSON file ({error}): write it anew."
        ) from error
