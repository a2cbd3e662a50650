"""Read weights of any known format into models, and write them in any known format."""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import re
import warnings
import zipfile
from typing import Any

import keras

from vit_scaling import array_files, io_files
from vit_scaling.applications import published
from vit_scaling.applications.addresses import local_path
from vit_scaling.applications.backbones import ScaleImages
from vit_scaling.applications.formats import native_npz, registry, sidecar_files
from vit_scaling.applications.formats.conversion import reconvert
from vit_scaling.applications.formats.keras_models import (
    describe_layers,
    layers_before,
    preprocessing_layers,
    weights_of_model,
)
from vit_scaling.applications.formats.token_positions import POSITIONS
from vit_scaling.applications.formats.vit_weights import ReadOptions, ViTWeights
from vit_scaling.applications.source_records import (
    add_to_keras_file,
    own_record,
    with_record,
)
from vit_scaling.applications.sources import (
    KERAS,
    RUN,
    SAFETENSORS,
    Source,
    find_source,
)
from vit_scaling.array_files import Arrays
from vit_scaling.modeling.positions import resample
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.modeling.vit import vit
from vit_scaling.run_record import RunRecord

PREPROCESSING_ASSUMED = (
    "pixels in [-1, 1] and the authors' central crop. The publisher's "
    "preprocessor_config.json (timm: config.json) in the file's folder would define "
    "them."
)


def read_weights(
    source: str,
    *,
    shape: str | ViTShape | None = None,
    head: str | None = None,
    heads: int | None = None,
    source_image_size: int | tuple[int, int] | None = None,
    approximate_gelu: bool | None = None,
    norm_epsilon: float | None = None,
    ignore: str | None = None,
    averages: bool | None = None,
) -> ViTWeights:
    """Read weights of any known format; layout and shape are recognised.

    Args:
        source: A path, a published name or an address; `addresses.local_path` lists
            all forms, `formats.registry.FORMATS` the formats. "imagenet" needs `shape`.
        shape: Shape or its name ("B/16") to check the file against.
        head: "token", "gap", "map" or "none"; None takes the file's. A file's MAP head
            can be left out ("gap", "none"), its class token become a register ("gap").
        heads: Attention heads, if neither the file nor a named shape gives them.
        source_image_size: Pixels that the file's positions are for; needed if the
            patches do not form a square. None takes the published size of a name.
        approximate_gelu: GELU by tanh or erf; None as in the source.
        norm_epsilon: Epsilon of all norms; None as in the source.
        ignore: Regular expression of arrays to leave out.
        averages: A run's averaged weights (True) or its last ones (False); None takes
            those that the run evaluates.

    Returns:
        Variables by path, the arguments of `vit`, and the use of every array.

    Raises:
        FileNotFoundError, OSError: The file does not exist or can't be fetched.
        ValueError: The file is unreadable, of an unknown layout, incomplete, or does
            not have the requested shape or head.
    """
    shape_name = shape if isinstance(shape, str) else None
    row = published.find(source, shape_name)
    options = ReadOptions(
        shape,
        head,
        heads,
        source_image_size or (row.image_size if row else None),
        approximate_gelu,
        norm_epsilon,
        ignore,
        averages,
    )
    path = local_path(source, shape=shape_name)
    found = find_source(path)
    if found.is_model:
        model = load_trained(path, averages=averages)
        try:
            weights = reconvert(weights_of_model(model), options)
        except ValueError as error:
            raise ValueError(f"{source!r}: {error}") from error
        return with_record(weights, found, {}, {})
    _check_averages(found, averages)
    arrays, metadata = found.read_arrays()
    is_published = found.kind == SAFETENSORS
    options, config = sidecar_files.find_configuration(
        path if is_published else None, metadata, options
    )
    read = registry.read_arrays(arrays, options, config)
    if read is None:
        raise ValueError(
            f"The layout of {path!r} is unknown; its first arrays are "
            f"{', '.join(sorted(arrays)[:5])}. Known: "
            f"{'; '.join(known.description for known in registry.FORMATS)}."
        )
    return with_record(read, found, arrays, metadata)


def build_model(
    weights: ViTWeights,
    *,
    image_size: int | tuple[int, int] | None = None,
    dtype: str = "float32",
    name: str = "vit",
) -> keras.Model:
    """Build the model that the weights belong to, with the weights in it.

    Args:
        weights: Weights from `read_weights`.
        image_size: Pixels, side or (height, width); positions are resampled. None
            takes the file's.
        dtype: "float32" or "mixed_bfloat16".
        name: The model's name.
    """
    arguments = dict(weights.arguments)
    if image_size is not None:
        arguments["image_size"] = image_size
    model = vit(**arguments, dtype=dtype, name=name)
    assign_weights(model, weights)
    return model


