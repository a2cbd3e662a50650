"""Which of the files in a folder or tar file are images of a class."""
# SPDX-License-Identifier: Apache-2.0

import re
from collections.abc import Callable, Collection

# Of formats that cannot be decoded, too: the writer then names the images left out.
# fmt: off
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp", ".png", ".apng", ".gif",
    ".bmp", ".dib", ".webp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jp2",
)
# fmt: on

HIDDEN = "hidden"
NOT_AN_IMAGE = "not an image"
MISSING_TARGET = "link to a missing file"
NOT_A_FILE = "not a regular file"

_HEAD_BYTES = 16
# Folders of macOS, Synology, QNAP, Windows and Linux; none has images of a class.
_SYSTEM_FOLDERS = frozenset(
    [
        "__MACOSX",
        "@eaDir",
        "#recycle",
        "#snapshot",
        "@Recycle",
        "@Recently-Snapshot",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
    ]
)
_SPLITS = frozenset(
    [
        "train",
        "training",
        "val",
        "valid",
        "validation",
        "dev",
        "eval",
        "test",
        "testing",
    ]
)
# First bytes of JPEG, PNG, GIF, BMP, WebP, TIFF, and of HEIF and AVIF.
_IMAGE_HEAD = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|BM.{4}\0\0\0\0|RIFF.{4}WEBP"
    rb"|II\*\0|MM\0\*|....ftyp(heic|heix|mif1|avif)",
    re.DOTALL,
)


def is_image(name: str, read_head: Callable[[int], bytes]) -> bool:
    """Whether a file is an image, by its suffix or else by its first bytes.

    Args:
        name: The file's name.
        read_head: Called with a number of bytes to read from the file's start; only if
            the suffix is not an image's, because opening every file is slow.
    """
    if name.lower().endswith(IMAGE_SUFFIXES):
        return True
    return bool(_IMAGE_HEAD.match(read_head(_HEAD_BYTES)))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden or the operating system's own."""
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def check_not_splits(names: Collection[str], where: str) -> None:
    """Raise ValueError if two classes, or all, are named like splits (train, val, …).

    A single one may be a class: a train next to a bus.
    """
    splits = sorted(name for name in names if name.lower() in _SPLITS)
    if len(splits) > 1 or (splits and len(splits) == len(names)):
        raise ValueError(
            f"{where} has {', '.join(splits)} in place of classes; these are splits. "
            "Write each split from its own source, for example "
            f"folder:PATH/{splits[0]}."
        )
