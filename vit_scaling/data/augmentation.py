"""RandAugment: a few random operations on each image.

All random numbers are drawn from a given seed. Keras' layer of the same name has state,
so its batches would depend on the batches before them.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Annotated, Any

import tensorflow as tf
from annotated_types import Ge, Le

from vit_scaling.argument_types import PositiveInt, check_fields

# uint8 image, level 0…1, sign ±1, fill → uint8 image
Operation = Callable[[tf.Tensor, float, tf.Tensor, int], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Apply a few operations drawn from fourteen, all of one magnitude.

    Args:
        layers: Number of operations applied to each image, one after the other.
        magnitude: 0 (hardly any change) to 10.
        fill: Grey level of the pixels outside a moved image.

    References: Cubuk et al. 2020, "RandAugment".
    """

    layers: PositiveInt = 2
    magnitude: Annotated[float, Ge(0), Le(10)] = 9.0
    fill: Annotated[int, Ge(0), Le(255)] = 128

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return a changed uint8 image of the same shape."""
        shape = image.shape
        seeds = tf.random.split(seed, 2 * self.layers)
        for layer in range(self.layers):
            coin = tf.random.stateless_uniform([], seeds[2 * layer], alg="philox")
            sign = tf.where(coin < 0.5, -1.0, 1.0)
            choice = tf.random.stateless_uniform(
                [], seeds[2 * layer + 1], 0, len(OPERATIONS), tf.int32, alg="philox"
            )
            branches = [
                functools.partial(
                    operation, image, self.magnitude / 10, sign, self.fill
                )
                for operation in OPERATIONS.values()
            ]
            image = tf.ensure_shape(tf.switch_case(choice, branches), shape)
        return image


def _as_uint8(image: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)


def _grey(image: tf.Tensor) -> tf.Tensor:
    return tf.image.rgb_to_grayscale(image)


def _autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Stretch each channel to 0…255."""
    values = tf.cast(image, tf.float32)
    low = tf.reduce_min(values, axis=[0, 1], keepdims=True)
    high = tf.reduce_max(values, axis=[0, 1], keepdims=True)
    stretched = (values - low) * 255.0 / tf.maximum(high - low, 1.0)
    return _as_uint8(tf.where(high > low, stretched, values))


def _equalize(image: tf.Tensor) -> tf.Tensor:
    """Map the values of each channel so that its histogram becomes flat."""

    def equalize_channel(channel: tf.Tensor) -> tf.Tensor:
        flat = tf.cast(tf.reshape(channel, [-1]), tf.int32)
        counts = tf.math.bincount(flat, minlength=256, maxlength=256)
        last = tf.gather(counts, tf.reduce_max(flat))
        step = (tf.reduce_sum(counts) - last) // 255
        table = (tf.cumsum(counts, exclusive=True) + step // 2) // tf.maximum(step, 1)
        table = tf.clip_by_value(table, 0, 255)
        mapped = tf.where(step > 0, tf.gather(table, flat), flat)
        return tf.cast(tf.reshape(mapped, tf.shape(channel)), tf.uint8)

    return tf.stack([equalize_channel(image[..., i]) for i in range(3)], axis=-1)


def _posterize(image: tf.Tensor, level: float) -> tf.Tensor:
    """Keep the upper 8 to 4 bits."""
    mask = 0xFF << round(4 * level) & 0xFF
    return tf.bitwise.bitwise_and(image, tf.constant(mask, tf.uint8))


def _solarize(image: tf.Tensor, level: float) -> tf.Tensor:
    """Invert the pixels above a threshold."""
    is_bright = tf.cast(image, tf.int32) >= round(256 * (1 - level))
    return tf.where(is_bright, 255 - image, image)


def _blur(image: tf.Tensor) -> tf.Tensor:
    """Blur all but the border by a 3×3 kernel with weight 5 in the middle."""
    values = tf.cast(image, tf.float32)[None]
    kernel = tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32) / 13
    kernel = tf.tile(kernel[:, :, None, None], [1, 1, 3, 1])
    inner = tf.nn.depthwise_conv2d(values, kernel, [1, 1, 1, 1], "VALID")
    border = [[0, 0], [1, 1], [1, 1], [0, 0]]
    is_inner = tf.pad(tf.ones_like(inner), border) > 0
    return tf.where(is_inner, tf.round(tf.pad(inner, border)), values)[0]


def _mean_grey(image: tf.Tensor) -> tf.Tensor:
    return tf.round(tf.reduce_mean(tf.cast(_grey(image), tf.float32)))


def _blend_with(make_other: Callable[[tf.Tensor], tf.Tensor]) -> Operation:
    """Return an operation that moves an image away from another, or towards it."""

    def operation(
        image: tf.Tensor, level: float, sign: tf.Tensor, fill: int
    ) -> tf.Tensor:
        del fill
        other = tf.cast(make_other(image), tf.float32)
        factor = 1.0 + sign * 0.9 * level
        return _as_uint8(other + factor * (tf.cast(image, tf.float32) - other))

    return operation


def _move(
    coefficients: Callable[[float, tf.Tensor, tf.Tensor], list[Any]],
) -> Operation:
    """Return an operation that moves pixels: (x, y) ← (a·x + b·y + c, d·x + e·y + f).

    Args:
        coefficients: Maps the level, the sign and the float32 (height, width) to a…f.
    """

    def operation(
        image: tf.Tensor, level: float, sign: tf.Tensor, fill: int
    ) -> tf.Tensor:
        rows = coefficients(level, sign, tf.cast(tf.shape(image)[:2], tf.float32))
        values = [tf.cast(value, tf.float32) for value in [*rows, 0, 0]]
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=image[None],
            transforms=tf.stack(values)[None],
            output_shape=tf.shape(image)[:2],
            fill_value=tf.constant(float(fill)),
            interpolation="NEAREST",
            fill_mode="CONSTANT",
        )[0]

    return operation


def _rotation(level: float, sign: tf.Tensor, size: tf.Tensor) -> list[Any]:
    """Return the coefficients of a rotation by up to 30 degrees around the middle."""
    angle = sign * math.radians(30 * level)
    cos, sin = tf.cos(angle), tf.sin(angle)
    y, x = tf.unstack((size - 1) / 2)
    return [cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y]


def _shift(level: float, sign: tf.Tensor) -> tf.Tensor:
    """Return a signed shift of at most 0.3, as a fraction of a side."""
    return sign * 0.3 * level


OPERATIONS: dict[str, Operation] = {
    "identity": lambda image, level, sign, fill: image,
    "autocontrast": lambda image, level, sign, fill: _autocontrast(image),
    "equalize": lambda image, level, sign, fill: _equalize(image),
    "rotate": _move(_rotation),
    "solarize": lambda image, level, sign, fill: _solarize(image, level),
    "color": _blend_with(_grey),
    "posterize": lambda image, level, sign, fill: _posterize(image, level),
    "contrast": _blend_with(_mean_grey),
    "brightness": _blend_with(tf.zeros_like),
    "sharpness": _blend_with(_blur),
    "shear_x": _move(lambda level, sign, size: [1, _shift(level, sign), 0, 0, 1, 0]),
    "shear_y": _move(lambda level, sign, size: [1, 0, 0, _shift(level, sign), 1, 0]),
    "translate_x": _move(
        lambda level, sign, size: [1, 0, _shift(level, sign) * size[1], 0, 1, 0]
    ),
    "translate_y": _move(
        lambda level, sign, size: [1, 0, 0, 0, 1, _shift(level, sign) * size[0]]
    ),
}