def load_model(
    source: str,
    *,
    image_size: int | tuple[int, int] | None = None,
    dtype: str = "float32",
    **options: Any,
) -> keras.Model:
    """Load a model with its weights.

    Args:
        source: See `addresses.local_path`.
        image_size: See `build_model`.
        dtype: "float32" or "mixed_bfloat16".
        **options: Other arguments of `read_weights`, such as `shape` and `head`.

    Returns:
        A ViT that takes images (batch, height, width, 3), with a `record` of how they
        are prepared (`applications.prepare_images`) and of its class names. A `.keras`
        or a run without options may be any Keras model.

    Raises:
        FileNotFoundError, OSError, ValueError: See `read_weights`.
    """
    if image_size is None and dtype == "float32" and not options:
        path = local_path(source)
        if find_source(path).is_model:
            return load_trained(path)
    weights = read_weights(source, **options)
    if weights.assumed:
        warnings.warn(f"{source!r}: assumed {' '.join(weights.assumed)}", stacklevel=3)
    return build_model(weights, image_size=image_size, dtype=dtype)


def load_for_serving(
    source: str,
) -> tuple[keras.Model, RunRecord | None, tuple[str, ...]]:
    """Load a model that gives classes, or features if it has no classifier.

    Args:
        source: A `.keras`, or any other source that `read_weights` reads without
            options.

    Returns:
        The model, its record if it is known, and the assumptions made in reading it.

    Raises:
        ValueError: See `read_weights`; or a ViT has no pooling head.
    """
    path = local_path(source)
    found, assumed = find_source(path), tuple[str, ...]()
    if found.kind == KERAS:
        model, record = load_trained(path), own_record(found)
    else:
        weights = read_weights(path)
        model, record, assumed = build_model(weights), weights.record, weights.assumed
        if weights.preprocessing_assumed:
            assumed = (*assumed, PREPROCESSING_ASSUMED)
    names = {layer.name for layer in model.layers}
    if "encoder_norm" in names and len(model.output_shape) != 2:
        raise ValueError(
            f"The weights of {source!r} have no pooling head, so the model gives "
            "neither classes nor features. Convert them by `vit-scaling weights import "
            "--head=gap`, and give the file written."
        )
    return model, record, assumed


def check_takes_default_range(model: keras.Model) -> None:
    """Raise if layers in front of a model's weights may expect pixels outside [-1, 1].

    Models of this package take [-1, 1]; `ScaleImages` converts it for backbones.
    """
    front = preprocessing_layers(model)
    if front and not isinstance(front[0], ScaleImages):
        raise ValueError(
            f"Model {model.name!r} starts with {describe_layers(front)}, so the range "
            "of its pixels is unknown. Give it by --value_range, such as 0 255."
        )


def assign_weights(model: keras.Model, weights: ViTWeights) -> None:
    """Assign the weights to a model built for them, with resampled positions.

    `model.record` then holds the record of the weights for the model's image size.

    Raises:
        ValueError: A variable of the model is not among the weights, or has another
            shape. The model is unchanged then.
    """
    values = resample_positions(model, weights)
    preprocessing = {id(v) for layer in layers_before(model) for v in layer.variables}
    variables = [v for v in model.weights if id(v) not in preprocessing]
    for variable in variables:
        if variable.path not in values:
            raise ValueError(
                f"The weights have no {variable.path!r}, which model {model.name!r} "
                "needs. Build the model with the arguments in `weights.arguments`."
            )
        if tuple(variable.shape) != values[variable.path].shape:
            raise ValueError(
                f"The weights' {variable.path!r} has shape "
                f"{values[variable.path].shape}, the model's {tuple(variable.shape)}."
            )
    for variable in variables:
        variable.assign(values[variable.path])
    if weights.record is not None:
        height, width = model.input.shape[1:3]
        model.record = weights.record.at_size((height, width))


def resample_positions(model: keras.Model, weights: ViTWeights) -> Arrays:
    """Return the weights' variables, with positions for the model's grid."""
    variables = dict(weights.variables)
    if POSITIONS in variables and any(v.path == POSITIONS for v in model.variables):
        grid = tuple(model.get_layer("position_embedding").grid)
        old_grid = weights.shape.grid(weights.arguments["image_size"])
        variables[POSITIONS] = resample(variables[POSITIONS], grid, old_grid=old_grid)
    return variables


