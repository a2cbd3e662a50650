"""Compute perceptual hashes of an image and of its likely crops."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import io

import numpy as np
from PIL import Image
from scipy import fft

from vit_scaling.data.deduplication import likeness
from vit_scaling.data.deduplication.likeness import THUMBNAIL_SIDE, WHOLE_IMAGE, Box
from vit_scaling.data.writing.image_checks import to_eight_bits

_HASH_INPUT, _HASH_SIDE = 32, 8
# A coefficient sums 1,024 pixels with weights up to 4. Noise of 1.5 grey levels, which
# JPEG and resizing leave behind, moves it by 64 times the noise's deviation.
_NOISE = 96.0
_BORDER_GREY, _MIN_CONTENT = 24, 0.08
_SAME_COLOUR, _FLAT_FRACTION = 12, 0.4


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """A thumbnail of an image, and hashes of parts of it.

    Args:
        thumbnail: uint8 (96, 96, 3).
        hashes: uint64 (parts,).
        stable: Masks of the bits that noise cannot flip, uint64 (parts,).
        boxes: Positions of the parts, float32 (parts, 4).
        mirrored: Whether a part is mirrored, bool (parts,).
    """

    thumbnail: np.ndarray
    hashes: np.ndarray
    stable: np.ndarray
    boxes: np.ndarray
    mirrored: np.ndarray


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an opened image to 8-bit RGB; transparent pixels become white."""
    image = to_eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        image = Image.alpha_composite(white, layer)
    return image.convert("RGB")


def make_thumbnail(encoded: bytes) -> np.ndarray:
    """Decode an image and resize it to uint8 (96, 96, 3), whatever its aspect."""
    with Image.open(io.BytesIO(encoded)) as image:
        # JPEG is decoded at a lower resolution, which is faster.
        image.draft("RGB", (2 * THUMBNAIL_SIDE, 2 * THUMBNAIL_SIDE))
        rgb = to_rgb(image)
    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return np.asarray(rgb.resize(size, Image.Resampling.LANCZOS))


def fingerprint_evaluation_image(encoded: bytes) -> Fingerprint:
    """Return the fingerprint of an evaluation image: crops and mirror images too.

    A cropped copy is close to one of these parts.
    """
    thumbnail = make_thumbnail(encoded)
    boxes = _add_content_box(thumbnail, _crops())
    # A crop with hardly any contrast, of an image that has some, has lost the content.
    # Such crops are like those of any other image, so they are left out.
    contrasts = likeness.compute_contrasts(thumbnail, boxes)
    required = 0.0
    if contrasts[0] >= likeness.MIN_CONTRAST:  # Of the whole image.
        required = min(2 * likeness.MIN_CONTRAST, contrasts[0] / 2)
    keep = contrasts >= required
    boxes = [box for box, kept in zip(boxes, keep, strict=True) if kept]
    return _make_fingerprint(thumbnail, boxes, add_mirrored=True)


def fingerprint_training_image(encoded: bytes) -> Fingerprint:
    """Return the fingerprint of a training image: without borders and captions too.

    If the image is a copy with a border or a caption, the original is one of the parts.
    Of an image that is mostly one colour nothing but a border is cut off: a strip of
    a drawing may be all that tells it from another, as in A and Ä.
    """
    thumbnail = make_thumbnail(encoded)
    pixels = thumbnail.astype(np.int16)
    is_flat = np.abs(pixels - np.median(pixels, axis=(0, 1))).max(-1) < _SAME_COLOUR
    mostly_flat = is_flat.mean() > _FLAT_FRACTION
    kept = (WHOLE_IMAGE,) if mostly_flat else _insides()
    boxes = _add_content_box(thumbnail, kept)
    return _make_fingerprint(thumbnail, boxes, add_mirrored=False)


def fingerprint_whole_image(thumbnail: np.ndarray) -> Fingerprint:
    """Return a fingerprint with two hashes: of a thumbnail and of its mirror image."""
    return _make_fingerprint(thumbnail, [WHOLE_IMAGE], add_mirrored=True)


@functools.cache
def _crops() -> tuple[Box, ...]:
    """Return the whole image, and crops of 0.96 and 0.92 of its sides at 9 places."""
    boxes = [WHOLE_IMAGE]
    for side in (0.96, 0.92):
        starts = (0.0, (1 - side) / 2, 1 - side)
        boxes += [(x, y, x + side, y + side) for y in starts for x in starts]
    return tuple(boxes)


