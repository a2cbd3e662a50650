"""Settings of a training step on which its memory and its rate depend."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from typing import Any

from vit_scaling.checks import check_at_least
from vit_scaling.modeling.rematerialization import recomputed_parts
from vit_scaling.naming import unknown_name_message
from vit_scaling.optimization.update_rule import BYTES
from vit_scaling.optimization.update_rules import RULES_BY_FLAG

PRECISIONS = {"float32": 4, "mixed_bfloat16": 2}


@dataclasses.dataclass(frozen=True)
class Step:
    """Settings of a training step, besides the model's shape.

    Attributes:
        head: "map", "gap", "token" or "none".
        image_size: Side of the images, in pixels.
        classes: Outputs of the classifier.
        optimizer: Key of `update_rules.RULES_BY_FLAG`, such as "adam_hp".
        precision: "mixed_bfloat16" or "float32", of activations and gradients.
        rematerialize: Policy of `rematerialization.recomputed_parts`.
        clip: Whether the gradients' global norm is clipped: all gradients must then
            exist before the first update.
        scan: Whether the blocks are one loop over stacked weights (the authors' JAX
            option); Keras unrolls them.
        tpu: Whether arrays are laid out in tiles of 8 × 128.
        on_chip_bytes: Bytes of temporaries that the compiler keeps outside the device's
            memory.
        representation_width: Width of the tanh layer before the classifier, if any.
        average: Whether a Polyak average of the weights is kept.
        micro_batches: Pieces of the batch, one after the other, whose gradients are
            summed in float32.
        lora_rank: Rank of the adapters that are trained, with the classifier, in place
            of all weights; None trains all.
        attention_chunk: Number of queries that attend at a time: the attention weights
            of one chunk exist at a time, and none are kept for the backward pass; None:
            all.
        gradient_dtype: Dtype of the gradients that replicas exchange, "float32" or
            "bfloat16"; None for a single replica.

    Raises:
        ValueError: An optimizer, precision or policy is not known.
    """

    head: str = "map"
    image_size: int = 224
    classes: int | None = 1000
    optimizer: str = "adafactor"
    precision: str = "mixed_bfloat16"
    rematerialize: str = "none"
    clip: bool = True
    scan: bool = False
    tpu: bool = True
    on_chip_bytes: int = 0
    representation_width: int | None = None
    average: bool = False
    micro_batches: int = 1
    lora_rank: int | None = None
    attention_chunk: int | None = None
    gradient_dtype: str | None = None

    def __post_init__(self) -> None:
        for name, known in (("optimizer", RULES_BY_FLAG), ("precision", PRECISIONS)):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(unknown_name_message(name, value, known))
        recomputed_parts(self.rematerialize, depth=1)
        check_at_least(1, micro_batches=self.micro_batches)
        for name in ("lora_rank", "attention_chunk"):
            if getattr(self, name) is not None:
                check_at_least(1, **{name: getattr(self, name)})

    @property
    def activation_bytes(self) -> int:
        """Bytes of one activation."""
        return PRECISIONS[self.precision]

    @property
    def gradient_bytes(self) -> int:
        """Bytes of one element of a gradient, as all of them exist before clipping."""
        if self.gradient_dtype is None:
            return self.activation_bytes
        return BYTES[self.gradient_dtype]

    @property
    def model_options(self) -> dict[str, Any]:
        """The keyword arguments of `vit_variables`, `parameters` and `flops`."""
        names = ("head", "image_size", "classes", "representation_width")
        return {name: getattr(self, name) for name in names}
