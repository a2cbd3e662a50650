"""The other reading of the head's weight decay: an L2 penalty in the loss (§3.1)."""
# SPDX-License-Identifier: Apache-2.0

import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("vit_scaling")
class HalfL2(keras.regularizers.Regularizer):
    """The penalty strength / 2 · Σ w², whose gradient is strength · w.

    Under plain SGD with learning rate lr it takes lr · strength · w off a weight, as
    decoupled decay of the same strength does. Under Adam and Adafactor it does not: the
    penalty's gradient is divided by the second moment along with the loss' own. (Keras'
    `L2` has no half: twice this one.)

    Args:
        strength: Factor of the weight in the gradient, at least 0.

    Raises:
        ValueError: `strength` is negative or not finite.
    """

    def __init__(self, strength: float) -> None:
        if not (math.isfinite(strength) and strength >= 0):
            raise ValueError(
                f"`strength` must be finite and at least 0; received {strength!r}."
            )
        self.strength = float(strength)

    def __call__(self, x: Any) -> Any:
        """Return the penalty of the weight `x`, a scalar."""
        return 0.5 * self.strength * ops.sum(ops.square(x))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"strength": self.strength}


def regularize_head(
    model: keras.Model, strength: float, *, layer: str = "head"
) -> keras.Model:
    """Add the L2 penalty of the classifier's kernel to `model.losses`, in place.

    The training step adds `model.losses` to the loss. It does not replace the
    optimizers' `weight_decay`; either or both may be on. A saved model keeps it.

    Args:
        model: A model with a classifier, a layer with a `kernel`.
        strength: See `HalfL2`; 0 removes the penalty.
        layer: Name of the classifier; default "head".

    Returns:
        The same model.

    Raises:
        ValueError: The model has no such layer, or the layer no kernel.

    References:
        Zhai et al. 2022, §3.1 ("decoupled weight decay for the head").
    """
    head = next((found for found in model.layers if found.name == layer), None)
    kernel = getattr(head, "kernel", None)
    if head is None or kernel is None:
        raise ValueError(
            f"`layer` must name a layer with a kernel; the model {model.name!r} has no "
            f"{layer!r} with one. Build it with `classes`, or give the classifier's "
            "name."
        )
    penalty = HalfL2(strength) if strength else None
    # The layer's attribute is what is saved, the variable's what enters the loss.
    head.kernel_regularizer = penalty
    kernel.regularizer = penalty
    return model
