"""Predict the classes of images in files or TFRecords, by an export or a run."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf
from etils import epath

from vit_scaling.class_names import label_maps
from vit_scaling.data.image_data import MAX_PIXELS
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.data.writing.image_checks import UnusableImage, prepare_image
from vit_scaling.data.writing.image_files import scan_folder
from vit_scaling.export import serving_signatures
from vit_scaling.library_messages import short_message
from vit_scaling.run_record import RunRecord


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The best classes of one image.

    Attributes:
        name: File, or file and record number, that the image came from.
        classes: Names of the best classes, best first; none if there is an error.
        probabilities: Their probabilities.
        label: The model's number of the true class where the record holds it, else
            None.
        error: Why the image has no prediction, or None.
    """

    name: str
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    label: int | None = None
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class NamedImage:
    """The bytes of an image file, or the reason why they cannot be read.

    Attributes:
        name: File, or file and record number.
        content: An image file's bytes.
        label: Number of the true class, or None.
        error: Why there is no content, or None.
    """

    name: str
    content: bytes = b""
    label: int | None = None
    error: str | None = None


# (bytes of images) -> (names, probabilities) of the best classes, a row per image.
Predictor = Callable[
    [Sequence[bytes]], tuple[Sequence[Sequence[str]], Sequence[Sequence[float]]]
]
# JPEG, PNG and GIF files need no conversion: the model's own graph decodes them.
_DECODED_IN_GRAPH = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8")


def find_version_folder(saved_model: epath.PathLike) -> epath.Path:
    """Return the folder of `saved_model.pb`: given, or the highest numbered version.

    Raises:
        FileNotFoundError: `saved_model` has no SavedModel.
    """
    folder = epath.Path(saved_model)
    if (folder / "saved_model.pb").is_file():
        return folder
    versions = [
        path.parent
        for path in folder.glob("*/saved_model.pb")
        if path.parent.name.isdigit()
    ]
    if not versions:
        raise FileNotFoundError(
            f"No saved_model.pb in {folder}, nor in its numbered folders. Write one "
            "with vit-scaling export."
        )
    return max(versions, key=lambda path: int(path.name))


def make_local_predictor(saved_model: epath.PathLike) -> Predictor:
    """Return a predictor that runs the SavedModel in this process."""
    folder = find_version_folder(saved_model)
    name = serving_signatures.BYTES_SIGNATURE  # Earlier versions exported it too.
    return _make_predictor(serving_signatures.load_signature(folder, name))


def make_run_predictor(model_dir: epath.PathLike, *, top_k: int = 5) -> Predictor:
    """Return a predictor of a run's newest weights, without an export.

    Args:
        model_dir: Folder of the run.
        top_k: Number of best classes that are returned.
    """
    from vit_scaling.export import run_loading

    model, record = run_loading.load_run(model_dir)
    return make_model_predictor(model, record, top_k=top_k)


def make_model_predictor(
    model: keras.Model, record: RunRecord, *, top_k: int = 5
) -> Predictor:
    """Return a predictor of a model.

    Args:
        model: From images to logits.
        record: Names of its classes, and how an image is prepared.
        top_k: Number of best classes that are returned.
    """
    from vit_scaling.export import run_loading

    run_loading.check_exportable(model, record)
    signatures = serving_signatures.make_signatures(model, record, top_k=top_k)
    signature = signatures[serving_signatures.DEFAULT_SIGNATURE]

    def call(**inputs: tf.Tensor) -> serving_signatures.Outputs:
        _ = model  # The signature borrows its variables, which must stay alive.
        return signature(**inputs)

    return _make_predictor(call)


def _make_predictor(signature: Callable[..., Any]) -> Predictor:
    """Return a predictor that calls a signature of `image_bytes`."""

    def predict_images(
        images: Sequence[bytes],
    ) -> tuple[list[list[str]], list[list[float]]]:
        try:
            outputs = signature(image_bytes=tf.constant(list(images)))
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(
                f"The model refused the images: {short_message(error.message)}"
            ) from error
        if "top_classes" not in outputs:
            raise ValueError(
                "The model has no classifier, so it predicts no classes. Its signature "
                "serving_features gives features; fine-tune it to get classes."
            )
        names = outputs["top_classes"].numpy()
        return (
            [[name.decode() for name in row] for row in names],
            outputs["top_probabilities"].numpy().tolist(),
        )

    return predict_images


