"""Outputs and signatures of a served model."""
# SPDX-License-Identifier: Apache-2.0

import os
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from vit_scaling.export import image_decoding
from vit_scaling.run_record import RunRecord

# From encoded images: the best classes, all outputs, the features. REST cannot omit
# outputs, so what clients usually want has a signature with nothing else.
DEFAULT_SIGNATURE = "serving_default"
BYTES_SIGNATURE = "serving_bytes"
FEATURES_SIGNATURE = "serving_features"
FLOAT_SIGNATURE = "serving_floats"  # From float images: all outputs.
CLASSIFIER = "head"
FEATURES = "pre_logits"  # The last layer of a ViT without a classifier.
LAST_NORM = "encoder_norm"

Outputs = dict[str, tf.Tensor]


def load_signature(
    saved_model: str | os.PathLike[str], name: str
) -> Callable[..., Outputs]:
    """Return a signature of a SavedModel that this package exported.

    Raises:
        ValueError: The SavedModel does not have the signature.
    """
    loaded = tf.saved_model.load(os.fspath(saved_model))
    if name not in loaded.signatures:
        raise ValueError(
            f"{saved_model} has no signature {name!r}, only "
            f"{', '.join(sorted(loaded.signatures))}. Export it again: "
            "vit-scaling export."
        )
    signature = loaded.signatures[name]

    def call(**inputs: tf.Tensor) -> Outputs:
        _ = loaded  # The signature borrows its variables, which must stay alive.
        return signature(**inputs)

    return call


def has_classifier(model: keras.Model) -> bool:
    """Whether a model's outputs are logits; without a classifier they are features."""
    return model.layers[-1].name != FEATURES


def make_output_model(model: keras.Model) -> keras.Model:
    """Return a model that gives a dict of float32 `logits`, `features` and `tokens`.

    `logits` are the model's output, or where an activation stands behind the layer
    "head" (an application's `classifier_activation`) that layer's. `features` are the
    classifier's input (what few-shot evaluation takes), `tokens` the encoder's last
    layer norm; `tokens` are left out of a model that has no such layer, or norms their
    average, and `logits` of one without a classifier.

    Raises:
        ValueError: `model` has several inputs or is not functional, or ends in another
            layer with an activation, so that its output is no logits.
    """
    if len(getattr(model, "inputs", None) or ()) != 1:
        raise ValueError(
            "`model` must be a functional keras.Model of one input, the images; "
            f"received {type(model).__name__} {model.name!r}."
        )
    layers = {layer.name: layer for layer in model.layers}
    last = model.layers[-1]
    classifier = layers.get(CLASSIFIER, last)
    if _is_activation(last) and last.input is classifier.output:
        last = classifier
    if _is_activation(last) or _activation_of(last) is not keras.activations.linear:
        raise ValueError(
            f"`model` must end in logits; its last layer {last.name!r} has an "
            "activation. Build it without: the record's loss makes the probabilities."
        )
    outputs = {"logits": last.output, "features": classifier.input}
    if not has_classifier(model):
        outputs = {"features": last.output}
    if LAST_NORM in layers and len(layers[LAST_NORM].output.shape) == 3:
        outputs["tokens"] = layers[LAST_NORM].output
    return keras.Model(model.inputs[0], outputs, name=model.name)


def _is_activation(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.Activation | keras.layers.Softmax)


def _activation_of(layer: keras.Layer) -> Any:
    return getattr(layer, "activation", None) or keras.activations.linear


def compute_outputs(
    numbers: Callable[[tf.Tensor], Outputs],
    images: tf.Tensor,
    record: RunRecord,
    *,
    top_k: int,
) -> Outputs:
    """Return all outputs of a served model for float images.

    Args:
        numbers: Result of `make_numeric_function`.
        images: (batch, height, width, 3) float32 in the record's value range.
        record: Names of the classes, and the loss that makes probabilities.
        top_k: Number of best classes listed; cut to the number of classes.

    Without a classifier only `features` and `tokens` are returned.

    Returns:
        `logits` and `probabilities` (batch, classes), `features` (batch, width),
        `tokens` (batch, tokens, width), all float32; and for the best classes, best
        first, `top_classes` (names), `top_indices` int32 and `top_probabilities`, all
        (batch, top_k).
    """
    outputs = numbers(images)
    if "logits" not in outputs:
        return outputs
    best = tf.math.top_k(outputs["probabilities"], min(top_k, len(record.class_names)))
    return {
        **outputs,
        "top_probabilities": best.values,
        "top_indices": best.indices,
        "top_classes": tf.gather(tf.constant(record.class_names), best.indices),
    }


