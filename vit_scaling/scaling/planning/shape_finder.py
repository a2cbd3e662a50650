"""Finds the shapes that fit a device: Figure 8 for any accelerator."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_scaling.checks import check_at_least
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.scaling.laws.paper_results import shapefinder_rows
from vit_scaling.scaling.laws.plot_style import make_figure, save_figure
from vit_scaling.scaling.planning.devices import Device, device_named
from vit_scaling.scaling.planning.memory import memory
from vit_scaling.scaling.planning.step import Step

CLASSES = 29_593  # JFT-3B
# Settings of Figure 8, cheapest last. "savings": no class token and no projection.
SETTINGS = {
    "original": Step(head="token", optimizer="adam", classes=CLASSES),
    "savings+adam_hp": Step(optimizer="adam_hp", classes=CLASSES),
    "savings+adafactor": Step(optimizer="adafactor", classes=CLASSES),
}
COLOURS = {
    "original": "#ee9944",
    "savings+adam_hp": "#55aa66",
    "savings+adafactor": "#5588cc",
    "oom": "#ffffff",
}
DEPTHS = (24, 32, 40, 48, 56)
MLP_WIDTHS = tuple(range(4096, 10241, 512))
# fmt: off
HEADS_BY_WIDTH: dict[int, tuple[int, ...]] = {
    1024: (16, 8), 1280: (20, 16, 10), 1408: (22, 16, 11), 1536: (24, 16, 12),
    1664: (26, 16, 13), 1792: (28, 16, 14), 1920: (30, 24, 16, 15), 2048: (32, 16),
}
# The paper does not state the images per core. These numbers agree best with Figure 8
# at depths 24 and 56 (`agreement`).
IMAGES_PER_CORE = {"original": 24, "savings+adam_hp": 20, "savings+adafactor": 11}
# fmt: on


def fits(
    shape: ViTShape,
    setting: str,
    *,
    device: Device,
    batch: int | None = None,
    image_size: int = 224,
) -> bool:
    """Return whether `device` can train a shape under a setting of Figure 8."""
    step = SETTINGS[setting]
    step = dataclasses.replace(step, **device.layout, image_size=image_size)
    if setting == "original":
        step = dataclasses.replace(step, representation_width=shape.width)
    batch = batch or IMAGES_PER_CORE[setting]
    limit = device.memory_bytes
    return memory(shape, batch=batch, step=step, limit_bytes=limit).total <= limit


def cheapest_setting(
    shape: ViTShape,
    *,
    device: Device,
    batch: int | None = None,
    image_size: int = 224,
) -> str:
    """Return the first of `SETTINGS` under which a shape fits, or "oom"."""
    for setting in SETTINGS:
        if fits(shape, setting, device=device, batch=batch, image_size=image_size):
            return setting
    return "oom"


def find_shapes(
    device: Device,
    *,
    depths: Sequence[int] = DEPTHS,
    patch: int = 14,
    batch: int | None = None,
    image_size: int = 224,
) -> list[dict[str, Any]]:
    """Return the cells of Figure 8: a shape and the cheapest setting that fits.

    Args:
        device: Device to train on.
        depths: Numbers of blocks, one panel each.
        patch: Side of a patch, in pixels.
        batch: Images per device; default `IMAGES_PER_CORE`.
        image_size: Side of the images, in pixels.

    Raises:
        ValueError: `batch` is below 1.
    """
    if batch is not None:
        check_at_least(1, batch=batch)
    return [
        {
            "layers": depth,
            "width": width,
            "heads": heads,
            "mlp_dim": mlp,
            "cheapest_setting_that_fits": cheapest_setting(
                ViTShape(patch, width, depth, mlp, heads),
                device=device,
                batch=batch,
                image_size=image_size,
            ),
        }
        for depth in depths
        for width, choices in HEADS_BY_WIDTH.items()
        for heads in choices
        for mlp in MLP_WIDTHS
    ]


def draw_shapes(cells: Sequence[Mapping[str, Any]], path: str | pathlib.Path) -> Any:
    """Plot the grid of Figure 8, one panel per depth. Return the paths written."""
    from matplotlib.patches import Patch

    depths = sorted({cell["layers"] for cell in cells})
    rows = [
        f"{width}//{h}" for width, choices in HEADS_BY_WIDTH.items() for h in choices
    ]
    columns = sorted({cell["mlp_dim"] for cell in cells})
    figure, panels = make_figure(
        [[str(depth) for depth in depths]], size=(2.2 + 2.6 * len(depths), 5.6)
    )
    for number, depth in enumerate(depths):
        panel = panels[str(depth)]
        image = np.ones((len(rows), len(columns), 3))
        for cell in cells:
            if cell["layers"] == depth:
                row = rows.index(f"{cell['width']}//{cell['heads']}")
                colour = COLOURS[cell["cheapest_setting_that_fits"]]
                rgb = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
                image[row, columns.index(cell["mlp_dim"])] = rgb
        panel.imshow(image, aspect="auto")
        panel.set_title(f"{depth} blocks")
        panel.set_xlabel("MLP width")
        ticks = range(0, len(columns), 4)
        panel.set_xticks(ticks, [columns[tick] for tick in ticks])
        panel.set_yticks(range(len(rows)), rows if number == 0 else [""] * len(rows))
    panels[str(depths[0])].set_ylabel("width//heads")
    marks = [
        Patch(facecolor=colour, edgecolor="#888888", label=name)
        for name, colour in COLOURS.items()
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=4, frameon=False)
    return save_figure(figure, path)


@functools.lru_cache
def _paper_cells() -> tuple[tuple[ViTShape, str], ...]:
    return tuple(
        (
            ViTShape(14, int(r["width"]), int(r["layers"]), int(r["mlp_dim"]),
                     int(r["heads"])),
            r["cheapest_setting_that_fits"],
        )
        for r in shapefinder_rows()
    )  # fmt: skip


def agreement(
    setting: str, *, batch: int | None = None, depths: Sequence[int] = (40,)
) -> float:
    """Return the fraction of Figure 8's cells on which the planner agrees.

    Args:
        setting: One of `SETTINGS`. In the figure a shape fits it if its cheapest
            setting is this one or one before it.
        batch: Images per core; default `IMAGES_PER_CORE`.
        depths: Any of 24, 40 and 56.
    """
    device = device_named("tpu_v3")
    agrees = [
        fits(shape, setting, device=device, batch=batch)
        == _fits_in_paper(cheapest, setting)
        for shape, cheapest in _paper_cells()
        if shape.depth in depths
    ]
    return float(np.mean(agrees))


def _fits_in_paper(cheapest: str, setting: str) -> bool:
    order = [*SETTINGS, "oom"]
    return order.index(cheapest) <= order.index(setting)


def agreement_by_parameters(setting: str, *, depths: Sequence[int] = (40,)) -> float:
    """Return the agreement of a planner that only counts the blocks' parameters.

    Its threshold, the largest number of parameters that fits, is also chosen on depths
    24 and 56.
    """
    size, depth, fit = np.array(
        [
            (
                s.depth * (4 * s.width**2 + 2 * s.width * s.mlp_width),
                s.depth,
                _fits_in_paper(cheapest, setting),
            )
            for s, cheapest in _paper_cells()
        ]
    ).T

    def score(limit: int, cells: np.ndarray) -> float:
        return float(np.mean((size <= limit)[cells] == fit[cells]))

    best = max(np.unique(size), key=lambda limit: score(limit, depth != 40))
    return score(best, np.isin(depth, depths))
