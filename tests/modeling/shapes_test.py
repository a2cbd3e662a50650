"""Names, patches and grids; nothing that is no shape gets through."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import subprocess
import sys

import pytest

from vit_scaling.modeling.shapes import SHAPES, ViTShape, as_shape, shape_named

# The authors' table (width, depth, mlp_width, heads), facts 1.2.
AUTHORS = {
    "mu": (32, 1, 128, 2),
    "Ti": (192, 12, 768, 3),
    "S": (384, 12, 1536, 6),
    "M": (512, 12, 2048, 8),
    "B": (768, 12, 3072, 12),
    "L": (1024, 24, 4096, 16),
    "So400m": (1152, 27, 4304, 16),
    "H": (1280, 32, 5120, 16),
    "g": (1408, 40, 6144, 16),
    "g-opt": (1536, 40, 6144, 16),
    "G": (1664, 48, 8192, 16),
    "G-opt": (1536, 48, 8192, 16),
    "e": (1792, 56, 15360, 16),
}


@pytest.mark.parametrize("variant", AUTHORS)
def test_a_bare_variant_is_the_authors_row_at_patch_16(variant):
    assert shape_named(variant) == ViTShape(16, *AUTHORS[variant])
    assert f"{variant}/16" in SHAPES


@pytest.mark.parametrize("name", ["B/28", "s/24", "S/24", "B/64", "So400m/14", "e/14"])
def test_any_patch_may_be_asked_for(name):
    variant, _, patch = name.partition("/")
    shape = shape_named(name)
    assert shape.patch == int(patch)
    assert shape == dataclasses.replace(shape_named(variant), patch=int(patch))


def test_lower_and_upper_case_differ():
    assert shape_named("s/16").depth == 6
    assert shape_named("S/16").depth == 12


@pytest.mark.parametrize(
    ("shape", "image_size", "grid"),
    [
        ("G/14", 224, (16, 16)),
        ("G/14", 384, (27, 27)),
        ("B/28", 384, (13, 13)),
        ("g/14", 518, (37, 37)),
        ("B/16", (240, 100), (15, 6)),
    ],
)
def test_the_grid_holds_whole_patches(shape, image_size, grid):
    assert shape_named(shape).grid(image_size) == grid
    assert shape_named(shape).tokens(image_size) == grid[0] * grid[1]


def test_head_dimensions_are_the_papers():
    assert shape_named("G/14").head_dim == 104
    assert shape_named("g/14").head_dim == 88
    assert shape_named("s/28").head_dim == 32


def test_a_shape_passes_through_as_shape():
    shape = ViTShape(patch=8, width=12, depth=1, mlp_width=5, heads=3)
    assert as_shape(shape) is shape
    assert as_shape("B/32") == SHAPES["B/32"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("B-16", "No shape is called 'B-16'. Did you mean 'B/16'"),
        ("ViT-B/16", "Did you mean 'B/16'"),
        ("so400m/14", "Did you mean 'So400m"),
        ("B/", "positive integer, as in 'B/16'; received 'B/'"),
        ("B/0", "positive integer, as in 'B/16'; received 'B/0'"),
        ("B/16.5", "positive integer"),
        ("", "No shape is called ''"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name, message):
    with pytest.raises(ValueError, match=message):
        shape_named(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "`width` must be a multiple of `heads`; received width=64"),
        ({"depth": 0}, "`depth` must be an integer of at least 1; received 0"),
        ({"patch": 1.5}, "`patch` must be an integer of at least 1; received 1.5"),
        ({"width": True}, "`width` must be an integer of at least 1"),
    ],
)
def test_impossible_numbers_are_refused(change, message):
    numbers = {"patch": 16, "width": 64, "depth": 2, "mlp_width": 8, "heads": 4}
    with pytest.raises(ValueError, match=message):
        ViTShape(**{**numbers, **change})


@pytest.mark.parametrize("image_size", [15, (16, 15), "224", (1, 2, 3)])
def test_images_without_a_whole_patch_are_refused(image_size):
    with pytest.raises(ValueError, match="`image_size` must be"):
        shape_named("B/16").grid(image_size)


def test_shapes_need_no_tensorflow():
    program = (
        "import sys, vit_scaling.modeling.shapes as s; s.shape_named('G/14'); "
        "raise SystemExit(bool({'tensorflow', 'keras', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
