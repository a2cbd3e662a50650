"""Read what memory depends on from a run's configuration, for `plan --gin_file`."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence

from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.optimization.update_rule import UpdateRule
from vit_scaling.optimization.update_rules import RULES_BY_FLAG
from vit_scaling.scaling.planning.step import Step

# A run requires these values, but neither its step nor its memory depends on them.
NOT_READ = dict.fromkeys(("TRAIN_PATTERN", "EVAL_PATTERN", "INITIAL_WEIGHTS"), "unread")


def read_run(files: Sequence[str], bindings: Sequence[str]) -> tuple[ViTShape, Step]:
    """Return the shape and the step of the run that gin files configure.

    Optimizer, clipping, average and micro-batches are those of the objects that the run
    would build. No variable is created.

    Raises:
        ValueError: The model is not a `vit`, or its optimizer's state is not that of a
            registered rule.
    """
    from vit_scaling import configurables

    configurables.parse(files, bindings, {**NOT_READ, "BATCH_SIZE": 8})
    experiment = configurables.Experiment()
    optimizer = experiment.make_optimizer(learning_rate=1.0)
    model = configurables.model_arguments()
    step = Step(
        head=model["head"],
        image_size=model["image_size"],
        classes=model["classes"],
        representation_width=model["representation_width"],
        precision=model["dtype"],
        rematerialize=model["rematerialize"],
        attention_chunk=model["attention_chunk"],
        optimizer=_flag_of(optimizer.rule),
        clip=optimizer.clip_norm is not None,
        average=optimizer.average_decay is not None,
        gradient_dtype=optimizer.gradient_dtype,
        micro_batches=experiment.micro_batches,
    )
    return model["shape"], step


def _flag_of(rule: UpdateRule) -> str:
    """Return the name of the registered rule whose state is the same."""
    sizes = ((64,), (64, 96), (64, 4, 16))
    for flag, known in RULES_BY_FLAG.items():
        if all(rule.slots(size) == known.slots(size) for size in sizes):
            return flag
    raise ValueError(
        f"The memory of `Optimizer.rule` {rule} is not known. Its state must be that "
        f"of one of {', '.join(RULES_BY_FLAG)}."
    )
