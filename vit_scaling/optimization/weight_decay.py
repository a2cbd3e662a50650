"""Weight decay of head and body apart: decoupled, or as an L2 penalty (§3.1)."""
# SPDX-License-Identifier: Apache-2.0

from typing import Any, NamedTuple

import keras
from keras import ops

from vit_scaling.argument_types import NonNegativeFloat, check_arguments
from vit_scaling.optimization.path_rules import PathRules, check_path_rules

# The classifier is the layer `head`, also inside another model.
HEAD_KERNEL = r"(.*/)?head/kernel"
BODY_KERNEL = r"(.*/)?kernel"


class WeightRates(NamedTuple):
    """What a weight's rules give it.

    Attributes:
        multiplier: Factor of the learning rate.
        strength: Of its decay; 0 is none.
    """

    multiplier: float
    strength: float


def change_of(
    direction: Any,
    weights: Any,
    learning_rate: Any,
    rates: WeightRates,
    *,
    base_rate: float | None,
) -> Any:
    """Return the change of a weight, to be subtracted: its direction and its decay.

    Args:
        direction: The rule's, of the weights' shape.
        weights: The weights, which decay.
        learning_rate: Of the step.
        rates: Of this weight.
        base_rate: The schedule's base, by which an absolute decay is independent of the
            learning rate. None: the decay is multiplied by the learning rate.
    """
    multiplier, strength = rates
    if not strength:
        return learning_rate * multiplier * direction
    if base_rate is not None:
        schedule = learning_rate / base_rate
        return learning_rate * multiplier * direction + schedule * strength * weights
    return learning_rate * multiplier * (direction + strength * weights)


@check_arguments
def head_and_body(
    head: NonNegativeFloat = 3.0, body: NonNegativeFloat = 0.03
) -> PathRules:
    """Return the paper's decay: one strength for the classifier, one for the rest.

    Only kernels decay: no bias, no normalisation, no position embedding, no probe.

    Args:
        head: Strength of the classifier's kernel, as the paper writes it; default 3.0,
            as in all its runs (App. B). It multiplies the learning rate of the step.
        body: Strength of every other kernel; default 0.03.

    Returns:
        Rules for the optimizers' `weight_decay`.

    Example:
        >>> head_and_body(head=3.0, body=0.03)
        (('(.*/)?head/kernel', 3.0), ('(.*/)?kernel', 0.03))

    References:
        Zhai et al. 2022, §3.1, Fig. 5, Appendix C (there as 0.03 · 8e-4, times 100 for
        the head, times a schedule of base 1: the same at a base rate of 8e-4).
    """
    return check_path_rules("weight_decay", ((HEAD_KERNEL, head), (BODY_KERNEL, body)))


@keras.saving.register_keras_serializable("vit_scaling")
class HalfL2(keras.regularizers.Regularizer):
    """The penalty strength / 2 · Σ w², whose gradient is strength · w.

    Under plain SGD with learning rate lr it subtracts lr · strength · w from a weight,
    like decoupled decay of the same strength. Under Adam and Adafactor it does not:
    they divide the penalty's gradient by the second moment. (Keras' `L2` is twice this
    penalty.)

    Args:
        strength: Factor of the weight in the gradient, at least 0.

    Raises:
        ValueError: `strength` is negative or not finite.
    """

    @check_arguments
    def __init__(self, strength: NonNegativeFloat) -> None:
        self.strength = float(strength)

    def __call__(self, x: Any) -> Any:
        """Return the penalty of the weight `x`, a scalar."""
        return 0.5 * self.strength * ops.sum(ops.square(x))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"strength": self.strength}


@check_arguments
def regularize_head(
    model: keras.Model, strength: NonNegativeFloat, *, layer: str = "head"
) -> keras.Model:
    """Add the L2 penalty of the classifier's kernel to `model.losses`, in place.

    The training step adds `model.losses` to the loss. It does not replace the
    optimizers' `weight_decay`; either or both may be used. A saved model keeps it.

    Args:
        model: A model with a classifier, a layer with a `kernel`.
        strength: See `HalfL2`; 0 removes the penalty.
        layer: Name of the classifier; default "head".

    Returns:
        The same model.

    Raises:
        ValueError: The model has no such layer, or the layer has no kernel.

    References:
        Zhai et al. 2022, §3.1 ("decoupled weight decay for the head").
    """
    head = next((part for part in model.layers if part.name == layer), None)
    kernel = getattr(head, "kernel", None)
    if head is None or kernel is None:
        raise ValueError(
            f"`layer` must name a layer with a kernel; the model {model.name!r} has no "
            f"{layer!r} with one. Build it with `classes`, or give the classifier's "
            "name."
        )
    penalty = HalfL2(strength) if strength else None
    # The layer's attribute is saved, the variable's is added to the loss.
    head.kernel_regularizer = penalty
    kernel.regularizer = penalty
    return model
