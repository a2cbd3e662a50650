"""Perceptual hashes of an image and its likely crops, to find near-duplicates."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_scaling.data.writing.image_checks import to_eight_bits

SIDE = 96  # Every image is first brought to this size, aspect lost.
_HASH_INPUT, _HASH_SIDE = 32, 8
COMPARED_SIDE = 28  # Of 32: the margin, into which borders blur, is left out.
_MARGIN = 2
# What copying leaves of a picture: a sixteenth of it differs from the original, its
# tone matched, by at most so many grey levels or this share of its contrast.
_LOCAL_GREY, _LOCAL_SHARE, _LOCAL_SIDE = 20.0, 0.3, 7
# Pictures that vary less are of one colour; they are alike if no pixel is further off.
_PLAIN_SPREAD, _PLAIN_GREY = 3.0, 12.0
# A coefficient sums 1,024 pixels with weights up to 4: noise of 1.5 grey levels, which
# JPEG and resizing leave behind, moves it by so much (64 times the noise's deviation).
_NOISE = 96.0

# A box is (left, top, right, bottom) in shares of the image.
Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """What is kept of an image: a small picture, and hashes of parts of it.

    Args:
        pixels: uint8 (96, 96, 3).
        hashes: uint64 (parts,).
        certain: Which bits of each hash noise cannot turn over, uint64 (parts,).
        boxes: Of the parts, float32 (parts, 4).
        flipped: Whether a part is mirrored, bool (parts,).
    """

    pixels: np.ndarray
    hashes: np.ndarray
    certain: np.ndarray
    boxes: np.ndarray
    flipped: np.ndarray


def small_picture(encoded: bytes) -> np.ndarray:
    """Decode an image to uint8 (96, 96, 3); transparency becomes white."""
    from PIL import Image

    with Image.open(io.BytesIO(encoded)) as opened:
        opened.draft("RGB", (2 * SIDE, 2 * SIDE))  # JPEG: decode at a lower size.
        image = to_eight_bits(opened)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            layer = image.convert("RGBA")
            white = Image.new("RGBA", layer.size, "white")
            rgb = Image.alpha_composite(white, layer).convert("RGB")
        else:
            rgb = image.convert("RGB")
    return np.asarray(rgb.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def of_evaluation(encoded: bytes) -> Fingerprint:
    """Return the fingerprint of an evaluation image: crops and mirror images too.

    A copy that was cropped lies near one of these parts.
    """
    pixels = small_picture(encoded)
    boxes = _with_frame(_frame(pixels), _crops())
    # A crop that hardly varies, while the whole does, has left the content outside: all
    # such crops are alike, and say nothing of what they were cut from.
    whole = _spread(pixels, WHOLE)
    least = 0.0 if whole < _PLAIN_SPREAD else min(2 * _PLAIN_SPREAD, whole / 2)
    shown = [box for box in boxes if box == WHOLE or _spread(pixels, box) >= least]
    return _fingerprint(pixels, shown, flips=True)


def of_training(encoded: bytes) -> Fingerprint:
    """Return the fingerprint of a training image: without borders and captions too.

    A copy that got a border or a caption has the original as one of these parts.
    """
    pixels = small_picture(encoded)
    return _fingerprint(pixels, _with_frame(_frame(pixels), _strips()), flips=False)


def of_whole(pixels: np.ndarray) -> Fingerprint:
    """Return the fingerprint of a small picture as it is and mirrored: two hashes."""
    return _fingerprint(pixels, [WHOLE], flips=True)


@functools.cache
def _crops() -> tuple[Box, ...]:
    """Return parts of 0.96 and 0.92 of each side, at nine places, and the whole."""
    boxes = [WHOLE]
    for side in (0.96, 0.92):
        places = (0.0, (1 - side) / 2, 1 - side)
        boxes += [(x, y, x + side, y + side) for y in places for x in places]
    return tuple(boxes)


@functools.cache
def _strips() -> tuple[Box, ...]:
    """Return the whole, and it without a strip below, above or all around."""
    heights = (0.06, 0.1, 0.14, 0.18)
    below = [(0.0, 0.0, 1.0, 1 - height) for height in heights]
    above = [(0.0, height, 1.0, 1.0) for height in heights]
    insets = (0.03, 0.055, 0.08)  # Borders that JPEG has blurred into the image.
    inside = [(inset, inset, 1 - inset, 1 - inset) for inset in insets]
    return (WHOLE, *below, *above, *inside)


def _with_frame(frame: Box, boxes: tuple[Box, ...]) -> list[Box]:
    """Return boxes, and the inside of the frame if the image has one."""
    return list(boxes) if frame == WHOLE else [*boxes, frame]


def _frame(pixels: np.ndarray) -> Box:
    """Return what lies inside a border of one colour; the whole if there is none."""
    values = pixels.astype(np.int16)
    far = np.abs(values - np.median(_edge(values), axis=0)).max(-1) > 24
    rows = np.flatnonzero(far.mean(1) > 0.08)
    columns = np.flatnonzero(far.mean(0) > 0.08)
    if len(rows) < SIDE // 4 or len(columns) < SIDE // 4:
        return WHOLE
    left, right = columns[0] / SIDE, (columns[-1] + 1) / SIDE
    return (left, rows[0] / SIDE, right, (rows[-1] + 1) / SIDE)


def _edge(values: np.ndarray) -> np.ndarray:
    sides = [values[0], values[-1], values[:, 0], values[:, -1]]
    return np.concatenate(sides)


def _fingerprint(pixels: np.ndarray, boxes: list[Box], *, flips: bool) -> Fingerprint:
    grey = _picture(pixels).convert("L")
    hashes, certain = part_hashes(grey, boxes)
    flipped = np.zeros(len(boxes), bool)
    if flips:
        turned = part_hashes(grey, boxes, mirror=True)
        hashes = np.concatenate([hashes, turned[0]])
        certain = np.concatenate([certain, turned[1]])
        flipped = np.concatenate([flipped, ~flipped])
        boxes = boxes * 2
    return Fingerprint(pixels, hashes, certain, np.array(boxes, np.float32), flipped)


def _spread(pixels: np.ndarray, box: Box) -> float:
    """Return by how many grey levels a part varies; margins are not compared."""
    left, top, right, bottom = (SIDE * edge for edge in box)
    share = _MARGIN / _HASH_INPUT
    x, y = share * (right - left), share * (bottom - top)
    rows = slice(round(top + y), round(bottom - y))
    inside = pixels[rows, round(left + x) : round(right - x)].astype(np.float32)
    return float((inside - inside.mean((0, 1))).std())


def _picture(pixels: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(pixels)


def part_hashes(
    grey: Any, boxes: list[Box], *, mirror: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return 64-bit perceptual hashes of parts of a grey Pillow image.

    The bits of the ImageHash library's `phash` (the 8×8 lowest cosine coefficients of
    the 32×32 picture, each above their median or not), the lowest frequencies first:
    those of a smooth picture, a sky say, are all that noise leaves alone.

    Returns:
        The hashes and which of their bits are certain, both uint64 (parts,).
    """
    from PIL import Image

    width, height = grey.size
    size = (_HASH_INPUT, _HASH_INPUT)
    small = np.stack(
        [
            grey.resize(
                size,
                Image.Resampling.LANCZOS,
                box=(left * width, top * height, right * width, bottom * height),
            )
            for left, top, right, bottom in boxes
        ]
    ).astype(np.float64)
    if mirror:
        small = small[:, :, ::-1]
    waves = _cosines()
    low = waves @ small @ waves.T  # (parts, 8, 8)
    above = low - np.median(low, axis=(1, 2), keepdims=True)
    above = above.reshape(len(boxes), 64)[:, _low_first()]
    return _packed(above > 0), _packed(np.abs(above) > _NOISE)


