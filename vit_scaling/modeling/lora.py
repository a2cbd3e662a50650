"""Low-rank adapters (LoRA, Hu et al. 2022) in a built model, and frozen weights."""
# SPDX-License-Identifier: Apache-2.0

import re
from collections.abc import Sequence

import keras

from vit_scaling.adapters import ADAPTED, TRAINED
from vit_scaling.argument_types import PositiveFloat, PositiveInt, check_arguments
from vit_scaling.modeling.layers import Projection


@check_arguments
def add_adapters(
    model: keras.Model,
    *,
    rank: PositiveInt = 8,
    alpha: PositiveFloat | None = None,
    trained: Sequence[str] = TRAINED,
) -> None:
    """Add adapters to attention and MLP kernels of all blocks; freeze other weights.

    The model's outputs stay the same, since B is zero at first. Exports, predictions
    and `.keras` files have the merged kernels W + alpha/rank · A B.

    Args:
        model: A ViT of this package.
        rank: Rank of A B; 8 as in Keras' and PEFT's examples.
        alpha: Numerator of the scale alpha / rank. None is `rank`, a scale of 1, as in
            Keras' `enable_lora`.
        trained: Regular expressions of the paths that are trained: adapters and
            classifier. `(*TRAINED, "map_head/.*")` trains the MAP head too.

    Raises:
        ValueError: The model has no such kernel, has adapters already, or an expression
            matches no variable.
    """
    adapted = [
        layer
        for layer in model._flatten_layers()  # As Keras' own guide to LoRA does.
        if isinstance(layer, Projection) and ADAPTED.fullmatch(layer.kernel.path)
    ]
    if not adapted:
        raise ValueError(
            f"Model {model.name!r} has no encoder block of this package, whose kernels "
            "get adapters. Build it by `vit` or an application such as ViTB16."
        )
    for layer in adapted:
        layer.enable_lora(rank, alpha)
    freeze_except(model, patterns=trained)


def freeze_except(model: keras.Model, *, patterns: Sequence[str]) -> None:
    """Train only the variables whose whole path an expression matches.

    No gradient, optimizer state or average of the others is computed. (A learning-rate
    multiplier of 0 freezes too, but their gradients are computed.)

    Args:
        model: Any built model.
        patterns: Regular expressions, such as "head/.*", the classifier.

    Raises:
        ValueError: An expression matches no variable.
    """
    paths = [variable.path for variable in model.trainable_variables]
    for pattern in patterns:
        if not any(re.fullmatch(pattern, path) for path in paths):
            raise ValueError(
                f"`patterns`: {pattern!r} matches none of the {len(paths)} trained "
                f"variables, such as {paths[0]} and {paths[-1]}. An expression must "
                "match a whole path."
            )
    for variable in model.trainable_variables:
        if not any(re.fullmatch(pattern, variable.path) for pattern in patterns):
            variable.trainable = False
