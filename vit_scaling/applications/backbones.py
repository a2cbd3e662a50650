"""Use any `keras.applications` model as a backbone under this package's heads."""
# SPDX-License-Identifier: Apache-2.0

import re
from typing import Any

import keras
import tensorflow as tf

from vit_scaling.argument_types import (
    NonNegativeInt,
    PositiveInt,
    check_arguments,
)
from vit_scaling.modeling.head_specs import HEADS, HeadName
from vit_scaling.modeling.heads import HeadMaker, make_head
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.modeling.vit import Dtype
from vit_scaling.naming import check_known, did_you_mean

# From a pattern of names to the scaling by the family's `preprocess_input` in Keras.
# "raw" families scale [0, 255] themselves.
SCALINGS: dict[str, str] = {
    r"(ResNet\d+|VGG\d+)": "caffe",
    r"DenseNet\d+": "torch",
    r"(InceptionV3|InceptionResNetV2|Xception|NASNet.*|ResNet\d+V2)": "tf",
    r"(MobileNet|MobileNetV2)": "tf",
    r"(EfficientNet.*|ConvNeXt.*|MobileNetV3.*)": "raw",
}
IMAGE_SCALINGS = ("tf", "raw", "torch", "caffe")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
CAFFE_MEAN = (103.939, 116.779, 123.68)  # Blue, green, red.


@keras.saving.register_keras_serializable("vit_scaling")
class ScaleImages(keras.layers.Layer):
    """Convert images in [-1, 1], the range of our pipeline, to a backbone's range.

    Args:
        scaling: "tf" ([-1, 1]), "raw" ([0, 255]), "torch" (ImageNet's mean 0 and
            deviation 1) or "caffe" (blue, green, red, mean 0).
    """

    def __init__(self, scaling: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_known("scaling", scaling, IMAGE_SCALINGS)
        self.scaling = scaling

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Return images of the same shape (batch, height, width, 3)."""
        if self.scaling == "tf":
            return images
        levels = (images + 1.0) * 127.5
        if self.scaling == "raw":
            return levels
        if self.scaling == "caffe":
            return levels[..., ::-1] - tf.constant(CAFFE_MEAN, images.dtype)
        mean = tf.constant(IMAGENET_MEAN, images.dtype)
        return (levels / 255.0 - mean) / tf.constant(IMAGENET_DEVIATION, images.dtype)


@check_arguments
def keras_backbone(
    name: str,
    head: HeadName | HeadMaker = "gap",
    *,
    image_size: PositiveInt | tuple[PositiveInt, PositiveInt] = 224,
    classes: PositiveInt | None = 1000,
    weights: str | None = None,
    head_bias: float = 0.0,
    heads: PositiveInt | None = None,
    mlp_width: PositiveInt | None = None,
    scaling: str | None = None,
    dtype: Dtype = "float32",
    seed: NonNegativeInt | None = None,
) -> keras.Model:
    """Build a `keras.applications` model with this package's head and classifier.

    Its last layers are those of our ViT: pre_logits (the features) and head (the
    classifier, whose kernel is initially 0), so optimizers' rules, evaluation and
    export work. In gin: `Experiment.make_model = @keras_backbone`.

    Args:
        name: Name in `keras.applications`, such as "ResNet50" or "ConvNeXtTiny".
        head: "gap", "map", or a function from a shape to a pooling layer; each position
            of the last feature map is a token.
        image_size: Side of the images in pixels, or (height, width).
        classes: Width of the classifier; None omits it.
        weights: `weights` of the application: None, "imagenet" or a file.
        head_bias: Initial value of the classifier's bias.
        heads: Attention heads of "map"; None takes the number that makes a head's width
            the nearest to 64.
        mlp_width: Width of the MLP of "map"; None takes 4 times the features' width.
        scaling: Range of images that the backbone expects (see `ScaleImages`); None
            looks it up for all families of Keras 3.15.
        dtype: "float32" or "mixed_bfloat16".
        seed: Seed of the head's initial values; None takes it from Keras' global
            generator, as the backbone's initial values always do.

    Returns:
        A model from images (batch, height, width, 3) in [-1, 1], with the name
        "images", to float32 logits (batch, classes).

    Raises:
        ValueError: No application or head has this name, or the head needs a class
            token.
    """
    if head == "none" or (head in HEADS and HEADS[str(head)].uses_class_token):
        raise ValueError(
            f"`head` must be 'gap', 'map' or a function; a backbone has no class "
            f"token. Received {head!r}."
        )
    application = _find_application(name)
    sides = image_size if isinstance(image_size, tuple | list) else (image_size,) * 2
    images = keras.Input((*sides, 3), name="images", dtype="float32")
    scale = ScaleImages(scaling or find_scaling(name), name="scaling", dtype="float32")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        features = application(
            include_top=False, weights=weights, input_tensor=scale(images)
        ).output  # (batch, rows, columns, width)
    finally:
        keras.config.set_dtype_policy(before)
    width = features.shape[-1]
    tokens = keras.layers.Reshape((-1, width), name="tokens")(features)
    shape = ViTShape(1, width, 1, mlp_width or 4 * width, heads or _count_heads(width))
    pooling = make_head(head, shape, dtype=dtype, seed=seed)
    pooled = pooling(tokens)  # type: ignore[misc]
    x = keras.layers.Identity(dtype="float32", name="pre_logits")(pooled)
    if classes is not None:
        bias = keras.initializers.Constant(head_bias)
        x = keras.layers.Dense(
            classes,
            kernel_initializer="zeros",
            bias_initializer=bias,
            dtype="float32",
            name="head",
        )(x)
    return keras.Model(images, x, name=name)


def _find_application(name: str) -> Any:
    known = [
        attribute
        for attribute in dir(keras.applications)
        if attribute[0].isupper() and callable(getattr(keras.applications, attribute))
    ]
    if name not in known:
        raise ValueError(
            f"No model of keras.applications is called {name!r}."
            f"{did_you_mean(name, known)} Known: {', '.join(known)}."
        )
    return getattr(keras.applications, name)


def find_scaling(name: str) -> str:
    """Return the range of images that an application expects; see `ScaleImages`."""
    for pattern, scaling in SCALINGS.items():
        if re.fullmatch(pattern, name):
            return scaling
    raise ValueError(
        f"The range of images that {name!r} expects is unknown. Give `scaling`: "
        f"{', '.join(map(repr, IMAGE_SCALINGS))}."
    )


def _count_heads(width: int) -> int:
    """Return the number of heads that divides `width` into the sizes nearest to 64."""
    sizes = [size for size in range(1, width + 1) if width % size == 0]
    return width // min(sizes, key=lambda size: abs(size - 64))
