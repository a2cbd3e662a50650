"""Load trained weights into a new model, to fine-tune it."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from vit_scaling.adapters import is_adapter
from vit_scaling.applications.adaptation import adapt_to_classes, adapt_to_range
from vit_scaling.applications.addresses import local_path
from vit_scaling.applications.formats.keras_models import (
    describe_layers,
    preprocessing_layers,
    weights_of_model,
)
from vit_scaling.applications.formats.token_positions import POSITIONS
from vit_scaling.applications.formats.vit_weights import ReadOptions, fitting_shapes
from vit_scaling.applications.published import IMAGENET
from vit_scaling.applications.sources import find_source
from vit_scaling.applications.weights import load_trained, read_weights
from vit_scaling.argument_types import PositiveInt
from vit_scaling.array_files import Arrays
from vit_scaling.class_names import names_of
from vit_scaling.modeling.positions import resample
from vit_scaling.modeling.shapes import ViTShape, shape_name
from vit_scaling.naming import list_some
from vit_scaling.run_record import RunRecord

CLASSIFIER = re.compile(r"head/.*")
STATE = re.compile(r"mask_seed/.*|.*seed_generator.*")
# Options that change the outputs but no variable's shape.
FUNCTIONS = ("approximate_gelu", "norm_epsilon", "norm_after_pooling")


@dataclasses.dataclass(frozen=True)
class FineTuningStart:
    """Report of `load_for_finetuning`, as variable paths.

    Attributes:
        source: Where the weights come from.
        taken: Variables with the source's values.
        resampled: Variables with the source's positions on another grid.
        initialised: Variables that keep the new model's initial values.
        left: Variables of the source that the model does not use.
        differences: Options with which source and model compute differently.
        assumed: Facts that neither the source nor the caller states.
        adapted: Values that were changed to fit the new data, as sentences.
    """

    source: str
    taken: tuple[str, ...]
    resampled: tuple[str, ...]
    initialised: tuple[str, ...]
    left: tuple[str, ...]
    differences: tuple[str, ...]
    assumed: tuple[str, ...]
    adapted: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"Starts from {self.source}: {len(self.taken)} variables taken"]
        for text, paths in (
            ("resampled to another grid", self.resampled),
            ("with initial values", self.initialised),
            ("of the source left out", self.left),
            ("options that differ", self.differences),
            ("facts assumed", self.assumed),
            ("adapted", self.adapted),
        ):
            if paths:
                lines.append(f"  {len(paths)} {text}: {', '.join(paths)}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return the report for a run's record; `taken` as a number."""
        return {**dataclasses.asdict(self), "taken": len(self.taken)}


class _Trained(NamedTuple):
    """What was read from the source.

    Attributes:
        variables: By path.
        arguments: Those of `vit`, if it is a ViT.
        grid: Rows and columns of its positions.
        assumed: See `FineTuningStart`.
        record: Its class names and range of pixels, if known.
    """

    variables: Arrays
    arguments: dict[str, Any]
    grid: tuple[int, int] | None
    assumed: tuple[str, ...]
    record: RunRecord | None


