"""Mixup, CutMix and RandAugment, for those who train on small data.

Every random number is drawn from a given seed: Keras' layers of the same names keep a
state of their own, which would make a batch depend on the batches before it.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math
from collections.abc import Callable

import tensorflow as tf


def _uniform(seed: tf.Tensor, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
    return tf.random.stateless_uniform([], seed, low, high, alg="philox")


def _beta(seed: tf.Tensor, alpha: float) -> tf.Tensor:
    """Draw one number of Beta(alpha, alpha), float32: a ratio of two gammas."""
    two = tf.random.stateless_gamma([2], seed, alpha)
    return two[0] / tf.maximum(two[0] + two[1], 1e-20)


@dataclasses.dataclass(frozen=True)
class Mixup:
    """Each image and its labels averaged with the next one of the batch.

    images ← a·images + (1 - a)·next, labels likewise, with a = max(b, 1 - b) for one
    b ~ Beta(alpha, alpha) per batch.

    Args:
        alpha: Of the Beta distribution; 0.2 as in the paper that proposed it.

    References: Zhang et al. 2018, "mixup".
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        _check_positive("alpha", self.alpha)

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return mixed images and labels, both float32 of their shapes."""
        share = _beta(seed, self.alpha)
        share = tf.maximum(share, 1.0 - share)

        def mixed(values: tf.Tensor) -> tf.Tensor:
            return share * values + (1.0 - share) * tf.roll(values, 1, axis=0)

        return mixed(images), mixed(labels)


@dataclasses.dataclass(frozen=True)
class CutMix:
    """A box of each image exchanged for the same box of the next one of the batch.

    The box has about the share 1 - b of the image, b ~ Beta(alpha, alpha), its centre
    anywhere; labels mix by the area that was really exchanged.

    Args:
        alpha: Of the Beta distribution; 1.0 as in the paper that proposed it.

    References: Yun et al. 2019, "CutMix".
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("alpha", self.alpha)

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return mixed images and labels, both float32 of their shapes."""
        seeds = tf.random.split(seed, 3)
        side = tf.sqrt(1.0 - _beta(seeds[0], self.alpha))
        rows = _stripe(tf.shape(images)[1], side, _uniform(seeds[1]))
        columns = _stripe(tf.shape(images)[2], side, _uniform(seeds[2]))
        box = (rows[:, None] & columns[None, :])[None, :, :, None]  # (1, h, w, 1)
        taken = tf.reduce_mean(tf.cast(box, tf.float32))
        images = tf.where(box, tf.roll(images, 1, axis=0), images)
        return images, (1.0 - taken) * labels + taken * tf.roll(labels, 1, axis=0)


def _stripe(length: tf.Tensor, share: tf.Tensor, centre: tf.Tensor) -> tf.Tensor:
    """Return which of `length` pixels lie in a stripe around a centre, bool."""
    place = (tf.range(tf.cast(length, tf.float32)) + 0.5) / tf.cast(length, tf.float32)
    return tf.abs(place - centre) < share / 2


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"`{name}` must be above 0; received {value}.")


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """A few operations drawn from fourteen, all of one magnitude.

    Args:
        layers: Operations applied to each image, one after the other.
        magnitude: 0 (hardly any change) to 10.
        fill: Grey that comes in from outside when the image is moved.

    References: Cubuk et al. 2020, "RandAugment".
    """

    layers: int = 2
    magnitude: float = 9.0
    fill: int = 128

    def __post_init__(self) -> None:
        if self.layers < 1 or not 0 <= self.magnitude <= 10:
            raise ValueError(
                "`layers` must be at least 1 and `magnitude` 0 to 10; received "
                f"layers={self.layers}, magnitude={self.magnitude}."
            )

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return a changed uint8 image of the same shape."""
        shape = image.shape
        seeds = tf.random.split(seed, 2 * self.layers)
        level = self.magnitude / 10
        for layer in range(self.layers):
            sign = tf.where(_uniform(seeds[2 * layer]) < 0.5, -1.0, 1.0)
            chosen = tf.random.stateless_uniform(
                [], seeds[2 * layer + 1], 0, len(OPERATIONS), tf.int32, alg="philox"
            )
            branches = [
                _branch(operation, image, level, sign, self.fill)
                for operation in OPERATIONS.values()
            ]
            image = tf.ensure_shape(tf.switch_case(chosen, branches), shape)
        return image


