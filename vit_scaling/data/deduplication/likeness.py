"""Compare parts of thumbnails pixel by pixel."""
# SPDX-License-Identifier: Apache-2.0

import functools
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
_LOCAL_GREY, _LOCAL_FRACTION, _LOCAL_BLOCKS = 20.0, 0.3, 4
_LINE_ROWS = 4  # Of 28: text of up to 10 % of the height, wherever it begins.
_GREY_SPREAD = 6.0  # Between the channels of a grey pixel, after JPEG.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # Pillow's "L".

# (left, top, right, bottom) as fractions of the image's width and height.
Box = tuple[float, float, float, float]
WHOLE_IMAGE: Box = (0.0, 0.0, 1.0, 1.0)


def to_pixels(box: Sequence[float] | np.ndarray) -> Box:
    """Return a box in pixels of a thumbnail."""
    left, top, right, bottom = (THUMBNAIL_SIDE * float(edge) for edge in box)
    return left, top, right, bottom


def cut_part(
    thumbnail: np.ndarray, box: Sequence[float] | np.ndarray, *, mirrored: bool
) -> "Part":
    """Return a part of a thumbnail, resized, without its margin."""
    side = COMPARED_SIDE + 2 * _MARGIN
    resized = Image.fromarray(thumbnail).resize(
        (side, side), Image.Resampling.BILINEAR, box=to_pixels(box)
    )
    part = np.asarray(resized, np.float32)[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return Part(part[:, ::-1] if mirrored else part)


def compute_contrasts(thumbnail: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
    """Return the standard deviation in grey levels of parts without their margins.

    Args:
        thumbnail: uint8 (96, 96, 3).
        boxes: Of the parts.

    Returns:
        (parts,) float64, over all pixels with each colour's mean subtracted.
    """
    left, top, right, bottom = THUMBNAIL_SIDE * np.array(boxes).T
    fraction = _MARGIN / (COMPARED_SIDE + 2 * _MARGIN)
    x, y = fraction * (right - left), fraction * (bottom - top)
    edges = np.rint([left + x, top + y, right - x, bottom - y]).astype(np.int64)
    left, top, right, bottom = edges
    powers = thumbnail[..., None] ** np.array([1.0, 2.0])  # (96, 96, 3, 2)
    sums = np.pad(powers.cumsum(0).cumsum(1), ((1, 0), (1, 0), (0, 0), (0, 0)))
    totals = sums[bottom, right] - sums[top, right]
    totals += sums[top, left] - sums[bottom, left]  # (parts, 3, 2)
    means = totals / ((right - left) * (bottom - top))[:, None, None]
    variances = means[..., 1] - means[..., 0] ** 2
    return np.sqrt(variances.mean(1).clip(0))


class Part:
    """A part of a thumbnail, prepared for comparisons with many others.

    Attributes:
        pixels: float32 (28, 28, 3), or fewer rows.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    @functools.cached_property
    def is_grey(self) -> bool:
        """Whether it has no colours."""
        return float(np.ptp(self.pixels, axis=-1).max()) < _GREY_SPREAD

    @functools.cached_property
    def grey(self) -> "Part":
        """The same part without its colours."""
        return Part(np.repeat((self.pixels @ _LUMA)[..., None], 3, axis=-1))

    @functools.cached_property
    def units(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Its values as two vectors of length 1; None without enough contrast.

        The mean of all values is subtracted, or each colour's.
        """
        means = self.pixels.mean(), self.pixels.mean((0, 1))
        centred = [(self.pixels - mean).ravel() for mean in means]
        lengths = [float(np.sqrt(values @ values)) for values in centred]
        if min(lengths) < MIN_CONTRAST * self.pixels.size**0.5:
            return None
        return centred[0] / lengths[0], centred[1] / lengths[1]

    def likeness(self, other: "Part") -> float:
        """Return the correlation with another part, -1 to 1: the lower of two versions.

        One is over all pixels and colours, the other after subtracting each colour's
        mean, without which any two bluish images would be alike. Brightness and
        contrast do not matter. If one part is grey, as a grey copy is, the other is
        compared without its colours.
        """
        if self.is_grey != other.is_grey:
            return self.grey.likeness(other.grey)
        if self.units is None or other.units is None:
            difference = float(np.abs(self.pixels - other.pixels).max())
            return 1.0 if difference < _SAME_COLOUR_GREY else -1.0
        pairs = zip(self.units, other.units, strict=True)
        return min(float(first @ second) for first, second in pairs)


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))


def differs_locally(original: Part, other: Part) -> bool:
    """Whether two similar parts differ in one place more than a copy would.

    Drawings of one family (cards, road signs, clocks) are alike as a whole and differ
    in a sixteenth of their area.
    """
    if original.is_grey != other.is_grey:
        original, other = original.grey, other.grey
    first, second = (
        part.pixels - part.pixels.mean((0, 1)) for part in (original, other)
    )
    scale = float((first * second).mean()) / max(float((first**2).mean()), 1e-6)
    squares = (second - scale * first) ** 2
    rows, columns = (side // _LOCAL_BLOCKS for side in squares.shape[:2])
    by_block = squares.reshape(_LOCAL_BLOCKS, rows, _LOCAL_BLOCKS, columns, 3)
    largest = float(np.sqrt(by_block.mean((1, 3, 4)).max()))
    limit = max(_LOCAL_GREY, _LOCAL_FRACTION * _root_mean_square(second))
    return largest > limit


def leave_out_line(first: Part, second: Part) -> tuple[Part, Part]:
    """Return two parts without the four rows in which they differ most.

    A line of text that was written over a copy is in them.
    """
    if first.is_grey != second.is_grey:
        first, second = first.grey, second.grey
    by_row = ((first.pixels - second.pixels) ** 2).mean((1, 2))
    in_window = np.convolve(by_row, np.ones(_LINE_ROWS), "valid")
    rows = int(in_window.argmax()) + np.arange(_LINE_ROWS)
    kept = (np.delete(part.pixels, rows, axis=0) for part in (first, second))
    return Part(next(kept)), Part(next(kept))
