"""scikit-learn's handwritten digits as images to write."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import io
from typing import Any

import numpy as np

from vit_scaling.data.writing.image_entries import Entry


@dataclasses.dataclass(frozen=True)
class Digits:
    """scikit-learn's handwritten digits: 1,797 real images of 8×8, no download.

    Args:
        split: "test" (every fifth image, 359) or "train" (the other 1,438). Both
            contain all writers: this is a first example, not a benchmark.
        scale: Factor by which each image is enlarged in both directions.

    References: Alpaydin and Kaynak 1998, the UCI test set of optical digits.
    """

    split: str = "train"
    scale: int = 1

    def __post_init__(self) -> None:
        if self.split not in ("train", "test"):
            raise ValueError(
                f"`split` of the digits must be train or test; received {self.split!r}."
            )

    def class_names(self) -> tuple[str, ...]:
        """Return "0" to "9"."""
        return tuple("0123456789")

    def entries(self) -> list[Entry]:
        """Return the images of the split."""
        wanted = self.split == "test"
        return [
            Entry(f"digits/{i:04d}.png", (str(target),), i, 200)
            for i, target in enumerate(_digits().target)
            if (i % 5 == 4) == wanted
        ]

    def read(self, entry: Entry) -> bytes:
        """Return the image as a grey PNG, its 17 levels spread over 0 to 255."""
        from PIL import Image

        levels = _digits().images[entry.place]
        pixels = np.round(levels * (255 / 16)).astype(np.uint8)
        pixels = pixels.repeat(self.scale, axis=0).repeat(self.scale, axis=1)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()


@functools.cache
def _digits() -> Any:
    from sklearn.datasets import load_digits  # pip install scikit-learn

    return load_digits()
