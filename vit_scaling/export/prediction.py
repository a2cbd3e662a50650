"""Ask a SavedModel about images in files or TFRecords, without Keras."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import glob
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import tensorflow as tf

from vit_scaling.export import servable

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


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
Answer = Callable[
    [Sequence[bytes]], tuple[Sequence[Sequence[str]], Sequence[Sequence[float]]]
]
NamedImage = tuple[str, bytes, int | None]


def version_folder(saved_model: str | os.PathLike[str]) -> pathlib.Path:
    """Return the folder of `saved_model.pb`: given, or the highest numbered version.

    Raises:
        FileNotFoundError: There is no SavedModel at `saved_model`.
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
            f"No saved_model.pb in {folder}, nor in a numbered folder of it: write one "
            "with tools/export.py."
        )
    return max(versions, key=lambda path: int(path.name))


def local_answer(saved_model: str | os.PathLike[str]) -> Answer:
    """Return a function that asks the SavedModel in this process."""
    loaded = tf.saved_model.load(str(version_folder(saved_model)))
    if servable.BYTES_SIGNATURE not in loaded.signatures:
        raise ValueError(
            f"{saved_model} has no signature {servable.BYTES_SIGNATURE!r}: export it "
            "with tools/export.py."
        )
    signature = loaded.signatures[servable.BYTES_SIGNATURE]

    def ask(images: Sequence[bytes]) -> tuple[list[list[str]], list[list[float]]]:
        # The signature borrows its variables from `loaded`, which must stay alive.
        _ = loaded
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

    return ask


def images_of_files(patterns: Sequence[str]) -> Iterator[NamedImage]:
    """Yield (name, bytes, None) of image files, folders and glob patterns, sorted.

    Raises:
        FileNotFoundError: A pattern matches no image.
    """
    for pattern in patterns:
        path = pathlib.Path(pattern)
        if path.is_dir():
            found = [
                str(file)
                for file in sorted(path.rglob("*"))
                if file.suffix.lower() in IMAGE_SUFFIXES
            ]
        else:
            found = [str(path)] if path.is_file() else sorted(glob.glob(pattern))
        if not found:
            raise FileNotFoundError(f"No image at {pattern}: name files or a folder.")
        for name in found:
            yield name, pathlib.Path(name).read_bytes(), None


def images_of_tfrecords(
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
        ValueError: An example has no such image.
    """
    files = sorted(tf.io.gfile.glob(pattern))
    if not files:
        raise FileNotFoundError(f"No TFRecord file matches {pattern}.")
    for file in files:
        for number, record in enumerate(tf.data.TFRecordDataset(file)):
            name = f"{file}:{number}"
            features = tf.train.Example.FromString(record.numpy()).features.feature
            held = sorted(features)  # First: reading a key puts it there.
            images = features[image_key].bytes_list.value
            if len(images) != 1:
                raise ValueError(
                    f"{name} holds {len(images)} images under {image_key!r}; name the "
                    f"right one of its features: {', '.join(held)}."
                )
            labels = features[label_key].int64_list.value
            yield name, images[0], labels[0] if labels else None


def predict(
    images: Iterable[NamedImage], answer: Answer, *, batch_size: int = 16
) -> Iterator[Prediction]:
    """Yield the prediction of each image, asked `batch_size` at a time.

    Raises:
        ValueError: `batch_size` is not positive, or the model refuses an image: the
            message names it.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1; received {batch_size}.")
    return _predictions(iter(images), answer, batch_size)


def _predictions(
    images: Iterator[NamedImage], answer: Answer, batch_size: int
) -> Iterator[Prediction]:
    while batch := list(itertools.islice(images, batch_size)):
        try:
            classes, probabilities = answer([content for _, content, _ in batch])
        except ValueError as error:
            _name_the_refused(batch, answer)
            names = ", ".join(name for name, _, _ in batch)
            raise ValueError(
                f"{error} Asked one by one none of these images was refused: {names}."
            ) from error
        for (name, _, label), best, values in zip(
            batch, classes, probabilities, strict=True
        ):
            yield Prediction(name, tuple(best), tuple(values), label)


def _name_the_refused(batch: Sequence[NamedImage], answer: Answer) -> None:
    """Ask again image by image; raise at the first that is refused.

    A decoder's complaint of a damaged image does not say which of the request it was,
    and a server may have run the request together with other clients'.
    """
    for name, content, _ in batch:
        try:
            answer([content])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
