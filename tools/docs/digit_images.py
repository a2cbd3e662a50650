"""Write scikit-learn's handwritten digits as a folder of images by class.

python tools/docs/digit_images.py FOLDER [IMAGES_PER_CLASS [FIRST]]
"""
# SPDX-License-Identifier: Apache-2.0

import pathlib
import sys

from PIL import Image
from sklearn.datasets import load_digits


def main() -> None:
    """Write FOLDER/CLASS/NUMBER.png."""
    folder = pathlib.Path(sys.argv[1])
    per_class = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    first = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    digits = load_digits()
    names = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
    ]
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number, pixels in enumerate(digits.images[digits.target == label]):
            if first <= number < first + per_class:
                image = Image.fromarray((pixels * 15.9375).astype("uint8"))
                image.resize((32, 32)).convert("RGB").save(
                    folder / name / f"{number}.png"
                )


if __name__ == "__main__":
    main()
