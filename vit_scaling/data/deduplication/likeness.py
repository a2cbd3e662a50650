"""Compare parts of thumbnails pixel by pixel."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence

import numpy as np
from PIL import Image

THUMBNAIL_SIDE = 96  # Every image is resized to this width and height first.
COMPARED_SIDE = 28  # Of 32 pixels: the margin, blurred by borders, is left out.
_MARGIN = 2
# Thumbnails whose pixels deviate less than this, in grey levels, count as one colour.
MIN_CONTRAST = 3.0
_SAME_COLOUR_GREY = 12.0  # Largest difference between two images of the same colour.
# In a copy, a sixteenth of the image differs from the original, with the tones matched,
# by at most this many grey levels or this fraction of its contrast.
_LOCAL_GREY, _LOCAL_FRACTION, _LOCAL_SIDE = 20.0, 0.3, 7

# (left, top, right, bottom) as fractions of the image's width and height.
Box = tuple[float, float, float, float]
WHOLE_IMAGE: Box = (0.0, 0.0, 1.0, 1.0)


def to_pixels(box: Sequence[float] | np.ndarray) -> Box:
    """Return a box in pixels of a thumbnail."""
    left, top, right, bottom = (THUMBNAIL_SIDE * float(edge) for edge in box)
    return left, top, right, bottom


def cut_part(
    thumbnail: np.ndarray, box: Sequence[float] | np.ndarray, *, mirrored: bool
) -> np.ndarray:
    """Resize a part of a thumbnail, without its margin, to float32 (28, 28, 3)."""
    side = COMPARED_SIDE + 2 * _MARGIN
    resized = Image.fromarray(thumbnail).resize(
        (side, side), Image.Resampling.BILINEAR, box=to_pixels(box)
    )
    part = np.asarray(resized, np.float32)[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return part[:, ::-1] if mirrored else part


def compute_contrast(thumbnail: np.ndarray, box: Box) -> float:
    """Return the standard deviation in grey levels of a part without its margin."""
    left, top, right, bottom = to_pixels(box)
    fraction = _MARGIN / (COMPARED_SIDE + 2 * _MARGIN)
    x, y = fraction * (right - left), fraction * (bottom - top)
    rows = slice(round(top + y), round(bottom - y))
    columns = slice(round(left + x), round(right - x))
    inside = thumbnail[rows, columns].astype(np.float32)
    return float((inside - inside.mean((0, 1))).std())


def compute_likeness(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of two parts, -1 to 1: the lower of two versions.

    One is over all pixels and colours, the other after subtracting each colour's mean,
    without which any two bluish images would be alike. Brightness and contrast do not
    matter.
    """
    overall = _correlation(first - first.mean(), second - second.mean())
    by_colour = _correlation(first - first.mean((0, 1)), second - second.mean((0, 1)))
    if overall is None or by_colour is None:  # An image of one colour.
        difference = float(np.abs(first - second).max())
        return 1.0 if difference < _SAME_COLOUR_GREY else -1.0
    return min(overall, by_colour)


def _correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return the correlation of centred values, or None without enough contrast."""
    deviations = _root_mean_square(first), _root_mean_square(second)
    if min(deviations) < MIN_CONTRAST:
        return None
    return float((first * second).mean()) / (deviations[0] * deviations[1])


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))


def differs_locally(original: np.ndarray, other: np.ndarray) -> bool:
    """Whether two similar parts differ in one place more than a copy would.

    Drawings of one family (cards, road signs, clocks) are alike as a whole and differ
    in a sixteenth of their area.
    """
    first, second = original - original.mean((0, 1)), other - other.mean((0, 1))
    scale = float((first * second).mean()) / max(float((first**2).mean()), 1e-6)
    squares = (second - scale * first) ** 2
    blocks = COMPARED_SIDE // _LOCAL_SIDE
    by_block = squares.reshape(blocks, _LOCAL_SIDE, blocks, _LOCAL_SIDE, 3)
    largest = float(np.sqrt(by_block.mean((1, 3, 4)).max()))
    limit = max(_LOCAL_GREY, _LOCAL_FRACTION * _root_mean_square(second))
    return largest > limit
