"""Check that training can decode an image, before it is written to a record."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import io
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from vit_scaling import image_preprocessing
from vit_scaling.library_messages import short_message

if TYPE_CHECKING:
    from PIL import Image

# Formats that TensorFlow decodes, from Pillow's names. MPO is a JPEG with more images.
_FORMATS = {name: name for name in ("JPEG", "PNG", "GIF", "BMP", "WEBP")}
_FORMATS["MPO"] = "JPEG"
_CHANNELS = {"1": 1, "L": 1, "I;16": 1, "I": 1, "P": 3, "RGB": 3, "RGBA": 4, "CMYK": 4}
_ORIENTATION = 0x0112  # The EXIF tag.


@dataclasses.dataclass(frozen=True)
class CheckedImage:
    """An image that training can decode, and its properties.

    Attributes:
        converted: Whether training cannot read the original file.
    """

    encoded: bytes
    format: str
    height: int
    width: int
    channels: int
    converted: bool = False


class UnusableImage(ValueError):
    """An image that training cannot use; the message is the reason."""


def check_image(encoded: bytes, *, max_pixels: int, min_side: int = 1) -> CheckedImage:
    """Decode an image as training does and return it with its size.

    Args:
        encoded: The image's bytes.
        max_pixels: Larger images raise, before memory is allocated.
        min_side: Images with a smaller side raise.

    Raises:
        UnusableImage: The image is too large or small, or training cannot decode it.
    """
    image = _read_header(encoded, max_pixels, min_side)
    _decode(image)
    return image


def prepare_image(
    encoded: bytes,
    *,
    max_pixels: int,
    min_side: int = 1,
    reencode: str | None = None,
    quality: int = 95,
) -> CheckedImage:
    """Return an image in a form that training decodes.

    An intact image that only Pillow can read, such as a TIFF or a BMP with a palette,
    is converted to PNG.

    Args:
        encoded: The image's bytes.
        max_pixels: Larger images raise, before memory is allocated.
        min_side: Images with a smaller side raise.
        reencode: "jpeg" or "png" re-encodes the image as RGB; None keeps the bytes.
        quality: JPEG quality.

    Raises:
        UnusableImage: The image is damaged, too large or small, or its pixels cannot be
            converted to 8 bits.
    """
    image = _read_header(encoded, max_pixels, min_side)
    try:
        pixels = _decode(image)
    except UnusableImage:
        if not _is_convertible(image):
            raise
        pixels = _decode_with_pillow(encoded)
        return _encode(pixels, reencode or "png", quality, converted=True)
    return _encode(pixels, reencode, quality) if reencode else image


def _read_header(encoded: bytes, max_pixels: int, min_side: int) -> CheckedImage:
    from PIL import Image

    if not encoded:
        raise UnusableImage("0 bytes")
    Image.MAX_IMAGE_PIXELS = None  # `max_pixels` is checked instead.
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            width, height = image.size
            channels = _CHANNELS.get(image.mode, len(image.getbands()))
            name = str(image.format)
    except Exception as error:  # Pillow raises many types for damaged files.
        raise _unusable(error) from error
    _check_size((width, height), max_pixels, min_side)
    return CheckedImage(encoded, _FORMATS.get(name, name), height, width, channels)


def _decode(image: CheckedImage) -> np.ndarray:
    """Return the pixels that training would see, uint8 (height, width, 3)."""
    if image.format not in _FORMATS:
        raise UnusableImage(
            f"format {image.format} cannot be read in training; re-encode"
        )
    try:
        return image_preprocessing.decode_bytes(image.encoded)
    except tf.errors.InvalidArgumentError as error:
        raise _unusable(error) from error


def _is_convertible(image: CheckedImage) -> bool:
    """Whether TensorFlow lacks support; in its other formats it rejects only damage."""
    data = image.encoded
    is_animation = data[12:16] == b"VP8X" and bool(data[20] & 2)
    return image.format not in _FORMATS or image.format == "BMP" or is_animation


def _decode_with_pillow(encoded: bytes) -> np.ndarray:
    """Return an image's stored pixels, uint8 (height, width, 3)."""
    from PIL import Image, ImageFile

    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            # Pillow applies a TIFF's orientation; training ignores that of JPEGs.
            image.getexif().pop(_ORIENTATION, None)
            image.load()
            _check_mode(image)
            return np.asarray(to_eight_bits(image).convert("RGB"))
    except UnusableImage:
        raise
    except Exception as error:  # Pillow raises many types for damaged files.
        raise _unusable(error) from error


def _check_mode(image: "Image.Image") -> None:
    is_deep = image.mode == "I" and np.any(np.asarray(image) >> 16)
    if is_deep or image.mode == "F":
        raise UnusableImage(
            f"its pixels (mode {image.mode}) are not of 8 or 16 bits; convert it first"
        )


def _unusable(error: Exception) -> UnusableImage:
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    text = short_message(text) or type(error).__name__
    if "cannot identify image" in text:
        text = "no known image format"
    return UnusableImage(f"does not decode ({text})")


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


def _encode(
    pixels: np.ndarray, kind: str, quality: int, *, converted: bool = False
) -> CheckedImage:
    from PIL import Image

    buffer = io.BytesIO()
    options = {"quality": quality} if kind == "jpeg" else {}
    Image.fromarray(pixels).save(buffer, kind.upper(), **options)
    height, width = pixels.shape[:2]
    return CheckedImage(
        buffer.getvalue(), kind.upper(), height, width, 3, converted=converted
    )
