"""Check that training can decode an image, before it is written to a record."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

# Formats that TensorFlow decodes, by Pillow's names.
_READABLE = ("JPEG", "PNG", "GIF", "BMP")
_CHANNELS = {"1": 1, "L": 1, "I;16": 1, "I": 1, "P": 3, "RGB": 3, "RGBA": 4, "CMYK": 4}


@dataclasses.dataclass(frozen=True)
class CheckedImage:
    """An image that can be decoded, and its properties."""

    encoded: bytes
    format: str
    height: int
    width: int
    channels: int


class UnusableImage(ValueError):
    """An image that training cannot use; the message is the reason."""


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
        encoded: The image's bytes.
        max_pixels: Larger images raise, before memory is allocated.
        min_side: Images with a smaller side raise.
        reencode: "jpeg" or "png" re-encodes the image as RGB; None keeps the bytes.
        quality: JPEG quality.

    Raises:
        UnusableImage: The image does not decode, is too large or small, or has a format
            that TensorFlow cannot read (unless it is re-encoded).
    """
    from PIL import Image, ImageFile

    if not encoded:
        raise UnusableImage("0 bytes")
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    Image.MAX_IMAGE_PIXELS = None  # `max_pixels` is checked instead.
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            _check_size(image.size, max_pixels, min_side)
            image.load()
            if reencode:
                return _reencode(image, reencode, quality)
            if image.format not in _READABLE:
                raise UnusableImage(
                    f"format {image.format} cannot be read in training; re-encode"
                )
            width, height = image.size
            channels = _CHANNELS.get(image.mode, len(image.getbands()))
            return CheckedImage(encoded, str(image.format), height, width, channels)
    except UnusableImage:
        raise
    except Exception as error:  # Pillow raises many types for damaged files.
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


def to_eight_bits(image: "Image.Image") -> "Image.Image":
    """Return an image with 8 bits per channel: the upper byte of 16-bit grey.

    Pillow's own conversion makes all values above 255 white. TensorFlow's decoder, and
    so training, takes the upper byte.
    """
    from PIL import Image

    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image).astype(np.int64) >> 8
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _reencode(image: "Image.Image", kind: str, quality: int) -> CheckedImage:
    rgb = to_eight_bits(image).convert("RGB")
    buffer = io.BytesIO()
    options = {"quality": quality} if kind == "jpeg" else {}
    rgb.save(buffer, kind.upper(), **options)
    return CheckedImage(buffer.getvalue(), kind.upper(), rgb.height, rgb.width, 3)
