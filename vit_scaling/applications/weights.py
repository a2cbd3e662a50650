"""Weights in and out: any known file to a model of ours, and to others' layouts."""
# SPDX-License-Identifier: Apache-2.0

import re
import zipfile
from typing import Any

import keras
import numpy as np

from vit_scaling import array_files as files
from vit_scaling.applications.addresses import is_folder, local_path
from vit_scaling.applications.formats import big_vision, huggingface, own, timm
from vit_scaling.applications.formats.assembly import reassemble
from vit_scaling.applications.formats.beside import (
    NOTES,
    config_beside,
    with_own_notes,
)
from vit_scaling.applications.formats.layout import ViTWeights
from vit_scaling.applications.formats.source import Request
from vit_scaling.modeling.positions import resample
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.modeling.vit import vit

KINDS = (
    "our own .npz, .keras or run folder; .npz of google-research/vision_transformer or "
    "big_vision; .safetensors of timm's or Hugging Face's ViT and SigLIP"
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
) -> ViTWeights:
    """Return the weights in a file, under our names; layout and shape are recognised.

    Args:
        source: A path, a published name or an address (`addresses.local_path`) of any
            kind: see `KINDS`.
        shape: The shape the file must have; None takes the file's.
        head: The head wanted; None takes the file's. A file's MAP head can be left out
            ("gap", "none"), and its class token be made a register ("gap").
        heads: Attention heads, where a fused kernel hides them and no named shape fits.
        source_image_size: Image size of the file's positions, if these are no square.
        approximate_gelu: GELU by tanh or erf; None as the source computes it.
        norm_epsilon: Epsilon of all norms; None as the source has it.
        ignore: Regular expression of arrays to leave out.

    Returns:
        Variables by path, the arguments of `vit`, and what became of every array.

    Raises:
        FileNotFoundError, OSError: There is no such file, or it can't be fetched.
        ValueError: The file is unreadable, of an unknown layout, incomplete, or not of
            the shape or head asked for.
    """
    request = Request(
        shape, head, heads, source_image_size, approximate_gelu, norm_epsilon, ignore
    )
    path = local_path(source)
    if is_folder(path) or path.endswith(".keras"):
        return reassemble(own.weights_of(load_trained(path)), request)
    if path.endswith(".safetensors"):
        arrays, metadata = files.read_safetensors(path)
        if NOTES in metadata:  # Written by `export_weights`.
            request, config = with_own_notes(request, metadata[NOTES])
        else:
            config = config_beside(path)
    else:
        arrays, config = files.read_npz(path), {}
    names = set(arrays)
    if own.is_own(names):
        return reassemble(own.read_own(arrays), request)
    if timm.is_timm(names):
        return timm.read_timm(arrays, request, config)
    if huggingface.is_huggingface(names):
        return huggingface.read_huggingface(arrays, request, config)
    if big_vision.is_big_vision(names):
        return big_vision.read_big_vision(arrays, request)
    raise ValueError(
        f"The layout of {path!r} is not known; its first arrays are "
        f"{', '.join(sorted(names)[:5])}. Known: {KINDS}."
    )


def build_model(
    weights: ViTWeights,
    *,
    image_size: int | tuple[int, int] | None = None,
    dtype: str = "float32",
    name: str = "vit",
) -> keras.Model:
    """Return the model that the weights are of, with the weights in it.

    Args:
        weights: What `read_weights` returned.
        image_size: Pixels, side or (height, width); positions are resampled. None
            takes the file's.
        dtype: "float32" or "mixed_bfloat16".
        name: The model's name.
    """
    arguments = dict(weights.arguments)
    if image_size is not None:
        arguments["image_size"] = image_size
    model = vit(**arguments, dtype=dtype, name=name)
    assign(model, weights)
    return model


def load_classifier(source: str) -> tuple[keras.Model, tuple[str, ...]]:
    """Return the model in a file of any kind, classifier included, to be served.

    Args:
        source: A `.keras`, or whatever else `read_weights` takes and needs no telling.

    Returns:
        The model, and what was assumed in reading it.

    Raises:
        ValueError: See `read_weights`; or a ViT has no classifier.
    """
    path = local_path(source)
    if path.endswith(".keras"):
        model, assumed = load_trained(path), tuple[str, ...]()
    else:
        weights = read_weights(path)
        model, assumed = build_model(weights), weights.assumed
    names = {layer.name for layer in model.layers}
    if "encoder_norm" in names and "head" not in names:
        raise ValueError(
            f"The weights of {source!r} hold no classifier, so that nothing can be "
            "predicted by them. Fine-tune them first (tools/finetune.py)."
        )
    return model, assumed


