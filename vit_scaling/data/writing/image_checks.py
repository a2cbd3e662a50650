"""Is this an image that training can use? Look once, when it is written."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

# What TensorFlow decodes, by Pillow's name.
READABLE = ("JPEG", "PNG", "GIF", "BMP")
_CHANNELS = {"1": 1, "L": 1, "I;16": 1, "I": 1, "P": 3, "RGB": 3, "RGBA": 4, "CMYK": 4}


@dataclasses.dataclass(frozen=True)
class CheckedImage:
    """An image that decodes, with what its record says of it."""

    encoded: bytes
    format: str
    height: int
    width: int
    channels: int


class UnusableImage(ValueError):
    """Says why an image is left out."""


def check_image(
    encoded: bytes,
    *,
    max_pixels: int,
    min_side: int = 1,
    reencode: str | None = None,
    quality: int = 95,
) -> CheckedImage:
    """Decode an image and return it with its size.

    Args:
        encoded: Its bytes.
        max_pixels: Larger images are refused before memory is asked for.
        min_side: Smaller images are refused.
        reencode: "jpeg" or "png" writes every image anew, as RGB; None keeps the bytes.
        quality: Of the JPEG.

    Raises:
        UnusableImage: It does not decode, is too large or small, or is of a format that
            TensorFlow cannot read (unless it is re-encoded).
    """
    from PIL import Image, ImageFile

    if not encoded:
        raise UnusableImage("0 bytes")
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    Image.MAX_IMAGE_PIXELS = None  # Our own limit stands below and names itself.
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            _check_size(image.size, max_pixels, min_side)
            image.load()
            if reencode:
                return _reencoded(image, reencode, quality)
            if image.format not in READABLE:
                raise UnusableImage(
                    f"format {image.format} cannot be read in training; re-encode"
                )
            width, height = image.size
            channels = _CHANNELS.get(image.mode, len(image.getbands()))
            return CheckedImage(encoded, str(image.format), height, width, channels)
    except UnusableImage:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files.
        text = str(error) or type(error).__name__
        if "cannot identify image" in text:
            text = "no known image format"
        raise UnusableImage(f"does not decode ({text})") from error


def _check_size(size: tuple[int, int], max_pixels: int, min_side: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise UnusableImage(f"{width}×{height} is more than {max_pixels} pixels")
    if min(size) < min_side:
        raise UnusableImage(f"{width}×{height} has a side below {min_side}")


def eight_bit(image: "Image.Image") -> "Image.Image":
    """Return an opened image with 8 bits a channel: of 16-bit grey the upper byte.

    Pillow's own conversion makes all above 255 white. The upper byte is what
    TensorFlow's decoder takes, so it is what training sees.
    """
    from PIL import Image

    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image).astype(np.int64) >> 8
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _reencoded(image: "Image.Image", reencode: str, quality: int) -> CheckedImage:
    rgb = eight_bit(image).convert("RGB")
    buffer = io.BytesIO()
    options = {"quality": quality} if reencode == "jpeg" else {}
    rgb.save(buffer, reencode.upper(), **options)
    return CheckedImage(buffer.getvalue(), reencode.upper(), rgb.height, rgb.width, 3)
