"""Made-up features of classes that overlap, for the tests here."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np

from vit_scaling.evaluation.fewshot import FeatureSet


def blobs(
    classes=7, width=24, train=12, test=9, *, noise=2.0, seed=0, dtype=np.float32
):
    """A set with `train` and `test` images of every class, in shuffled order."""
    generator = np.random.default_rng(seed)
    # Features of very unequal size and offset, one of them constant.
    scale = np.exp(generator.normal(size=width))
    offset = generator.normal(size=width) * 5
    scale[0] = 0.0
    centres = generator.normal(size=(classes, width))

    def part(number):
        labels = generator.permutation(np.repeat(np.arange(classes), number))
        spread = generator.normal(size=(len(labels), width)) * noise
        return ((centres[labels] + spread) * scale + offset).astype(dtype), labels

    (x, y), (z, w) = part(train), part(test)
    return FeatureSet(x, y, z, w)