def list_image_files(patterns: Sequence[str]) -> list[str]:
    """Return the paths of image files, and of the images in folders and globs, sorted.

    In a folder those files are images that are images for the writer of TFRecords: by
    their suffix or first bytes, not hidden. Subfolders are included. Files that are
    named, or match a glob, are taken as they are.

    Raises:
        FileNotFoundError: A pattern matches no image.
    """
    files: list[str] = []
    for pattern in patterns:
        if epath.Path(pattern).is_dir():
            found = [path for path, _, reason in scan_folder(pattern) if not reason]
        elif epath.Path(pattern).exists():
            found = [pattern]
        else:
            found = sorted(tf.io.gfile.glob(pattern))
        if not found:
            raise FileNotFoundError(f"No image at {pattern}: name files or a folder.")
        files += found
    return files


def read_image_files(files: Iterable[str]) -> Iterator[NamedImage]:
    """Yield the image of each file, or the reason why it cannot be read.

    Formats that only Pillow reads, such as TIFF or a BMP with a palette, are converted
    to PNG, with the pixels that the writer of TFRecords would store.
    """
    for file in files:
        try:
            yield NamedImage(file, _read_image(epath.Path(file)))
        except (OSError, UnusableImage) as error:
            reason = getattr(error, "strerror", None) or str(error)
            yield NamedImage(file, error=reason)


def _read_image(path: epath.Path) -> bytes:
    content = path.read_bytes()
    if content.startswith(_DECODED_IN_GRAPH):
        return content
    return prepare_image(content, max_pixels=MAX_PIXELS).encoded


def read_tfrecord_images(
    pattern: str,
    *,
    image_key: str = "image/encoded",
    label_key: str = "image/class/label",
    class_names: Sequence[str] = (),
) -> Iterator[NamedImage]:
    """Yield the images of the examples in TFRecord files.

    Args:
        pattern: Glob of the files.
        image_key: Feature that holds an image file's bytes.
        label_key: Feature that holds the class's number; may be missing.
        class_names: The model's. Labels of a set with a classes.txt become the numbers
            of the same names; otherwise they are yielded as they are.

    Raises:
        FileNotFoundError: `pattern` matches no file.
        ValueError: An example does not have exactly one image, or a set has a class
            that the model does not have.
    """
    files = sorted(tf.io.gfile.glob(pattern))
    if not files:
        raise FileNotFoundError(f"No TFRecord file matches {pattern}.")
    by_folder = TFRecords(pattern).class_names_by_folder if class_names else {}
    maps = label_maps(by_folder, class_names, reference="the model")
    for file in files:
        label_map = maps.get(os.path.dirname(file))
        for number, record in enumerate(tf.data.TFRecordDataset(file)):
            name = f"{file}:{number}"
            features = tf.train.Example.FromString(record.numpy()).features.feature
            names = sorted(features)  # First: reading a key adds it.
            images = features[image_key].bytes_list.value
            if len(images) != 1:
                raise ValueError(
                    f"{name} holds {len(images)} images under {image_key!r}; name the "
                    f"right one of its features: {', '.join(names)}."
                )
            labels = features[label_key].int64_list.value
            label = labels[0] if labels else None
            if label is not None and label_map is not None:
                if not 0 <= label < len(label_map):
                    raise ValueError(
                        f"{name} has label {label}, and the set's classes.txt names "
                        f"{len(label_map)} classes. Write the set again."
                    )
                label = label_map[label]
            yield NamedImage(name, images[0], label)


def predict(
    images: Iterable[NamedImage], predict_images: Predictor, *, batch_size: int = 16
) -> Iterator[Prediction]:
    """Yield the prediction of each image, in batches of `batch_size`.

    An image that cannot be read, or that the model rejects, has a prediction with an
    `error`; the others of its batch are not affected.

    Raises:
        ValueError: `batch_size` is not positive.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1; received {batch_size}.")
    return _predictions(iter(images), predict_images, batch_size)


def _predictions(
    images: Iterator[NamedImage], predict_images: Predictor, batch_size: int
) -> Iterator[Prediction]:
    while batch := list(itertools.islice(images, batch_size)):
        yield from _predict_batch(batch, predict_images)


def _predict_batch(
    batch: Sequence[NamedImage], predict_images: Predictor
) -> Iterator[Prediction]:
    """Yield the predictions of a batch; image by image if the batch is rejected.

    A decoder's error does not say which image of a request is damaged, and a server may
    have batched the request with other clients' requests.
    """
    contents = [image.content for image in batch if image.error is None]
    try:
        best = iter(zip(*predict_images(contents), strict=True)) if contents else None
    except ValueError as error:
        if len(batch) == 1:
            yield Prediction(batch[0].name, label=batch[0].label, error=str(error))
            return
        for image in batch:
            yield from _predict_batch([image], predict_images)
        return
    for image in batch:
        if best is None or image.error is not None:
            yield Prediction(image.name, label=image.label, error=image.error)
        else:
            classes, probabilities = next(best)
            yield Prediction(
                image.name, tuple(classes), tuple(probabilities), image.label
            )
