"""Vision Transformers as Keras Applications: ViTB32 … ViTG14, with Keras' arguments."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import inspect
import re
import warnings
from collections.abc import Callable
from typing import Any

import keras

from vit_scaling.applications import arguments as keras_arguments
from vit_scaling.applications import published
from vit_scaling.applications.addresses import local_path
from vit_scaling.applications.formats.vit_weights import ViTWeights
from vit_scaling.applications.sources import KERAS_WEIGHTS, find_source
from vit_scaling.applications.weights import assign_weights, read_weights
from vit_scaling.modeling.shapes import shape_named
from vit_scaling.modeling.vit import vit

PUBLIC = "vit_scaling.applications"
# The layers after a pooling head, under the names of each layout.
AFTER_POOLING = (
    r"(head|pre_logits)/.*|head\.(weight|bias)|(pre_logits|classifier|pooler)\..*"
)


@dataclasses.dataclass(frozen=True)
class _Output:
    """What the model returns: Keras' arguments that decide it, and the head.

    Attributes:
        top: Whether the classifier is included.
        pooling: Output without the top; see the constructors.
        classes: Width of the classifier.
        activation: Activation after the classifier.
        head: Name of the pooling head, or None for the weights' own.
    """

    top: bool
    pooling: str | None
    classes: int
    activation: str | Callable[..., Any] | None
    head: str | None

    @property
    def pooled(self) -> bool:
        """Whether the pooling head is part of the model."""
        return self.top or self.pooling == "head"


_NOT_PUBLISHED = "not published for this shape"


def _application(name: str, shape_name: str) -> Callable[..., keras.Model]:
    """Return the constructor of one shape; `{shape}` in its docstring is filled in."""
    default_name = name

    def constructor(
        include_top: bool = True,
        weights: str | None = None,
        input_tensor: Any = None,
        input_shape: tuple[int, int, int] | None = None,
        pooling: str | None = None,
        classes: int = 1000,
        classifier_activation: str | Callable[..., Any] | None = "softmax",
        name: str = default_name,
        *,
        head: str | None = None,
    ) -> keras.Model:
        """Return a ViT-{shape} (Zhai et al. 2022, Table 2) as a Keras Application.

        Images are (batch, height, width, 3) in [-1, 1], or with weights in the range
        that they were trained with, `model.record.value_range`; see `preprocess_input`
        and `prepare_images`.

        Args:
            include_top: Whether to include the classifier.
            weights: None (random), "imagenet" (see below), a name in
                `vit_scaling.list_weights()`, "hf://OWNER/NAME", any other source that
                `vit_scaling.applications.addresses.local_path` takes, or a Keras
                `.weights.h5`. The model is built with the options that the weights
                need, such as GELU and registers. "imagenet" is {imagenet}.
            input_tensor: Keras tensor of images to build on.
            input_shape: (height, width, channels); None takes the weights' own size, or
                (224, 224, 3). Positions of weights are resampled to it. Pixels that do
                not fill a patch are cropped at the lower and right edge.
            pooling: Output without the top. None: the grid of tokens, (batch, rows,
                columns, width); "avg" or "max": its average or maximum; "head": the
                tokens pooled by `head`, the paper's features.
            classes: Width of the classifier, if `include_top`; weights must agree.
            classifier_activation: Activation after the classifier; None gives logits.
                With weights: "softmax", "sigmoid" (the paper's loss) or None.
            name: Name of the model.
            head: "map", "gap" or "token"; None takes the weights' own, or "map".

        Returns:
            A `keras.Model` under the global dtype policy (float32 or mixed_bfloat16).

        Raises:
            ValueError: An argument is out of its range, or the weights do not fit.
        """
        keras_arguments.check_choice("pooling", pooling, keras_arguments.POOLINGS)
        keras_arguments.check_choice("head", head, keras_arguments.HEADS)
        if include_top:
            keras_arguments.check_activation(classifier_activation, weights)
        output = _Output(include_top, pooling, classes, classifier_activation, head)
        return _load(shape_name, weights, (input_tensor, input_shape), output, name)

    constructor.__name__ = constructor.__qualname__ = name
    constructor.__module__ = PUBLIC
    default = published.IMAGENET_DEFAULTS.get(shape_name)
    constructor.__doc__ = inspect.cleandoc(constructor.__doc__ or "").format(
        shape=shape_name, imagenet=repr(default) if default else _NOT_PUBLISHED
    )
    return constructor


def _load(
    shape_name: str,
    weights: str | None,
    images: tuple[Any, tuple[int, int, int] | None],
    output: _Output,
    name: str,
) -> keras.Model:
    """Build the model for `images`, (input_tensor, input_shape), with its weights."""
    read, keras_file = None, None
    if weights is not None:
        with keras_arguments.missing_weights_error(weights):
            source = find_source(local_path(weights, shape=shape_name))
        if source.kind == KERAS_WEIGHTS:
            keras_file = source.path
        else:
            row = published.find(weights, shape_name)
            size = None if row is None else row.image_size
            read = _read(source.path, shape_name, output, size)
            if read.assumed:
                assumed = " ".join(read.assumed)
                warnings.warn(f"{weights!r}: assumed {assumed}", stacklevel=3)
    image_input = keras_arguments.make_images_input(
        *images,
        patch=shape_named(shape_name).patch,
        size=224 if read is None else read.arguments["image_size"],
        needs_colours=read is not None,
    )
    model = _build(shape_name, read, image_input, output, name)
    if read is not None:
        assign_weights(model, read)
    elif keras_file is not None:
        _load_keras_weights(model, keras_file)
    return model


def _load_keras_weights(model: keras.Model, path: str) -> None:
    """Load a `.weights.h5`; raise ValueError unless it is of exactly this model."""
    import h5py  # Comes with Keras.

    try:
        with h5py.File(path) as file:
            arrays: list[str] = []
            file.visit(lambda name: arrays.append(name) if "/vars/" in name else None)
            groups = {re.sub(r"_\d+$", "", name) for name in file.get("layers", ())}
        own = {_group_name(layer) for layer in model.layers}
        others = sorted(groups - own - {"activation", "softmax"})
        if others:
            raise ValueError(f"It is of a model with {', '.join(others)} layers.")
        if len(arrays) > len(model.variables):
            raise ValueError(
                f"It holds {len(arrays)} arrays, the model has {len(model.variables)}."
            )
        with warnings.catch_warnings():
            # Keras only warns of layers that keep their initial weights.
            warnings.filterwarnings("error", ".*freshly-initialized")
            model.load_weights(path)
    except (ValueError, OSError, KeyError, UserWarning) as error:
        raise ValueError(
            f"{path!r} can't be loaded into {model.name!r}: {error} Build the model "
            "with the arguments of the one that wrote the file."
        ) from error


def _group_name(layer: keras.Layer) -> str:
    """Return the name of a layer's group in a `.weights.h5`, without its number."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _read(path: str, shape_name: str, output: _Output, size: int | None) -> ViTWeights:
    """Read weights of the constructor's shape with the requested head.

    `size` is their image size in pixels, None as in the file.

    Raises:
        ValueError: The weights do not fit.
    """
    read = read_weights(path, shape=shape_name, source_image_size=size)
    if output.head in (None, read.arguments["head"]):
        return read
    # Without the top, another head does not need the layers trained on the file's.
    ignore = None if output.top else AFTER_POOLING
    return read_weights(
        path,
        shape=shape_name,
        source_image_size=size,
        head=output.head,
        ignore=ignore,
    )


def _build(
    shape_name: str,
    weights: ViTWeights | None,
    images: keras.KerasTensor,
    output: _Output,
    name: str,
) -> keras.Model:
    """Build the model with the options that the weights need, without their values."""
    options = {} if weights is None else dict(weights.arguments)
    head = output.head or options.get("head", "map")
    _check_weights(weights, head, output)
    options |= {
        "shape": shape_name,
        "head": head if output.pooled or head == "token" else "none",
        "classes": output.classes if output.top else None,
        "input_tensor": images,
        "dtype": keras.config.dtype_policy().name,
        "name": name,
    }
    options.pop("image_size", None)
    if not output.pooled:
        options["representation_width"] = None
        return _grid_model(vit(**options), output.pooling, name)
    model = vit(**options)
    if not output.top or output.activation in (None, "linear"):
        return model
    activation = keras.layers.Activation(
        output.activation, name="predictions", dtype="float32"
    )
    return keras.Model(model.input, activation(model.output), name=name)


def _check_weights(weights: ViTWeights | None, head: str, output: _Output) -> None:
    """Raise if the weights do not have the layers that the output needs."""
    if weights is None:
        return
    classes = weights.arguments.get("classes")
    if output.top and not classes:
        raise ValueError(
            "The weights hold no classifier. Use `include_top=False` (and "
            "pooling='head' for the features)."
        )
    if output.top and classes != output.classes:
        raise ValueError(
            f"With `include_top=True`, `classes` must be the {classes} of the weights' "
            f"classifier; received classes={output.classes}."
        )
    if output.pooled and head == "none":
        raise ValueError(
            "The weights hold no head (they were saved from a model without one), "
            "which pooling='head' needs. Use pooling='avg', or head='gap', the average "
            "that needs no weights."
        )
    if not output.pooled and weights.arguments.get("norm_after_pooling"):
        raise ValueError(
            "The weights' last norm is of the averaged tokens. Use pooling='head' with "
            f"`include_top=False`; received pooling={output.pooling!r}."
        )


def _grid_model(model: keras.Model, pooling: str | None, name: str) -> keras.Model:
    """Return a model that outputs the grid of tokens, or its average or maximum."""
    x = model.get_layer("encoder_norm").output
    rows, columns = model.get_layer("position_embedding").grid
    if x.shape[1] != rows * columns:  # The class token is the first.
        x = keras.layers.Cropping1D((1, 0), name="patches_only")(x)
    grid = keras.layers.Reshape((rows, columns, x.shape[-1]), name="feature_grid")
    x = grid(x)  # (batch, rows, columns, width)
    if pooling == "avg":
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    elif pooling == "max":
        x = keras.layers.GlobalMaxPooling2D(name="max_pool")(x)
    return keras.Model(model.input, x, name=name)


# Zhai et al. 2022, Table 2, smallest first; the others are shapes of published weights.
ViTs28 = _application("ViTs28", "s/28")
ViTs16 = _application("ViTs16", "s/16")
ViTTi16 = _application("ViTTi16", "Ti/16")
ViTS32 = _application("ViTS32", "S/32")
ViTS16 = _application("ViTS16", "S/16")
ViTS14 = _application("ViTS14", "S/14")
ViTM16 = _application("ViTM16", "M/16")
ViTB32 = _application("ViTB32", "B/32")
ViTB28 = _application("ViTB28", "B/28")
ViTB16 = _application("ViTB16", "B/16")
ViTB14 = _application("ViTB14", "B/14")
ViTB8 = _application("ViTB8", "B/8")
ViTL16 = _application("ViTL16", "L/16")
ViTL14 = _application("ViTL14", "L/14")
ViTSo400m16 = _application("ViTSo400m16", "So400m/16")
ViTSo400m14 = _application("ViTSo400m14", "So400m/14")
ViTH14 = _application("ViTH14", "H/14")
ViTg14 = _application("ViTg14", "g/14")
ViTgopt16 = _application("ViTgopt16", "g-opt/16")
ViTG14 = _application("ViTG14", "G/14")
