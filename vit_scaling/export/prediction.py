"""Predict the classes of images in files or TFRecords, by an export or a run."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import glob
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from vit_scaling.data.image_data import MAX_PIXELS
from vit_scaling.data.writing.image_checks import UnusableImage, prepare_image
from vit_scaling.export import image_decoding, serving_signatures
from vit_scaling.run_record import RunRecord


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The best classes of one image.

    Attributes:
        name: File, or file and record number, that the image came from.
        classes: Names of the best classes, best first.
        probabilities: Their probabilities.
        label: Number of the true class where the record holds it, else None.
    """

    name: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    label: int | None = None


# (bytes of images) -> (names, probabilities) of the best classes, a row per image.
Predictor = Callable[
    [Sequence[bytes]], tuple[Sequence[Sequence[str]], Sequence[Sequence[float]]]
]
NamedImage = tuple[str, bytes, int | None]


def find_version_folder(saved_model: str | os.PathLike[str]) -> pathlib.Path:
    """Return the folder of `saved_model.pb`: given, or the highest numbered version.

    Raises:
        FileNotFoundError: `saved_model` has no SavedModel.
    """
    folder = pathlib.Path(saved_model)
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
            "with tools/export.py."
        )
    return max(versions, key=lambda path: int(path.name))


def make_local_predictor(saved_model: str | os.PathLike[str]) -> Predictor:
    """Return a predictor that runs the SavedModel in this process."""
    loaded = tf.saved_model.load(str(find_version_folder(saved_model)))
    if serving_signatures.BYTES_SIGNATURE not in loaded.signatures:
        raise ValueError(
            f"{saved_model} has no signature "
            f"{serving_signatures.BYTES_SIGNATURE!r}. Export it with tools/export.py."
        )
    return _make_predictor(
        loaded.signatures[serving_signatures.BYTES_SIGNATURE], loaded
    )


def make_run_predictor(
    model_dir: str | os.PathLike[str], *, top_k: int = 5
) -> Predictor:
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
    return _make_predictor(signatures[serving_signatures.TOP_SIGNATURE], model)


def _make_predictor(signature: Callable[..., Any], owner: Any) -> Predictor:
    """Return a predictor that calls a signature; `owner` keeps its variables alive."""

    def predict_images(
        images: Sequence[bytes],
    ) -> tuple[list[list[str]], list[list[float]]]:
        _ = owner
        try:
            outputs = signature(image_bytes=tf.constant(list(images)))
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(
                f"The model refused the images: {error.message}"
            ) from error
        names = outputs["top_classes"].numpy()
        return (
            [[name.decode() for name in row] for row in names],
            outputs["top_probabilities"].numpy().tolist(),
        )

    return predict_images


def read_image_files(patterns: Sequence[str]) -> Iterator[NamedImage]:
    """Yield (name, bytes, None) of image files, folders and glob patterns, sorted.

    Images of other formats than JPEG and PNG are converted to PNG, with the pixels that
    training would see. Files of a folder that are no images, or damaged, are skipped
    and named in a warning.

    Raises:
        FileNotFoundError: A pattern matches no image.
        ValueError: A file that was named is not an image, or is damaged.
    """
    for pattern in patterns:
        path = pathlib.Path(pattern)
        if path.is_dir():
            yield from _read_folder(path)
            continue
        names = [str(path)] if path.is_file() else sorted(glob.glob(pattern))
        if not names:
            raise FileNotFoundError(f"No image at {pattern}: name files or a folder.")
        for name in names:
            yield name, _read_as_jpeg_or_png(pathlib.Path(name)), None


def _read_folder(folder: pathlib.Path) -> Iterator[NamedImage]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    skipped, count = [], 0
    for path in files:
        try:
            content = _read_as_jpeg_or_png(path)
        except ValueError as error:
            skipped.append(str(error))
            continue
        count += 1
        yield str(path), content, None
    if not count:
        raise FileNotFoundError(f"No image at {folder}: name files or a folder.")
    if skipped:
        logging.warning(
            "%d of %d files of %s were skipped: %s",
            len(skipped),
            len(files),
            folder,
            "; ".join(skipped[:5]),
        )


def _read_as_jpeg_or_png(path: pathlib.Path) -> bytes:
    """Return a file's bytes, or the image as PNG if it is of another format."""
    content = path.read_bytes()
    if content.startswith((image_decoding.JPEG_START, image_decoding.PNG_START)):
        return content
    try:
        image = prepare_image(content, max_pixels=MAX_PIXELS, reencode="png")
    except UnusableImage as error:
        raise ValueError(f"{path}: {error}") from None
    return image.encoded


def read_tfrecord_images(
    pattern: str,
    *,
    image_key: str = "image/encoded",
    label_key: str = "image/class/label",
) -> Iterator[NamedImage]:
    """Yield (name, bytes, label) of the examples in TFRecord files.

    Args:
        pattern: Glob of the files.
        image_key: Feature that holds an image file's bytes.
        label_key: Feature that holds the class's number; may be missing.

    Raises:
        FileNotFoundError: `pattern` matches no file.
        ValueError: An example does not have exactly one image.
    """
    files = sorted(tf.io.gfile.glob(pattern))
    if not files:
        raise FileNotFoundError(f"No TFRecord file matches {pattern}.")
    for file in files:
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
            yield name, images[0], labels[0] if labels else None


def predict(
    images: Iterable[NamedImage], predict_images: Predictor, *, batch_size: int = 16
) -> Iterator[Prediction]:
    """Yield the prediction of each image, in batches of `batch_size`.

    Raises:
        ValueError: `batch_size` is not positive, or the model refuses an image: the
            message names it.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1; received {batch_size}.")
    return _predictions(iter(images), predict_images, batch_size)


def _predictions(
    images: Iterator[NamedImage], predict_images: Predictor, batch_size: int
) -> Iterator[Prediction]:
    while batch := list(itertools.islice(images, batch_size)):
        try:
            classes, probabilities = predict_images(
                [content for _, content, _ in batch]
            )
        except ValueError as error:
            _raise_for_rejected(batch, predict_images)
            names = ", ".join(name for name, _, _ in batch)
            raise ValueError(
                f"{error} Asked one by one none of these images was refused: {names}."
            ) from error
        for (name, _, label), best, values in zip(
            batch, classes, probabilities, strict=True
        ):
            yield Prediction(name, tuple(best), tuple(values), label)


def _raise_for_rejected(batch: Sequence[NamedImage], predict_images: Predictor) -> None:
    """Predict image by image and raise at the first that is rejected.

    A decoder's error does not say which image of a request is damaged, and a server may
    have batched the request with other clients' requests.
    """
    for name, content, _ in batch:
        try:
            predict_images([content])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
