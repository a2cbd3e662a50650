"""Vision Transformers as Keras Applications: ViTB32 … ViTG14, with Keras' arguments."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from vit_scaling.applications import arguments as checks
from vit_scaling.applications.addresses import ends_in
from vit_scaling.applications.weights import (
    ViTWeights,
    assign,
    read_weights,
)
from vit_scaling.modeling.shapes import shape_named
from vit_scaling.modeling.vit import vit

PUBLIC = "vit_scaling.applications"
# The layers behind a head, as each layout calls them.
TRAINED_ON_HEAD = (
    r"(head|pre_logits)/.*|head\.(weight|bias)|(pre_logits|classifier|pooler)\..*"
)
DOCSTRING = """Return a ViT-{shape} (Zhai et al. 2022, Table 2) as a Keras Application.

Images are (batch, height, width, 3) in [-1, 1]: what `preprocess_input` returns.

Args:
    include_top: Whether the classifier stands on top.
    weights: None (random), or a file or address of weights of any kind that
        `vit_scaling.applications.weights.read_weights` knows, or a published name
        ("SigLIP B/16 224"), or a Keras `.weights.h5`. The model is then built as the
        weights need it: GELU, LayerScale, registers and so on.
    input_tensor: Keras tensor of images to build on.
    input_shape: (height, width, channels); None takes the weights' own size, or
        (224, 224, 3). Positions of weights are resampled to it. What does not fill a
        patch is cropped at the lower and right edge.
    pooling: Output without the top. None: the grid of tokens, (batch, rows, columns,
        width); "avg" or "max": its average or maximum; "head": what `head` makes of
        the tokens, the paper's features.
    classes: Width of the classifier, if `include_top`; weights must agree.
    classifier_activation: Activation behind the classifier; None gives logits. With
        weights: "softmax", "sigmoid" (the paper's loss) or None.
    name: Name of the model.
    head: "map", "gap" or "token"; None takes the weights' own, or "map".

Returns:
    A `keras.Model` under the global dtype policy (float32 or mixed_bfloat16).

Raises:
    ValueError: An argument is out of its range, or the weights do not fit.

References:
    Zhai et al. 2022, §3.2 and Table 2.
"""


def _application(name: str, shape_name: str) -> Callable[..., keras.Model]:
    """Return the constructor of one shape."""
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
        checks.check_pooling(pooling)
        checks.check_head(head)
        if include_top:
            checks.check_activation(classifier_activation, weights)
        if weights is not None and ends_in(str(weights), ".h5"):
            path = checks.existing(weights)
            model = constructor(
                include_top, None, input_tensor, input_shape, pooling, classes,
                classifier_activation, name, head=head,
            )  # fmt: skip
            model.load_weights(path)
            return model
        read = (
            None if weights is None else _read(weights, shape_name, head, include_top)
        )
        top = _Top(include_top, pooling, classes, classifier_activation)
        images = checks.images(
            input_tensor,
            input_shape,
            patch=shape_named(shape_name).patch,
            size=224 if read is None else read.arguments["image_size"],
            needs_colours=read is not None,
        )
        model = _build(shape_name, head, read, images, top, name)
        if read is not None:
            assign(model, read)
        return model

    constructor.__name__ = constructor.__qualname__ = name
    constructor.__module__ = PUBLIC
    constructor.__doc__ = DOCSTRING.format(shape=shape_name)
    return constructor


@dataclasses.dataclass(frozen=True)
class _Top:
    """What stands on the tokens: the four arguments of Keras that decide it."""

    include: bool
    pooling: str | None
    classes: int
    activation: str | Callable[..., Any] | None


def _read(weights: str, shape_name: str, head: str | None, top: bool) -> ViTWeights:
    """Return weights that have the constructor's shape, and the head asked for.

    Raises:
        ValueError: As Keras raises for a `weights` argument that names nothing.
    """
    try:
        read = read_weights(weights, shape=shape_name)
        if head in (None, read.arguments["head"]):
            return read
        # Another head: what was trained on the file's own goes with the top.
        ignore = None if top else TRAINED_ON_HEAD
        return read_weights(weights, shape=shape_name, head=head, ignore=ignore)
    except FileNotFoundError as error:
        raise ValueError(
            "The `weights` argument should be either `None` (random initialization), "
            "a published name, an address, or the path to the weights file to be "
            f"loaded. Received: weights={weights}. {error}"
        ) from error


def _build(
    shape_name: str,
    head: str | None,
    weights: ViTWeights | None,
    images: keras.KerasTensor,
    top: _Top,
    name: str,
) -> keras.Model:
    """Return the model, without weights read from a file."""
    options = {} if weights is None else dict(weights.arguments)
    head = head or options.get("head", "map")
    held = options.get("classes")
    if top.include and weights is not None and held != top.classes:
        raise ValueError(
            f"With `include_top=True`, `classes` must be the {held} of the weights' "
            f"classifier; received classes={top.classes}."
            if held
            else "The weights hold no classifier. Take `include_top=False` (and "
            "pooling='head' for the features)."
        )
    pooled = top.include or top.pooling == "head"
    if pooled and head == "none":
        raise ValueError(
            "The weights hold no head (they were saved of a model without one), which "
            "pooling='head' needs: take pooling='avg', or head='gap', the average "
            "that needs no weights."
        )
    options |= {
        "shape": shape_name,
        "head": head if pooled or head == "token" else "none",
        "classes": top.classes if top.include else None,
        "input_tensor": images,
        "dtype": keras.config.dtype_policy().name,
        "name": name,
    }
    options.pop("image_size", None)
    if options.get("norm_after_pooling") and not pooled:
        raise ValueError(
            "The weights' last norm is of the averaged tokens: take "
            f"pooling='head' with `include_top=False`; received {top.pooling!r}."
        )
    if not pooled:
        return _tokens(vit(**{**options, "representation_width": None}), top, name)
    model = vit(**options)
    if not top.include or top.activation in (None, "linear"):
        return model
    activation = keras.layers.Activation(
        top.activation, name="predictions", dtype="float32"
    )
    return keras.Model(model.input, activation(model.output), name=name)


def _tokens(model: keras.Model, top: _Top, name: str) -> keras.Model:
    """Return a model that ends in the grid of tokens, averaged or not."""
    x = model.get_layer("encoder_norm").output
    rows, columns = model.get_layer("position_embedding").grid
    if x.shape[1] != rows * columns:  # The class token stands first.
        x = keras.layers.Cropping1D((1, 0), name="patches_only")(x)
    grid = keras.layers.Reshape((rows, columns, x.shape[-1]), name="feature_grid")
    x = grid(x)  # (batch, rows, columns, width)
    if top.pooling == "avg":
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    elif top.pooling == "max":
        x = keras.layers.GlobalMaxPooling2D(name="max_pool")(x)
    return keras.Model(model.input, x, name=name)


# Zhai et al. 2022, Table 2, smallest first; So400m: Alabdulmohsin et al. 2023.
ViTs28 = _application("ViTs28", "s/28")
ViTs16 = _application("ViTs16", "s/16")
ViTTi16 = _application("ViTTi16", "Ti/16")
ViTS32 = _application("ViTS32", "S/32")
ViTS16 = _application("ViTS16", "S/16")
ViTB32 = _application("ViTB32", "B/32")
ViTB28 = _application("ViTB28", "B/28")
ViTB16 = _application("ViTB16", "B/16")
ViTL16 = _application("ViTL16", "L/16")
ViTg14 = _application("ViTg14", "g/14")
ViTG14 = _application("ViTG14", "G/14")
ViTSo400m14 = _application("ViTSo400m14", "So400m/14")