def make_numeric_function(
    inner: keras.Model, record: RunRecord, *, jit_compile: bool = False
) -> Callable[[tf.Tensor], Outputs]:
    """Return a function from images to all outputs except the best classes.

    Args:
        inner: Result of `make_output_model`.
        record: Its loss determines how probabilities are computed.
        jit_compile: Have XLA compile it, once for each size of a batch.
    """

    def numbers(images: tf.Tensor) -> Outputs:
        outputs = {
            name: tf.cast(value, tf.float32)
            for name, value in inner(images, training=False).items()
        }
        if "logits" not in outputs:
            return outputs
        probabilities = compute_probabilities(outputs["logits"], record.loss)
        return {**outputs, "probabilities": probabilities}

    return tf.function(numbers, jit_compile=True) if jit_compile else numbers


def compute_probabilities(logits: tf.Tensor, loss: str) -> tf.Tensor:
    """Return sigmoid or softmax of (batch, classes) logits, depending on the loss."""
    if loss == "sigmoid_cross_entropy":
        return tf.sigmoid(logits)
    return tf.nn.softmax(logits)


def make_signatures(
    model: keras.Model,
    record: RunRecord,
    *,
    top_k: int = 5,
    jit_compile: bool = False,
) -> dict[str, Callable[..., Outputs]]:
    """Return the concrete functions of a SavedModel, by signature name.

    `serving_default`, `serving_bytes` and `serving_features` take `image_bytes`
    (batch,) strings, each an image file, and return the best classes (`top_classes`,
    `top_indices`, `top_probabilities`), all outputs, and `features`. `serving_floats`
    takes `images` (batch, height, width, 3) float32 in the record's value range and
    returns all outputs. `jit_compile` has XLA compile the model, not the decoding.
    Without a classifier `serving_default` returns the features.
    """
    if top_k < 1:
        raise ValueError(f"`top_k` (--top_k) must be at least 1; received {top_k}.")
    numbers = make_numeric_function(
        make_output_model(model), record, jit_compile=jit_compile
    )
    height, width = record.image_size
    expected = tuple(model.inputs[0].shape[1:])
    if expected != (height, width, 3):
        raise ValueError(
            "`image_size` of the record must be the model's: the model takes "
            f"{expected}, the record says {(height, width, 3)}."
        )

    @tf.function
    def from_images(images: tf.Tensor) -> Outputs:
        return compute_outputs(numbers, images, record, top_k=top_k)

    @tf.function
    def from_bytes(content: tf.Tensor) -> Outputs:
        images = image_decoding.decode_images(content, record)
        return compute_outputs(numbers, images, record, top_k=top_k)

    @tf.function
    def best_from_bytes(content: tf.Tensor) -> Outputs:
        outputs = from_bytes(content)
        return {name: value for name, value in outputs.items() if "top_" in name}

    @tf.function
    def features_from_bytes(content: tf.Tensor) -> Outputs:
        return {"features": from_bytes(content)["features"]}

    strings = tf.TensorSpec((None,), tf.string, name="image_bytes")
    default = best_from_bytes if has_classifier(model) else features_from_bytes
    return {
        DEFAULT_SIGNATURE: default.get_concrete_function(strings),
        BYTES_SIGNATURE: from_bytes.get_concrete_function(strings),
        FEATURES_SIGNATURE: features_from_bytes.get_concrete_function(strings),
        FLOAT_SIGNATURE: from_images.get_concrete_function(
            tf.TensorSpec((None, height, width, 3), tf.float32, name="images")
        ),
    }