def load_trained(path: str, *, averages: bool | None = None) -> keras.Model:
    """Load the model of a `.keras` file or a run folder, with its weights.

    `model.record` holds its class names and preprocessing, or None.

    Args:
        path: The file or folder.
        averages: Whether to load a run's averaged weights instead of its last ones.
            None: those that the run evaluates.

    Raises:
        ValueError: The file is truncated, is not a `.keras`, or has layers that are
            not registered with Keras.
        FileNotFoundError: The folder holds no run, or no checkpoint yet.
    """
    found = find_source(path)
    model = _load_model_of(found, averages)
    model.record = own_record(found)
    return model


def _load_model_of(found: Source, averages: bool | None) -> keras.Model:
    """Return the model of a run or a .keras; see `load_trained`."""
    path = found.path
    if found.kind == RUN:
        from vit_scaling.training.run_files import read_model
        from vit_scaling.training.run_weights import restore_model

        model = read_model(path)
        restore_model(model, path, averages=averages)
        return model
    _check_averages(found, averages)
    try:
        return keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path!r} can't be read as .keras: {error}") from error
    except TypeError as error:  # Keras raises it for a class that it does not know.
        reason = re.search(r"Could not locate class '[^']*'", str(error))
        raise ValueError(
            f"{path!r} can't be read as .keras: {reason[0] if reason else error}. "
            "Layers of other packages must be registered with Keras, by importing "
            "them, before the file is read; no command does that."
        ) from error


def _check_averages(source: Source, averages: bool | None) -> None:
    if averages is not None:
        raise ValueError(
            f"`averages` (--averages) chooses between the weights of a run, and "
            f"{source.path!r} is {source.kind.description}. Leave it out."
        )


def save_weights(
    weights: ViTWeights,
    output: str,
    *,
    image_size: int | tuple[int, int] | None = None,
) -> None:
    """Write a `.keras` model or this package's `.npz` atomically.

    Args:
        weights: Weights from `read_weights`.
        output: A name that ends in `.keras` or `.npz`.
        image_size: See `build_model`; for `.keras` only.

    Raises:
        ValueError: The name has another suffix, or `image_size` is given for `.npz`.
    """
    if output.endswith(".npz"):
        if image_size is not None:
            raise ValueError(
                f"`image_size` requires an output of '.keras'; received {output!r} "
                f"with image_size={image_size}. An '.npz' keeps the source's "
                "positions, which are resampled when a model reads it."
            )
        array_files.write_npz(output, native_npz.write_native(weights))
    elif output.endswith(".keras"):
        model = build_model(weights, image_size=image_size)
        with io_files.atomic_local_file(output) as temporary:
            model.save(os.fspath(temporary))
            if weights.record is not None:
                height, width = model.input.shape[1:3]
                record = weights.record.at_size((height, width))
                add_to_keras_file(os.fspath(temporary), record)
    else:
        raise ValueError(
            f"`output` must end in '.keras' or '.npz'; received {output!r}."
        )


def export_weights(model: keras.Model | ViTWeights, output: str) -> dict[str, Any]:
    """Write weights in another project's layout, atomically.

    Args:
        model: A ViT of this package, or weights from `read_weights`.
        output: `.npz` for big_vision's layout, `.safetensors` for timm's.

    Returns:
        `layout`, `arrays` (their number), `load_with`: Python by which the other
        project loads the file; for timm's layout also `arguments` of timm's
        VisionTransformer (`norm_layer` as the text of an expression).

    Raises:
        ValueError: The other project's ViT lacks a part of the model or computes GELU
            or norms differently, or the name has another suffix.
    """
    weights = model if isinstance(model, ViTWeights) else weights_of_model(model)
    layout, exported = registry.convert_for_export(weights, output)
    text = native_npz.arguments_as_text(weights.arguments)
    if output.endswith(".npz"):  # Positions alone do not show the grid's sides.
        comment = json.dumps({sidecar_files.METADATA_KEY: text})
        array_files.write_npz(output, exported.arrays, comment=comment)
    else:
        metadata = {"format": "pt", sidecar_files.METADATA_KEY: text}
        metadata |= native_npz.record_text(weights)
        array_files.write_safetensors(output, exported.arrays, metadata)
    report: dict[str, Any] = {
        "layout": layout,
        "arrays": len(exported.arrays),
        "load_with": exported.load_with.replace("{path}", repr(output)),
    }
    return report | ({"arguments": exported.arguments} if exported.arguments else {})