def assign(model: keras.Model, weights: ViTWeights) -> None:
    """Put the weights into a model built for them; positions are resampled if need be.

    Raises:
        ValueError: A variable of the model is not among the weights, or is of another
            shape.
    """
    values = variables_for(model, weights)
    for variable in model.variables:
        if variable.path not in values:
            raise ValueError(
                f"The weights hold no {variable.path!r}, which model {model.name!r} "
                "needs. Build the model with the arguments in `weights.arguments`."
            )
        if tuple(variable.shape) != values[variable.path].shape:
            raise ValueError(
                f"The weights' {variable.path!r} is of shape "
                f"{values[variable.path].shape}, the model's of "
                f"{tuple(variable.shape)}."
            )
    for variable in model.variables:
        variable.assign(values[variable.path])


def variables_for(model: keras.Model, weights: ViTWeights) -> dict[str, np.ndarray]:
    """Return the weights' variables, positions resampled to the model's grid."""
    path = "position_embedding/embedding"
    variables = dict(weights.variables)
    if path in variables and any(v.path == path for v in model.variables):
        layer = model.get_layer("position_embedding")
        old = weights.shape.grid(weights.arguments["image_size"])
        variables[path] = resample(variables[path], tuple(layer.grid), old_grid=old)
    return variables


def load_trained(path: str, *, averages: bool = False) -> keras.Model:
    """Return the model in a `.keras` file or a run's folder, with its weights.

    Args:
        path: The file or folder.
        averages: Whether a run's averaged weights are taken.

    Raises:
        ValueError: The file is truncated, no `.keras`, or has layers that nothing
            imported so far knows.
        FileNotFoundError: The folder holds no run, or no checkpoint yet.
    """
    if not is_folder(path):
        try:
            return keras.saving.load_model(path, compile=False)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path!r} can't be read as .keras: {error}") from error
        except TypeError as error:  # How Keras says that it does not know a class.
            told = re.search(r"Could not locate class '[^']*'", str(error))
            raise ValueError(
                f"{path!r} can't be read as .keras: {told[0] if told else error}. "
                "Layers of other packages must be registered with Keras, by importing "
                "them, before the file is read; no command does that."
            ) from error
    from vit_scaling.training.checkpoints import restore_model
    from vit_scaling.training.run_files import read_model

    model = read_model(path)
    restore_model(model, path, averages=averages)
    return model


def save_weights(
    weights: ViTWeights,
    output: str,
    *,
    image_size: int | tuple[int, int] | None = None,
) -> None:
    """Write a `.keras` model or this package's `.npz`, whole or not at all.

    Args:
        weights: What `read_weights` returned.
        output: A name that ends in `.keras` or `.npz`.
        image_size: See `build_model`; for `.keras` only.

    Raises:
        ValueError: The name ends otherwise, or `image_size` comes with `.npz`.
    """
    if output.endswith(".npz"):
        if image_size is not None:
            raise ValueError(
                "`image_size` is of a model: write '.keras'. An '.npz' keeps the "
                "source's positions, which are resampled when it is read into a model; "
                f"received image_size={image_size}, output={output!r}."
            )
        files.write_npz(output, own.write_own(weights))
    elif output.endswith(".keras"):
        model = build_model(weights, image_size=image_size)
        with files.whole_or_nothing(output) as partial:
            model.save(partial)
    else:
        raise ValueError(
            f"`output` must end in '.keras' or '.npz'; received {output!r}."
        )


def export_weights(model: keras.Model | ViTWeights, output: str) -> dict[str, Any]:
    """Write weights in another project's layout, whole or not at all.

    Args:
        model: A ViT of this package, or what `read_weights` returned.
        output: `.npz` for big_vision's layout, `.safetensors` for timm's.

    Returns:
        `layout`, `arrays` (their number), and `load_with`: how the other project loads
        the file; of timm's layout also `arguments` of timm's VisionTransformer
        (`norm_layer` as the text of a Python expression).

    Raises:
        ValueError: The other project's ViT has no place for a part of the model or
            computes GELU or norms otherwise, or the name ends otherwise.
    """
    weights = model if isinstance(model, ViTWeights) else own.weights_of(model)
    if output.endswith(".npz"):
        arrays = big_vision.write_big_vision(weights)
        files.write_npz(output, arrays)
        how = f"big_vision.models.vit.load(init_params, {output!r}, model_cfg)"
        return {"layout": "big_vision", "arrays": len(arrays), "load_with": how}
    if output.endswith(".safetensors"):
        arrays, arguments = timm.write_timm(weights)
        notes = {
            "format": "pt",
            NOTES: own.arguments_as_text(weights.arguments),
        }
        files.write_safetensors(output, arrays, notes)
        listed = ", ".join(
            f"{name}={value if name == 'norm_layer' else repr(value)}"
            for name, value in arguments.items()
        )
        how = (
            f"model = timm.models.vision_transformer.VisionTransformer({listed}); "
            f"model.load_state_dict(safetensors.torch.load_file({output!r}))"
        )
        return {
            "layout": "timm",
            "arrays": len(arrays),
            "load_with": how,
            "arguments": arguments,
        }
    raise ValueError(
        "`output` must end in '.npz' (big_vision's layout) or '.safetensors' (timm's); "
        f"received {output!r}."
    )
