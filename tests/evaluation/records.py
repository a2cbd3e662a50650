"""Image sets on disk and a model over them, for the tests here."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import io
import pathlib

import keras
import numpy as np
import PIL.Image
import tensorflow as tf

from vit_scaling.data.pipeline import EvalData
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.modeling.vit import vit

SIDE = 32


def images(labels, *, seed=0, noise=60.0):
    """(N, 32, 32, 3) uint8 of a colour for each class, and noise."""
    generator = np.random.default_rng(seed)
    colours = np.random.default_rng(9).uniform(40, 215, (100, 3))
    spread = generator.normal(size=(len(labels), SIDE, SIDE, 3)) * noise
    shift = generator.normal(size=(len(labels), 1, 1, 3)) * noise / 3
    pixels = colours[np.asarray(labels)][:, None, None] + spread + shift
    return np.clip(pixels, 0, 255).astype(np.uint8)


def write(path: pathlib.Path, pixels, labels) -> None:
    """Write PNGs; a label is a number, or a list of several."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for image, label in zip(pixels, labels, strict=True):
            buffer = io.BytesIO()
            PIL.Image.fromarray(image).save(buffer, format="PNG")
            bytes_list = tf.train.BytesList(value=[buffer.getvalue()])
            int64_list = tf.train.Int64List(value=np.atleast_1d(label).tolist())
            features = {
                "image/encoded": tf.train.Feature(bytes_list=bytes_list),
                "image/class/label": tf.train.Feature(int64_list=int64_list),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())


def eval_data(path: pathlib.Path, classes: int) -> EvalData:
    return EvalData(TFRecords(str(path)), image_size=SIDE, classes=classes)


@dataclasses.dataclass
class InMemory:
    """What `EvalData` gives, from memory: quick to build."""

    pixels: np.ndarray
    labels: list
    classes: int

    def dataset(self, *, batch_size, input_context=None):
        replicas = input_context.num_replicas_in_sync if input_context else 1
        extra = -len(self.pixels) % batch_size
        multi_hot = np.zeros((len(self.labels) + extra, self.classes), np.float32)
        for row, label in enumerate(self.labels):
            multi_hot[row, label] = 1
        images = np.float32(self.pixels) / 127.5 - 1
        elements = {
            "images": np.concatenate([images, np.zeros((extra, *images.shape[1:]))]),
            "labels": multi_hot,
            "mask": np.repeat([1.0, 0.0], [len(self.labels), extra]),
        }
        elements = {name: np.float32(value) for name, value in elements.items()}
        dataset = tf.data.Dataset.from_tensor_slices(elements)
        return dataset.batch(batch_size // replicas, drop_remainder=True)


def in_memory(labels, classes, *, seed=0) -> InMemory:
    firsts = [int(np.atleast_1d(label)[0]) if np.size(label) else 0 for label in labels]
    return InMemory(images(firsts, seed=seed), list(labels), classes)


def model(classes: int = 5) -> keras.Model:
    """A small ViT with random weights, the classifier's included."""
    made = vit("mu/16", image_size=SIDE, classes=classes)
    generator = np.random.default_rng(2)
    head = made.get_layer("head")
    head.kernel.assign(generator.normal(size=head.kernel.shape))
    return made
