"""Small models for tests, with no variable left at a special value."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np

from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.modeling.vit import vit

SHAPE = ViTShape(patch=4, width=16, depth=2, mlp_width=24, heads=2)
IMAGE_SIZE = (12, 16)  # 3 x 4 patches.


def small_vit(head="map", **options):
    """Return a small model with random gammas, biases and classifier."""
    options = {"image_size": IMAGE_SIZE, "classes": 5, "seed": 0, **options}
    return randomized(vit(SHAPE, head, **options))


def randomized(layer, seed=0):
    """Return the layer with noise on every trained variable: zeros hide mistakes."""
    generator = np.random.default_rng(seed)
    for variable in layer.trainable_variables:
        noise = 0.1 * generator.standard_normal(variable.shape)
        variable.assign(np.asarray(variable) + noise)
    return layer


def images(batch=3, size=IMAGE_SIZE, seed=1):
    """Return random images in [-1, 1]."""
    uniform = np.random.default_rng(seed).uniform(-1, 1, (batch, *size, 3))
    return uniform.astype(np.float32)


def weights(model):
    """Return arrays by variable path."""
    return {variable.path: np.asarray(variable) for variable in model.variables}


def relative_error(actual, expected):
    """Return the largest difference in units of the largest value."""
    expected = np.asarray(expected)
    return np.max(np.abs(np.asarray(actual) - expected)) / np.max(np.abs(expected))