@functools.cache
def _insides() -> tuple[Box, ...]:
    """Return the whole image, and it without a strip below, above or all around."""
    heights = (0.06, 0.1, 0.14, 0.18)
    without_bottom = [(0.0, 0.0, 1.0, 1 - height) for height in heights]
    without_top = [(0.0, height, 1.0, 1.0) for height in heights]
    insets = (0.03, 0.055, 0.08)  # Borders that JPEG has blurred into the image.
    without_border = [(inset, inset, 1 - inset, 1 - inset) for inset in insets]
    return (WHOLE_IMAGE, *without_bottom, *without_top, *without_border)


def _add_content_box(thumbnail: np.ndarray, boxes: tuple[Box, ...]) -> list[Box]:
    """Return the boxes, and the area inside a border of one colour if there is one."""
    pixels = thumbnail.astype(np.int16)
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    is_content = np.abs(pixels - np.median(edges, axis=0)).max(-1) > _BORDER_GREY
    rows = np.flatnonzero(is_content.mean(1) > _MIN_CONTENT)
    columns = np.flatnonzero(is_content.mean(0) > _MIN_CONTENT)
    if min(len(rows), len(columns)) < THUMBNAIL_SIDE // 4:
        return list(boxes)
    edge_pixels = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    left, top, right, bottom = (edge / THUMBNAIL_SIDE for edge in edge_pixels)
    content = (left, top, right, bottom)
    return list(boxes) if content == WHOLE_IMAGE else [*boxes, content]


def _make_fingerprint(
    thumbnail: np.ndarray, boxes: list[Box], *, add_mirrored: bool
) -> Fingerprint:
    coefficients = _transform(thumbnail, boxes)
    mirrored = np.zeros(len(boxes), bool)
    if add_mirrored:  # Odd cosines change their signs.
        signs = (-1.0) ** np.arange(_HASH_SIDE)
        coefficients = np.concatenate([coefficients, coefficients * signs])
        mirrored = np.concatenate([mirrored, ~mirrored])
        boxes = boxes * 2
    hashes, stable = _compute_hashes(coefficients)
    return Fingerprint(thumbnail, hashes, stable, np.array(boxes, np.float32), mirrored)


def _transform(thumbnail: np.ndarray, boxes: list[Box]) -> np.ndarray:
    """Return the lowest coefficients of the cosine transform of grey parts.

    Each part is resized to 32×32 pixels first. Both are linear, so they are one product
    of matrices for each axis.

    Returns:
        (parts, 8, 8) float64.
    """
    grey = np.asarray(Image.fromarray(thumbnail).convert("L"), np.float64)
    columns = np.stack([_axis_matrix(left, right) for left, _, right, _ in boxes])
    rows = np.stack([_axis_matrix(top, bottom) for _, top, _, bottom in boxes])
    return rows @ grey @ columns.transpose(0, 2, 1)


@functools.lru_cache(maxsize=4096)
def _axis_matrix(low: float, high: float) -> np.ndarray:
    """Return (8, 96): from an axis of a thumbnail to a part's lowest coefficients."""
    identity = Image.fromarray(np.eye(THUMBNAIL_SIDE, dtype=np.float32))
    box = (THUMBNAIL_SIDE * low, 0, THUMBNAIL_SIDE * high, THUMBNAIL_SIDE)
    size = (_HASH_INPUT, THUMBNAIL_SIDE)
    weights = np.asarray(identity.resize(size, Image.Resampling.LANCZOS, box=box))
    return fft.dct(weights.T.astype(np.float64), axis=0)[:_HASH_SIDE]


def _compute_hashes(coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute 64-bit perceptual hashes from (images, 8, 8) coefficients.

    They have the bits of the ImageHash library's `phash`: whether each of the 8×8
    lowest coefficients of the cosine transform is above their median. The bits of the
    lowest frequencies are first, because only these are stable in a smooth image.

    Returns:
        The hashes and the masks of their stable bits, both uint64 (images,).
    """
    above = coefficients - np.median(coefficients, axis=(1, 2), keepdims=True)
    above = above.reshape(len(above), _HASH_SIDE**2)[:, _low_frequencies_first()]
    return _pack_bits(above > 0), _pack_bits(np.abs(above) > _NOISE)


def _pack_bits(bits: np.ndarray) -> np.ndarray:
    packed = np.ascontiguousarray(np.packbits(bits, axis=1))
    return packed.view(">u8").astype(np.uint64)[:, 0]


@functools.cache
def _low_frequencies_first() -> np.ndarray:
    """Return the order of the 64 coefficients: by square rings from the lowest."""
    row, column = np.divmod(np.arange(_HASH_SIDE**2), _HASH_SIDE)
    return np.lexsort((row, row + column, np.maximum(row, column)))
