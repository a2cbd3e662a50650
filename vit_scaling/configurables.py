"""All functions and classes that gin files may bind."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin

from vit_scaling import class_names, experiment, gin_files, image_preprocessing, runs
from vit_scaling.applications import backbones, finetuning
from vit_scaling.data import (
    augmentation,
    examples,
    mixing,
    pipeline,
    preprocessing,
    tfds,
    tfrecords,
)
from vit_scaling.evaluation import evaluators, label_maps
from vit_scaling.modeling import lora, shapes, vit
from vit_scaling.optimization import (
    averaging,
    learning_rate_multipliers,
    learning_rate_schedules,
    loss_scale,
    optimizer,
    update_rules,
    weight_decay,
)
from vit_scaling.scaling.studies.sweep import Sweep
from vit_scaling.training import divergence, losses, options

# The parts of a run that gin files configure and refer to.
PARTS: tuple[Callable[..., Any], ...] = (
    *update_rules.RULE_CLASSES,
    averaging.AverageDecay,
    mixing.CutMix,
    mixing.Mixup,
    augmentation.RandAugment,
    backbones.keras_backbone,
    divergence.LossGuard,
    evaluators.FewShot,
    evaluators.FewShotSet,
    evaluators.MappedAccuracy,
    finetuning.load_for_finetuning,
    image_preprocessing.CentralCrop,
    image_preprocessing.Resize,
    image_preprocessing.SquashAndCrop,
    label_maps.by_name,
    label_maps.class_names_of,
    label_maps.competing,
    class_names.imagenet_wordnet_numbers,
    label_maps.objectnet,
    label_maps.same_classes,
    learning_rate_multipliers.freeze,
    learning_rate_multipliers.layerwise_decay,
    learning_rate_multipliers.train_only,
    lora.add_adapters,
    lora.freeze_except,
    loss_scale.LossScale,
    losses.sigmoid_cross_entropy,
    losses.softmax_cross_entropy,
    optimizer.Optimizer,
    pipeline.EvalData,
    pipeline.TrainData,
    preprocessing.InceptionCrop,
    preprocessing.PaddedCrop,
    learning_rate_schedules.Constant,
    learning_rate_schedules.Cosine,
    learning_rate_schedules.Linear,
    learning_rate_schedules.ReciprocalSqrt,
    learning_rate_schedules.Trapezoid,
    shapes.ViTShape,
    shapes.as_shape,
    shapes.depth_of,
    tfds.TFDS,
    examples.Features,
    tfrecords.TFRecords,
    vit.vit,
    weight_decay.head_and_body,
    weight_decay.regularize_head,
)
# Arguments that a run passes, so that gin files may not bind them.
_PASSED = {finetuning.load_for_finetuning: ["target"]}
for _part in PARTS:
    gin.register(_part, module="vit_scaling", denylist=_PASSED.get(_part))

# What programs call. Arguments in denylists come from flags, never from gin.
_PER_LAUNCH = ("experiment", "model_dir", "strategy", "jit_compile")
Experiment = gin.external_configurable(experiment.Experiment, module="vit_scaling")
RunOptions = gin.external_configurable(
    options.RunOptions,
    module="vit_scaling",
    denylist=[
        "jit_compile",
        "evaluate",
        "branch_at",
        "profile_steps",
        "peak_flops_per_core",
    ],
)
evaluate = gin.external_configurable(
    runs.evaluate, module="vit_scaling", denylist=[*_PER_LAUNCH, "step", "report"]
)
evaluate_continuously = gin.external_configurable(
    runs.evaluate_continuously, module="vit_scaling", denylist=[*_PER_LAUNCH]
)
sweep = gin.external_configurable(Sweep, name="sweep", module="vit_scaling")
ROOTS: dict[str, Callable[..., Any]] = {
    "Experiment": experiment.Experiment,
    "RunOptions": options.RunOptions,
    "evaluate": runs.evaluate,
    "evaluate_continuously": runs.evaluate_continuously,
    "sweep": Sweep,
}
# Earlier names of bindings, and what to bind today: using one raises an error.
RENAMED_BINDINGS: dict[str, str] = {
    **{
        f"train.{field.name}": f"RunOptions.{field.name}"
        for field in dataclasses.fields(options.RunOptions)
    },
    **{
        f"{rule}.{name}": f"Optimizer.{name}"
        for rule in ("Adafactor", "Adam", "Momentum")
        for name in inspect.signature(optimizer.Optimizer).parameters
    },
    **{
        f"{rule}.{old}": new
        for rule in ("Adafactor", "Adam", "Momentum")
        for old, new in (("average_warmup_steps", "AverageDecay.warmup_steps"),)
    },
    "Adafactor.least_factored": "Adafactor.min_size_to_factor",
    "Adafactor.factored": "Adafactor.min_size_to_factor",
    "Experiment.accumulate": "Experiment.micro_batches",
    "accumulate_gradients.micro_batches": "Experiment.micro_batches",
    "FewShot.linear_probe": "FewShot.probes",
    "FewShot.neighbours": "FewShot.probes",
}


def parse(
    files: Sequence[str],
    bindings: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Parse gin files and bindings of a run (see `gin_files.parse`)."""
    gin_files.parse(
        files,
        bindings,
        defaults=defaults,
        known={**{part.__name__: part for part in PARTS}, **ROOTS},
        roots=[f"vit_scaling.{name}" for name in ROOTS],
        renamed=RENAMED_BINDINGS,
    )


def model_arguments() -> dict[str, Any]:
    """Return all arguments of the configured run's `vit`, defaults included.

    Raises:
        ValueError: The run's model is not a `vit`.
    """
    bound = gin.get_bindings("vit_scaling.vit")
    if "shape" not in bound:
        raise ValueError(
            "The run's model must be `vit`; no `vit.shape` is bound. Include "
            "'models/vit.gin'."
        )
    parameters = inspect.signature(vit.vit).parameters.values()
    defaults = {p.name: p.default for p in parameters}
    return {**defaults, **bound, "shape": shapes.as_shape(bound["shape"])}


def effective_settings() -> dict[str, tuple[str, str]]:
    """Return every setting that training reads (see `gin_files.effective_settings`)."""
    return gin_files.effective_settings(
        {f"vit_scaling.{name}": ROOTS[name] for name in ("Experiment", "RunOptions")}
    )
