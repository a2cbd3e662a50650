"""Check the arguments that Keras Applications share, with Keras' messages."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from vit_scaling.modeling.head_specs import POOLING_HEADS

POOLINGS = (None, "avg", "max", "head")
HEADS = (None, *POOLING_HEADS)
# With pre-trained weights Keras allows the first two; the paper's loss needs sigmoid.
ACTIVATIONS = (None, "softmax", "sigmoid")


def check_choice(
    argument: str, value: str | None, choices: Sequence[str | None]
) -> None:
    """Raise unless the argument's value is one of the choices."""
    if value not in choices:
        *first, last = map(repr, choices)
        raise ValueError(
            f"The `{argument}` argument should be one of {', '.join(first)} or {last}. "
            f"Received: {argument}={value}"
        )


def check_activation(
    activation: str | Callable[..., Any] | None, weights: str | None
) -> None:
    """Raise if weights come with an activation other than those of `ACTIVATIONS`."""
    allowed = {keras.activations.get(known) for known in ACTIVATIONS}
    if weights is not None and keras.activations.get(activation) not in allowed:
        raise ValueError(
            "Only `None`, `softmax` and `sigmoid` activations are allowed for the "
            "`classifier_activation` argument when using pretrained weights, with "
            f"`include_top=True`; Received: classifier_activation={activation}"
        )


@contextlib.contextmanager
def missing_weights_error(weights: str) -> Iterator[None]:
    """Context manager: raise Keras' ValueError if `weights` does not exist."""
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(
            "The `weights` argument should be either `None` (random initialization), "
            "a published name, an address, or the path to the weights file to be "
            f"loaded. Received: weights={weights}. {error}"
        ) from error


def make_images_input(
    tensor: Any,
    shape: tuple[int, int, int] | None,
    *,
    patch: int,
    size: int | tuple[int, int],
    needs_colours: bool,
) -> Any:
    """Return the model's input: the given tensor, or a new one.

    Args:
        tensor: A Keras tensor, another tensor to build a Keras input on, or None.
        shape: (height, width, channels), or None for `size` and 3 channels.
        patch: The smallest side allowed.
        size: Default side or sides.
        needs_colours: Whether weights need exactly 3 channels.

    Raises:
        ValueError: The shape is malformed, too small, not static, or has other
            channels than the weights.
    """
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "This package's models take images with `channels_last`. Received: "
            f"keras.config.image_data_format()={keras.config.image_data_format()!r}"
        )
    if tensor is not None:
        if not keras.utils.is_keras_tensor(tensor):
            tensor = keras.Input(tensor=tensor, name="images")
        given = tuple(tensor.shape[1:])
        if shape is not None and tuple(shape) != given:
            raise ValueError(
                f"`input_shape` must be that of `input_tensor`, {given}. Received: "
                f"input_shape={shape}"
            )
        shape = given
    sides = size if isinstance(size, tuple | list) else (size, size)
    wanted = tuple(shape) if shape is not None else (*sides, 3)
    _check_shape(wanted, patch, needs_colours)
    if tensor is not None:
        return tensor
    return keras.Input(wanted, name="images", dtype="float32")


def _check_shape(shape: tuple[Any, ...], patch: int, needs_colours: bool) -> None:
    if len(shape) != 3:
        raise ValueError(
            "`input_shape` must be a tuple of three integers. Received: "
            f"input_shape={shape}"
        )
    if None in shape:
        raise ValueError(
            "You should specify a static `input_shape`: a Vision Transformer's "
            f"positions are for one grid. Received: input_shape={shape}"
        )
    if min(shape[:2]) < patch:
        raise ValueError(
            f"Input size must be at least {patch}x{patch}; Received: "
            f"input_shape={shape}"
        )
    if needs_colours and shape[2] != 3:
        raise ValueError(
            "The input must have 3 channels when weights are loaded; Received "
            f"`input_shape={shape}`"
        )
    if shape[2] not in (1, 3):
        warnings.warn(
            "This model usually expects 1 or 3 input channels. However, it was passed "
            f"an input_shape with {shape[2]} input channels.",
            stacklevel=4,
        )