def load_for_finetuning(
    model: keras.Model,
    source: str,
    *,
    classifier: bool = False,
    averages: bool | None = None,
    heads: PositiveInt | None = None,
    head: str | None = None,
    source_image_size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None,
    ignore: str | None = None,
    allow_initialised: str | None = None,
    target: Any = None,
) -> FineTuningStart:
    """Load trained weights into a new model, for another set or resolution.

    Classifier and adapters keep their initial values, and positions are resampled to
    the model's grid (as in the authors' transfers). All other variables must be in the
    source, but for those of `allow_initialised`.

    Args:
        model: Built for the new task: its image size, classes and head.
        source: A run's folder, a `.keras`, "imagenet" (the default of the model's
            shape), or any other source that `addresses.local_path` takes.
        classifier: Whether to load the classifier too. Where source and new data have
            class names, its classes are mapped by name.
        averages: Whether to load a run's averaged weights instead of its last ones.
            None: those that the run evaluates.
        heads: See `read_weights`, as for the next three; for other projects' files.
        head: The head to read from the file.
        source_image_size: Image size of the file's positions, if they form no square.
        ignore: Regular expression of arrays to leave out.
        allow_initialised: Regular expression of variables that may keep their initial
            values if the source lacks them, such as "map_head/.*"; None: no others
            than the classifier's.
        target: The new data, which a run passes: its class names, and the range of its
            pixels, to which the patch embedding is adapted. None: both as the source.

    Returns:
        The paths that were taken, resampled, initialised and left.

    Raises:
        ValueError: The source lacks a variable or a class, or has a variable with
            another shape. The model is unchanged then.
    """
    options = ReadOptions(
        head=head,
        heads=heads,
        source_image_size=source_image_size,
        ignore=ignore,
        averages=averages,
    )
    trained = _read(model, source, options)
    adapted = _adapt(model, trained, target, classifier)
    values, initialised = _select_values(model, trained.variables, classifier)
    _check_initialised(source, initialised, classifier, allow_initialised)
    resampled: tuple[str, ...] = ()
    if POSITIONS in values:
        grid = tuple(model.get_layer("position_embedding").grid)
        positions = resample(values[POSITIONS], grid, old_grid=trained.grid)
        if positions.shape != values[POSITIONS].shape:
            resampled = (POSITIONS,)
        values[POSITIONS] = positions
    left = [path for path in trained.variables if path not in values]
    _check_body(model, values, left)
    for variable in model.variables:
        if variable.path in values:
            variable.assign(values[variable.path])
    return FineTuningStart(
        source=os.fspath(source),
        taken=tuple(path for path in values if path not in resampled),
        resampled=resampled,
        initialised=initialised,
        left=tuple(left),
        differences=_differences(model, trained.arguments),
        assumed=trained.assumed,
        adapted=adapted,
    )


def _adapt(
    model: keras.Model, trained: _Trained, target: Any, classifier: bool
) -> tuple[str, ...]:
    """Adapt the source's variables, in place, to the new data; return what changed."""
    record, variables = trained.record, trained.variables
    if record is None or target is None:
        return ()
    # Layers in front of the patch embedding would see the new range.
    inner = {} if preprocessing_layers(model) else variables
    changes = [adapt_to_range(inner, record.value_range, target.value_range)]
    if classifier:
        names = names_of(target)
        changes.append(adapt_to_classes(variables, record.class_names, names))
    return tuple(change for change in changes if change)


def _select_values(
    model: keras.Model, variables: Arrays, classifier: bool
) -> tuple[Arrays, tuple[str, ...]]:
    """Return the model's values, and the paths without one, adapters left out."""
    values = {
        v.path: variables[v.path]
        for v in model.variables
        if v.path in variables and (classifier or not CLASSIFIER.fullmatch(v.path))
    }
    paths = (v.path for v in model.variables if not is_adapter(v.path))
    return values, tuple(path for path in paths if path not in values)


def _check_initialised(
    source: str, initialised: Sequence[str], classifier: bool, allowed: str | None
) -> None:
    """Raise if variables keep initial values that the user did not allow to."""
    missing = [
        path
        for path in initialised
        if not STATE.fullmatch(path)
        and (classifier or not CLASSIFIER.fullmatch(path))
        and not (allowed and re.fullmatch(allowed, path))
    ]
    if missing:
        layers = "|".join(dict.fromkeys(path.split("/")[0] for path in missing))
        raise ValueError(
            f"{source!r} has no {list_some([*map(repr, missing)])}, which the model "
            f"needs: {len(missing)} variables. Build the model with the head, shape "
            "and options of the source (`read_weights(source).arguments`), or let them "
            f"start from initial values by allow_initialised='({layers})/.*'."
        )


