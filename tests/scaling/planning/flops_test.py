"""Table 2: parameters exactly, GFLOPs within 3 % at 224 and 384 pixels."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.modeling.shapes import ViTShape, shape_named
from vit_scaling.modeling.variables import vit_variables
from vit_scaling.scaling.planning.flops import flops, parameters

# fmt: off
# Name: parameters without head, with MAP head, GFLOPs at 224 and 384 (Table 2; at 224
# with the second decimal of Figure 2's axis).
TABLE_2 = {
    "s/28": (5_357_824, 6_147_328, 0.73, 2.0),
    "s/16": (4_986_112, 5_775_616, 2.20, 7.8),
    "S/32": (22_493_184, 24_267_264, 2.28, 6.9),
    "Ti/16": (5_524_032, 5_968_704, 2.54, 9.5),
    "B/32": (87_453_696, 94_540_800, 8.72, 26.0),
    "S/16": (21_664_896, 23_438_976, 9.23, 31.2),
    "B/28": (86_912_256, 93_999_360, 11.34, 30.5),
    "B/16": (85_797_120, 92_884_224, 35.12, 111.3),
    "L/16": (303_299_584, 315_894_784, 122.87, 382.8),
    "g/14": (1_011_199_616, 1_036_448_384, 533.08, 1596.4),
    "G/14": (1_842_772_352, 1_881_132_416, 965.32, 2859.9),
}
# fmt: on


@pytest.mark.parametrize("name", TABLE_2)
def test_parameters_are_exact(name):
    counted = parameters(shape_named(name), head="map", classes=None)
    assert (counted.encoder, counted.total) == TABLE_2[name][:2]
    assert sum(counted.terms.values()) == counted.total


@pytest.mark.parametrize("name", TABLE_2)
@pytest.mark.parametrize("head", ["map", "gap"])
def test_gflops_are_within_three_percent(name, head):
    for image_size, published in zip((224, 384), TABLE_2[name][2:], strict=True):
        counted = flops(shape_named(name), head=head, image_size=image_size)
        assert counted.encoder / 1e9 == pytest.approx(published, rel=0.03)
        assert counted.forward / 1e9 == pytest.approx(published, rel=0.03)


def test_products_alone_are_the_textbook_count():
    """2 × (12 D² N + 2 N² D) per block with an MLP of 4 D, and the patches."""
    counted = flops(ViTShape(16, 64, 3, 256, 4), head="none", classes=None)
    n, d = 196, 64
    products = counted.forward - counted.terms["elementwise"]
    assert products == 3 * 2 * (12 * d * d * n + 2 * n * n * d) + 2 * n * 768 * d


def test_training_is_three_times_forward_and_more_when_computed_again():
    shape = shape_named("B/16")
    plain, again = flops(shape), flops(shape, rematerialize="all")
    assert plain.training == 3 * plain.forward
    assert 3.9 < again.training / plain.forward < 4
    extra = {
        policy: flops(shape, rematerialize=policy).training - plain.training
        for policy in ("attention", "mlp", "every_2", "every_3", "all")
    }
    assert extra["attention"] + extra["mlp"] == pytest.approx(extra["all"])
    assert extra["mlp"] > 12 * 4 * 196 * 768 * 3072  # Its two products, 12 blocks.
    assert extra["every_2"] == pytest.approx(extra["all"] / 2)
    assert extra["every_3"] == pytest.approx(extra["all"] / 3)


@pytest.mark.parametrize(
    ("head", "extra"),
    [("none", 0), ("gap", 0), ("token", 192), ("map", 5_968_704 - 5_524_032)],
)
def test_parameters_of_the_heads(head, extra):
    counted = parameters(shape_named("Ti/16"), head=head, classes=10)
    assert counted.terms["pooling_head"] == extra
    assert counted.terms["classifier"] == 192 * 10 + 10


def test_a_representation_is_counted():
    shapes = vit_variables(shape_named("Ti/16"), head="gap", representation_width=50)
    assert shapes["pre_logits/kernel"] == (192, 50)
    assert shapes["head/kernel"] == (50, 1000)
    with_it = flops(shape_named("Ti/16"), representation_width=50)
    assert (
        with_it.terms["pooling_head"]
        > flops(shape_named("Ti/16")).terms["pooling_head"]
    )


def test_the_nearest_head_is_suggested():
    with pytest.raises(ValueError, match="Did you mean 'map'"):
        flops(shape_named("B/16"), head="mapp")