# uint8 image, level 0…1, sign ±1, fill → uint8 image
Operation = Callable[[tf.Tensor, float, tf.Tensor, int], tf.Tensor]


def _branch(
    operation: Operation, image: tf.Tensor, level: float, sign: tf.Tensor, fill: int
) -> Callable[[], tf.Tensor]:
    return lambda: operation(image, level, sign, fill)


def _as_uint8(image: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)


def _blend(below: tf.Tensor, image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Return `below` for factor 0, the image for 1, and beyond for more."""
    below = tf.cast(below, tf.float32)
    return _as_uint8(below + factor * (tf.cast(image, tf.float32) - below))


def _factor(level: float, sign: tf.Tensor) -> tf.Tensor:
    return 1.0 + sign * 0.9 * level


def identity(image: tf.Tensor, level: float, sign: tf.Tensor, fill: int) -> tf.Tensor:
    """Return the image."""
    del level, sign, fill
    return image


def autocontrast(
    image: tf.Tensor, level: float, sign: tf.Tensor, fill: int
) -> tf.Tensor:
    """Spread each channel over 0…255."""
    del level, sign, fill
    values = tf.cast(image, tf.float32)
    low = tf.reduce_min(values, axis=[0, 1], keepdims=True)
    high = tf.reduce_max(values, axis=[0, 1], keepdims=True)
    spread = (values - low) * 255.0 / tf.maximum(high - low, 1.0)
    return _as_uint8(tf.where(high > low, spread, values))


def equalize(image: tf.Tensor, level: float, sign: tf.Tensor, fill: int) -> tf.Tensor:
    """Spread each channel so that its histogram becomes flat."""
    del level, sign, fill

    def one(channel: tf.Tensor) -> tf.Tensor:
        flat = tf.cast(tf.reshape(channel, [-1]), tf.int32)
        counts = tf.math.bincount(flat, minlength=256, maxlength=256)
        last = tf.gather(counts, tf.reduce_max(flat))
        step = (tf.reduce_sum(counts) - last) // 255
        table = (tf.cumsum(counts, exclusive=True) + step // 2) // tf.maximum(step, 1)
        table = tf.clip_by_value(table, 0, 255)
        new = tf.where(step > 0, tf.gather(table, flat), flat)
        return tf.cast(tf.reshape(new, tf.shape(channel)), tf.uint8)

    return tf.stack([one(image[..., channel]) for channel in range(3)], axis=-1)


def posterize(image: tf.Tensor, level: float, sign: tf.Tensor, fill: int) -> tf.Tensor:
    """Keep the upper 8 to 4 bits."""
    del sign, fill
    mask = 0xFF << round(4 * level) & 0xFF
    return tf.bitwise.bitwise_and(image, tf.constant(mask, tf.uint8))


def solarize(image: tf.Tensor, level: float, sign: tf.Tensor, fill: int) -> tf.Tensor:
    """Invert what is brighter than a threshold."""
    del sign, fill
    bright = tf.cast(image, tf.int32) >= round(256 * (1 - level))
    return tf.where(bright, 255 - image, image)


def color(image: tf.Tensor, level: float, sign: tf.Tensor, fill: int) -> tf.Tensor:
    """Add or take away colour."""
    del fill
    grey = tf.image.rgb_to_grayscale(image)
    return _blend(grey, image, _factor(level, sign))


def contrast(image: tf.Tensor, level: float, sign: tf.Tensor, fill: int) -> tf.Tensor:
    """Move values from or to the mean grey."""
    del fill
    grey = tf.cast(tf.image.rgb_to_grayscale(image), tf.float32)
    return _blend(tf.round(tf.reduce_mean(grey)), image, _factor(level, sign))


def brightness(image: tf.Tensor, level: float, sign: tf.Tensor, fill: int) -> tf.Tensor:
    """Move values from or to black."""
    del fill
    return _blend(tf.zeros_like(image), image, _factor(level, sign))


def sharpness(image: tf.Tensor, level: float, sign: tf.Tensor, fill: int) -> tf.Tensor:
    """Move values from or to a blurred image (3×3, weight 5 in the middle)."""
    del fill
    values = tf.cast(image, tf.float32)[None]
    kernel = tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32) / 13
    kernel = tf.tile(kernel[:, :, None, None], [1, 1, 3, 1])
    inner = tf.nn.depthwise_conv2d(values, kernel, [1, 1, 1, 1], "VALID")
    edge = tf.pad(tf.ones_like(inner), [[0, 0], [1, 1], [1, 1], [0, 0]])
    blurred = tf.pad(inner, [[0, 0], [1, 1], [1, 1], [0, 0]])
    below = tf.where(edge > 0, tf.round(blurred), values)[0]
    return _blend(below, image, _factor(level, sign))


def _moved(image: tf.Tensor, rows: list[tf.Tensor], fill: int) -> tf.Tensor:
    """Take each pixel (x, y) from (a·x + b·y + c, d·x + e·y + f), nearest."""
    parts = [tf.cast(value, tf.float32) for value in [*rows, 0.0, 0.0]]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=tf.stack(parts)[None],
        output_shape=tf.shape(image)[:2],
        fill_value=tf.constant(float(fill)),
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )[0]


def rotate(image: tf.Tensor, level: float, sign: tf.Tensor, fill: int) -> tf.Tensor:
    """Turn by up to 30 degrees around the middle."""
    angle = sign * math.radians(30 * level)
    cos, sin = tf.cos(angle), tf.sin(angle)
    middle = tf.cast(tf.shape(image)[:2] - 1, tf.float32) / 2
    y, x = middle[0], middle[1]
    rows = [cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y]
    return _moved(image, rows, fill)


def shear_x(image: tf.Tensor, level: float, sign: tf.Tensor, fill: int) -> tf.Tensor:
    """Shift rows by up to 0.3 of their number."""
    return _moved(image, [1.0, sign * 0.3 * level, 0.0, 0.0, 1.0, 0.0], fill)


def shear_y(image: tf.Tensor, level: float, sign: tf.Tensor, fill: int) -> tf.Tensor:
    """Shift columns by up to 0.3 of their number."""
    return _moved(image, [1.0, 0.0, 0.0, sign * 0.3 * level, 1.0, 0.0], fill)


def translate_x(
    image: tf.Tensor, level: float, sign: tf.Tensor, fill: int
) -> tf.Tensor:
    """Move sideways by up to 0.3 of the width."""
    shift = sign * 0.3 * level * tf.cast(tf.shape(image)[1], tf.float32)
    return _moved(image, [1.0, 0.0, shift, 0.0, 1.0, 0.0], fill)


def translate_y(
    image: tf.Tensor, level: float, sign: tf.Tensor, fill: int
) -> tf.Tensor:
    """Move up or down by up to 0.3 of the height."""
    shift = sign * 0.3 * level * tf.cast(tf.shape(image)[0], tf.float32)
    return _moved(image, [1.0, 0.0, 0.0, 0.0, 1.0, shift], fill)


OPERATIONS: dict[str, Operation] = {
    "identity": identity,
    "autocontrast": autocontrast,
    "equalize": equalize,
    "rotate": rotate,
    "solarize": solarize,
    "color": color,
    "posterize": posterize,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpness,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
}