def _read(model: keras.Model, source: str, options: ReadOptions) -> _Trained:
    path = local_path(source, shape=_shape_name(model) if source == IMAGENET else None)
    if find_source(path).is_model:
        trained = load_trained(path, averages=options.averages)
        _check_preprocessing(trained, model, source)
        variables = {
            v.path: np.asarray(v)
            for v in trained.variables
            if not STATE.fullmatch(v.path)
        }
        layers = {layer.name: layer for layer in trained.layers}
        grid = getattr(layers.get("position_embedding"), "grid", None)
        return _Trained(variables, _arguments(trained), grid, (), trained.record)
    weights = read_weights(path, **vars(options))
    grid = weights.shape.grid(weights.arguments["image_size"])
    return _Trained(
        weights.variables, weights.arguments, grid, weights.assumed, weights.record
    )


def _shape_name(model: keras.Model) -> str | None:
    """Return the name of a ViT's shape, such as "B/16"; None if it has no name."""
    shape = _arguments(model).get("shape")
    return None if shape is None else shape_name(shape)


def _arguments(model: keras.Model) -> dict[str, Any]:
    """Return a ViT's arguments; {} for another model, such as a backbone."""
    try:
        return weights_of_model(model).arguments
    except ValueError:
        return {}


def _check_preprocessing(trained: keras.Model, model: keras.Model, source: str) -> None:
    """Raise if layers in front of or around the trained weights would be lost."""
    present = list(map(_function_of, preprocessing_layers(model)))
    lost = [
        layer
        for layer in preprocessing_layers(trained)
        if _function_of(layer) not in present
    ]
    nested = [layer for layer in trained.layers if isinstance(layer, keras.Model)]
    if nested and not any(isinstance(layer, keras.Model) for layer in model.layers):
        lost = [*lost, *(layer for layer in nested if layer not in lost)]
    if lost:
        raise ValueError(
            f"The model in {source!r} has {describe_layers(lost)}, which the new model "
            "has not, so its weights would get other inputs. Save the inner model "
            "alone (model.get_layer(NAME).save), or build the new model with these "
            "layers."
        )


def _function_of(layer: Any) -> Any:
    """Return what a layer computes: its class and options other than its name."""
    ignored = ("name", "dtype", "trainable", "seed")
    config = layer.get_config()
    return type(layer), {key: config[key] for key in config if key not in ignored}


def _check_body(model: keras.Model, values: Arrays, left: list[str]) -> None:
    """Raise if a shape differs or a part of the source's body would be lost."""
    for variable in model.variables:
        value = values.get(variable.path)
        if value is not None and value.shape != tuple(variable.shape):
            raise ValueError(
                f"The source's {variable.path!r} has shape {value.shape}, the model's "
                f"{tuple(variable.shape)}. {_describe_fit(values)}"
            )
    body = ("block_", "register_tokens/", "position_embedding/")
    lost = [path for path in left if path.startswith(body)]
    if lost:
        raise ValueError(
            f"The model has no place for {len(lost)} variables of the source's body: "
            f"{list_some(lost, 4)}. Build it with as many blocks and with the same "
            "options (LayerScale, query-key norm, registers, learned positions). "
            f"{_describe_fit(values)}"
        )


def _describe_fit(values: Arrays) -> str:
    """Return a sentence with the named shapes that fit the source, if it is a ViT."""
    kernel, mlp = "patch_embedding/kernel", "block_00/mlp/dense_0/kernel"
    if kernel not in values or mlp not in values:
        return "Use the application that the source was built with."
    depth = len({p.split("/")[0] for p in values if p.startswith("block_")})
    patch, width = values[kernel].shape[0], values[kernel].shape[-1]
    shape = ViTShape(patch, width, depth, values[mlp].shape[1], heads=1)
    return f"Named shapes that fit the source: {fitting_shapes(shape)}."


def _differences(model: keras.Model, source: Mapping[str, Any]) -> tuple[str, ...]:
    """Return, and warn of, options with which source and model compute differently."""
    ours = _arguments(model) if source else {}
    differences = tuple(
        f"{name}={source[name]} in the source, {ours[name]} in the model"
        for name in FUNCTIONS
        if ours and name in source and source[name] != ours[name]
    )
    if differences:
        warnings.warn(
            f"The model computes differently from the source: "
            f"{'; '.join(differences)}.",
            stacklevel=3,
        )
    return differences
