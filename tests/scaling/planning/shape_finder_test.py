"""Shapes that fit a device, and their plot."""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.scaling.planning.devices import device_named
from vit_scaling.scaling.planning.shape_finder import (
    HEADS_BY_WIDTH,
    MLP_WIDTHS,
    SETTINGS,
    cheapest_setting,
    draw_shapes,
    find_shapes,
    fits,
)


def test_what_fits_a_setting_fits_a_larger_device():
    shape = ViTShape(14, 1664, 40, 6144, 16)
    for setting in SETTINGS:
        small = fits(shape, setting, device=device_named("tpu_v3"))
        assert fits(shape, setting, device=device_named("a100_80gb")) >= small


def test_a_device_without_memory_fits_nothing():
    shape = ViTShape(14, 1024, 24, 4096, 16)
    assert cheapest_setting(shape, device=device_named("1GiB")) == "oom"
    assert cheapest_setting(shape, device=device_named("h200")) == "original"


def test_a_panel_has_every_cell_and_is_drawn(tmp_path):
    cells = find_shapes(device_named("tpu_v3"), depths=(24,))
    assert len(cells) == len(MLP_WIDTHS) * sum(map(len, HEADS_BY_WIDTH.values()))
    files = draw_shapes(cells, tmp_path / "shapes")
    assert [path.suffix for path in files] == [".png", ".svg"]
    assert all(path.stat().st_size > 5000 for path in files)
