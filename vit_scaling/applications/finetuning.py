"""Start fine-tuning: which of a source's weights a new model takes."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import re
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from vit_scaling.applications import weights as weights_module
from vit_scaling.applications.addresses import is_folder, local_path
from vit_scaling.applications.formats import own
from vit_scaling.applications.formats.layout import Arrays, ViTWeights, variants_like
from vit_scaling.applications.formats.source import Request
from vit_scaling.modeling.positions import resample
from vit_scaling.modeling.variables import is_pooling_variable

POSITIONS = "position_embedding/embedding"
CLASSIFIER = re.compile(r"head/.*")
STATE = re.compile(r"mask_seed/.*|.*seed_generator.*")
# Options of the model's functions that no variable's shape betrays.
FUNCTIONS = ("approximate_gelu", "norm_epsilon", "norm_after_pooling")


@dataclasses.dataclass(frozen=True)
class FineTuningStart:
    """What `load_for_finetuning` did, path by path.

    Attributes:
        taken: Variables that hold the source's values.
        resampled: Variables that hold the source's positions on another grid.
        initialised: Variables that kept the model's own first values.
        left: Variables of the source that the model has no use for.
        differences: Options in which source and model compute differently.
    """

    taken: tuple[str, ...]
    resampled: tuple[str, ...]
    initialised: tuple[str, ...]
    left: tuple[str, ...]
    differences: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{len(self.taken)} variables taken"]
        for name in ("resampled", "initialised", "left", "differences"):
            paths = getattr(self, name)
            if paths:
                lines.append(f"{len(paths)} {name}: {', '.join(paths)}")
        return "\n".join(lines)


def load_for_finetuning(
    model: keras.Model,
    source: str,
    *,
    classifier: bool = False,
    averages: bool = False,
    heads: int | None = None,
    head: str | None = None,
    source_image_size: int | tuple[int, int] | None = None,
    ignore: str | None = None,
) -> FineTuningStart:
    """Give a new model the weights of a trained one, for another set or resolution.

    The classifier keeps its own first values, positions are resampled to the model's
    grid (as in the authors' transfers), a pooling head that the source lacks starts
    anew, and everything else must be there.

    Args:
        model: Built for the new task: its image size, classes and head.
        source: A run's folder, a `.keras`, or any file, address or published name that
            `read_weights` knows.
        classifier: Whether the classifier is taken too (same classes).
        averages: Whether a run's averaged weights are taken where it kept them.
        heads: As the next three, see `read_weights`; for other projects' files only.
        head: The head wanted of the file.
        source_image_size: Image size of the file's positions, if these are no square.
        ignore: Regular expression of arrays to leave out.

    Returns:
        What was taken, resampled, initialised and left.

    Raises:
        ValueError: A variable of the body is missing or of another shape. Nothing of
            the model is changed then.
    """
    request = Request(
        head=head, heads=heads, source_image_size=source_image_size, ignore=ignore
    )
    variables, arguments, old_grid = _read(source, averages, request)
    values, initialised = _sort(model, variables, classifier, source)
    resampled: tuple[str, ...] = ()
    if POSITIONS in values:
        positions = _positions(model, values[POSITIONS], old_grid)
        if positions.shape != values[POSITIONS].shape:
            resampled = (POSITIONS,)
        values[POSITIONS] = positions
    left = [path for path in variables if path not in values]
    _check(model, values, left)
    for variable in model.variables:
        if variable.path in values:
            variable.assign(values[variable.path])
    return FineTuningStart(
        taken=tuple(path for path in values if path not in resampled),
        resampled=resampled,
        initialised=initialised,
        left=tuple(left),
        differences=_differences(model, arguments),
    )


def _sort(
    model: keras.Model, variables: Arrays, classifier: bool, source: str
) -> tuple[Arrays, tuple[str, ...]]:
    """Return the values for the model's variables, and the paths that get none."""
    values: Arrays = {}
    initialised = []
    for variable in model.variables:
        path = variable.path
        own_value = CLASSIFIER.fullmatch(path) and not classifier
        if path in variables and not own_value:
            values[path] = variables[path]
        elif own_value or is_pooling_variable(path) or STATE.fullmatch(path):
            initialised.append(path)
        else:
            raise ValueError(
                f"{source!r} holds no {path!r}, which the model needs. Build the model "
                "with the shape and options of the source (`read_weights(source)."
                "arguments` names them)."
            )
    return values, tuple(initialised)


def _read(
    source: str, averages: bool, request: Request
) -> tuple[Arrays, dict[str, Any], tuple[int, int] | None]:
    """Return variables by path and, of a ViT, `vit`'s arguments and the grid."""
    path = local_path(source)
    if is_folder(path) or path.endswith(".keras"):
        trained = weights_module.load_trained(path, averages=averages)
        variables = {v.path: np.asarray(v) for v in trained.variables}
        layers = {layer.name: layer for layer in trained.layers}
        grid = getattr(layers.get("position_embedding"), "grid", None)
        return _without_state(variables), _arguments(trained), grid
    read: ViTWeights = weights_module.read_weights(path, **vars(request))
    grid = read.shape.grid(read.arguments["image_size"])
    return read.variables, read.arguments, grid


def _without_state(variables: Arrays) -> Arrays:
    return {p: value for p, value in variables.items() if not STATE.fullmatch(p)}


def _arguments(model: keras.Model) -> dict[str, Any]:
    """Return a ViT's arguments; of another model, such as a backbone, none."""
    try:
        return own.weights_of(model).arguments
    except ValueError:
        return {}


def _positions(
    model: keras.Model, embedding: np.ndarray, old_grid: tuple[int, int] | None
) -> np.ndarray:
    grid = tuple(model.get_layer("position_embedding").grid)
    return resample(embedding, grid, old_grid=old_grid)


def _check(model: keras.Model, values: Arrays, left: list[str]) -> None:
    """Raise if a shape differs or a part of the source's body would be lost."""
    for variable in model.variables:
        value = values.get(variable.path)
        if value is not None and value.shape != tuple(variable.shape):
            raise ValueError(
                f"The source's {variable.path!r} is of shape {value.shape}, the "
                f"model's of {tuple(variable.shape)}. {_fitting(values)}"
            )
    body = ("block_", "register_tokens/", "position_embedding/")
    lost = [path for path in left if path.startswith(body)]
    if lost:
        raise ValueError(
            f"The model has no place for {len(lost)} variables of the source's body: "
            f"{', '.join(lost[:4])}{' …' if len(lost) > 4 else ''}. Build it with as "
            "many blocks and with the same options (LayerScale, query-key norm, "
            f"registers, learned positions). {_fitting(values)}"
        )


def _fitting(values: Arrays) -> str:
    """Say which named shapes the source would fit, if it is a ViT."""
    kernel, mlp = "patch_embedding/kernel", "block_00/mlp/dense_0/kernel"
    if kernel not in values or mlp not in values:
        return "Take the application that the source was made with."
    depth = len({p.split("/")[0] for p in values if p.startswith("block_")})
    patch, width = values[kernel].shape[0], values[kernel].shape[-1]
    fits = variants_like(width, depth, values[mlp].shape[1])
    named = ", ".join(f"{variant}/{patch}" for variant in fits) or "none of the named"
    return f"Shapes that fit the source: {named}."


def _differences(model: keras.Model, source: Mapping[str, Any]) -> tuple[str, ...]:
    """Return, and warn of, options in which source and model compute differently."""
    ours = _arguments(model) if source else {}
    told = tuple(
        f"{name}={source[name]} in the source, {ours[name]} in the model"
        for name in FUNCTIONS
        if ours and name in source and source[name] != ours[name]
    )
    if told:
        warnings.warn(
            f"The model computes differently from the source: {'; '.join(told)}.",
            stacklevel=3,
        )
    return told
