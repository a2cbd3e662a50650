"""Operations counted in the graph, against the count term by term and by hand."""
# SPDX-License-Identifier: Apache-2.0

import keras
import pytest

from vit_scaling.modeling.shapes import ViTShape, shape_named
from vit_scaling.modeling.vit import vit
from vit_scaling.scaling.planning.flops import flops
from vit_scaling.training import model_flops

SHAPE = ViTShape(patch=4, width=32, depth=2, mlp_width=64, heads=2)


def products(shape, **options):
    """Count a forward pass term by term, without its element-wise operations."""
    counted = flops(shape, **options)
    return counted.forward - counted.terms["elementwise"]


@pytest.mark.parametrize("head", ["map", "gap", "token"])
def test_the_graph_holds_the_products_of_the_formula(head):
    model = vit(SHAPE, head, image_size=16, classes=10)
    expected = products(SHAPE, head=head, image_size=16, classes=10)
    # GAP's mean is no product; it is a thousandth here.
    assert model_flops.forward_flops(model) == pytest.approx(expected, rel=2e-3)


def test_rematerialized_blocks_and_half_precision_count_alike():
    expected = products(SHAPE, image_size=16, classes=10)
    model = vit(
        SHAPE,
        image_size=16,
        classes=10,
        rematerialize="all",
        dtype="mixed_bfloat16",
    )
    assert model_flops.forward_flops(model) == pytest.approx(expected, rel=2e-3)


def test_training_takes_three_times_the_forward_pass():
    model = vit(shape_named("Ti/16"), image_size=32, classes=10)
    forward = products(shape_named("Ti/16"), image_size=32, classes=10)
    counted = model_flops.training_flops_per_image(model)
    assert counted == pytest.approx(3 * forward, rel=2e-3)


def test_convolutions_of_any_keras_model_count():
    images = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(4, 3, padding="same")(images)  # (batch, 8, 8, 4)
    maps = keras.layers.DepthwiseConv2D(3, padding="valid")(maps)  # (batch, 6, 6, 4)
    logits = keras.layers.Dense(5)(keras.layers.Flatten()(maps))
    model = keras.Model(images, logits)
    expected = 2 * (8 * 8 * 4) * (9 * 3) + 2 * (6 * 6 * 4) * 9 + 2 * 144 * 5
    assert model_flops.forward_flops(model) == expected
