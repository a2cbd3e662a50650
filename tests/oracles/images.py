"""Image operations in float64 NumPy, written from their definitions (facts 9.5)."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, half-pixel centres, no antialiasing."""
    return _along(_along(image.astype(np.float64), height, 0), width, 1)


def _along(image: np.ndarray, size: int, axis: int) -> np.ndarray:
    old = image.shape[axis]
    place = (np.arange(size) + 0.5) * old / size - 0.5
    low = np.floor(place)
    weight = place - low
    first = np.clip(low, 0, old - 1).astype(int)
    second = np.clip(low + 1, 0, old - 1).astype(int)
    shape = [1, 1, 1]
    shape[axis] = size
    weight = weight.reshape(shape)
    return (
        np.take(image, first, axis) * (1 - weight)
        + np.take(image, second, axis) * weight
    )


def area(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Mean over the area that each new pixel covers."""
    rows = _coverage(image.shape[0], height)
    columns = _coverage(image.shape[1], width)
    return np.einsum("ih,jw,hwc->ijc", rows, columns, image.astype(np.float64))


def _coverage(old: int, new: int) -> np.ndarray:
    scale = old / new
    starts, ends = np.arange(new) * scale, (np.arange(new) + 1) * scale
    pixels = np.arange(old)
    covered = np.minimum(ends[:, None], pixels + 1) - np.maximum(
        starts[:, None], pixels
    )
    return np.clip(covered, 0, None) / scale


def rounded_small(height: int, width: int, size: int) -> tuple[int, int]:
    """The size after the smaller side became `size`."""
    factor = size / min(height, width)
    return round(height * factor), round(width * factor)