def _packed(bits: np.ndarray) -> np.ndarray:
    return (
        np.ascontiguousarray(np.packbits(bits, axis=1))
        .view(">u8")
        .astype(np.uint64)[:, 0]
    )


@functools.cache
def _low_first() -> np.ndarray:
    """Return the 64 coefficients' order: by square rings from the lowest on."""
    row, column = np.divmod(np.arange(64), _HASH_SIDE)
    return np.lexsort((row, row + column, np.maximum(row, column)))


@functools.cache
def _cosines() -> np.ndarray:
    """Return the first 8 waves of the discrete cosine transform of length 32."""
    wave, place = np.arange(_HASH_SIDE)[:, None], np.arange(_HASH_INPUT)[None, :]
    return 2 * np.cos(np.pi * wave * (2 * place + 1) / (2 * _HASH_INPUT))


def part(
    pixels: np.ndarray, box: Sequence[float] | np.ndarray, *, flipped: bool
) -> np.ndarray:
    """Return the inner 28×28 of a part of a small picture, float32 (28, 28, 3)."""
    from PIL import Image

    scaled = tuple(SIDE * float(edge) for edge in box)
    side = COMPARED_SIDE + 2 * _MARGIN
    taken = _picture(pixels).resize((side, side), Image.Resampling.BILINEAR, box=scaled)
    values = np.asarray(taken, np.float32)[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return values[:, ::-1] if flipped else values


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of two pictures, -1…1: the lower one of two ways.

    Over all pixels and colours; and with each colour's own mean taken away, for else
    any two bluish pictures would be alike. Brightness and contrast do not matter.
    """
    colours = one.mean((0, 1)), other.mean((0, 1))
    apart = _correlation(one - colours[0], other - colours[1])
    whole = _correlation(one - one.mean(), other - other.mean())
    if apart is None or whole is None:  # Pictures of one colour: is it the same?
        return 1.0 if float(np.abs(one - other).max()) < _PLAIN_GREY else -1.0
    return min(whole, apart)


def _correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return the correlation of centred values; None where one hardly varies."""
    spread = float(np.sqrt((first**2).mean())), float(np.sqrt((second**2).mean()))
    if min(spread) < _PLAIN_SPREAD:
        return None
    return float((first * second).mean()) / (spread[0] * spread[1])


def differ_somewhere(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two like pictures differ in one place more than copies do.

    Drawings of one family (cards, road signs, clocks) are alike as a whole and differ
    in a sixteenth of their area.
    """
    first, second = one - one.mean((0, 1)), other - other.mean((0, 1))
    scale = float((first * second).mean()) / max(float((first**2).mean()), 1e-6)
    squares = (second - scale * first) ** 2
    places = COMPARED_SIDE // _LOCAL_SIDE
    blocks = squares.reshape(places, _LOCAL_SIDE, places, _LOCAL_SIDE, 3)
    worst = float(np.sqrt(blocks.mean((1, 3, 4)).max()))
    contrast = float(np.sqrt((second**2).mean()))
    return worst > _LOCAL_GREY and worst > _LOCAL_SHARE * contrast
