"""The style that all plots of scaling share, and how they are saved."""
# SPDX-License-Identifier: Apache-2.0

import pathlib
from collections.abc import Sequence
from typing import Any

# Eleven colours that stay apart in print and for most colour-blind readers.
PALETTE = (
    *("#4477aa", "#66ccee", "#228833", "#8fbc3f", "#ccbb44", "#ee8866"),
    *("#ee6677", "#aa3377", "#7b5fb2", "#8c6d46", "#555555"),
)
INK = "#222222"
_STYLE = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 8.5,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "savefig.bbox": "tight",
}


def make_figure(
    mosaic: Sequence[Sequence[str]], *, size: tuple[float, float]
) -> tuple[Any, dict[str, Any]]:
    """Return a figure in this package's style and its panels by name.

    Args:
        mosaic: Names of the panels, row by row; see matplotlib's `subplot_mosaic`.
        size: Width and height in inches.
    """
    from matplotlib import rc_context  # pip install "vit_scaling[plots]"
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplot_mosaic([list(row) for row in mosaic])
    return figure, panels


def model_colours(models: Sequence[str]) -> dict[str, str]:
    """Return one colour per model, in the order given.

    More models than the palette has colours are shades from dark to light.
    """
    if len(models) <= len(PALETTE):
        return dict(zip(models, PALETTE, strict=False))
    from matplotlib import colormaps, colors

    shades = colormaps["viridis"].resampled(len(models))
    return {model: colors.to_hex(shades(k)) for k, model in enumerate(models)}


def save_figure(figure: Any, path: str | pathlib.Path) -> list[pathlib.Path]:
    """Write `path`.png and `path`.svg. Return their paths."""
    from matplotlib import rc_context

    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_name(path.name + suffix) for suffix in (".png", ".svg")]
    # A fixed salt and no date: the same runs give the same file.
    with rc_context({**_STYLE, "svg.hashsalt": "vit_scaling"}):
        figure.savefig(written[0], dpi=110)
        figure.savefig(written[1], metadata={"Date": None})
    return written
