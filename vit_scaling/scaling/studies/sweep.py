"""A grid of training runs: models by data sizes by durations, with its cost (§2.1)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from annotated_types import Ge

from vit_scaling.argument_types import (
    Decay,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    check_fields,
)
from vit_scaling.modeling.shapes import ViTShape, as_shape
from vit_scaling.scaling.laws.row_reader import parse_quantity
from vit_scaling.scaling.planning.flops import flops
from vit_scaling.scaling.studies.jobs import Job, group_by_process

# Each must name at least one, and none twice.
_LISTS = ("gin_files", "models", "durations", "data_sizes", "seeds", "variants")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """Every model and variant on every data size for every duration.

    The longest duration is trained in full; the shorter ones are cooldowns branched off
    it, which the reciprocal-square-root schedule allows (§3.5). Data sizes are nested
    subsets of one set. Gin files bind the attributes as `sweep.models` etc.

    Attributes:
        name: Name of the study; a folder name.
        gin_files: Experiment that all runs share, by path or name.
        models: Name to shape: a row of Table 2 such as "Ti/16", or the five numbers
            (patch, width, depth, mlp_width, heads).
        durations: In steps, cooldown included.
        batch_size: Images per step, over all replicas.
        classes: Outputs of the classifier.
        data_sizes: Numbers of images, such as 30000 or "30K"; None: all.
        image_size: Side of the images in pixels, as in the experiment; or a side for
            each model's name, to which IMAGE_SIZE is then bound.
        head: The pooling head.
        cooldown_share: Cooldown of each duration as a fraction of it. The paper's
            cooldowns are 0.5 of 20 K steps down to 0.01 of 4 M. None trains every
            duration in full, by a schedule without a cooldown.
        seeds: Seeds of the repetitions.
        variants: Name to additional gin bindings, and flags of the training binary such
            as "--gin_file=optimizers/adam.gin".
        gin_params: More bindings for all runs.
        flags: More flags of the training binary, such as "--nojit_compile".
        metrics: Name to "SET/FIELD" of metrics.jsonl; fields are accuracies. Default:
            top-1 on "eval".
        flops_per_second: Measured on the available machine, to estimate hours.
        startup_seconds: Of each process, for imports, data and compilation, to
            estimate hours; 30 to 60 were measured on two CPU cores.
        shape_scope: Gin scope of the ViTShape that five numbers are bound to. If the
            experiment binds a ViTShape itself, its scope.

    Raises:
        ValueError: A list is empty or has duplicates, a duration is shorter than its
            cooldown, or a shape cannot be read.
    """

    name: str
    gin_files: Sequence[str]
    models: Mapping[str, Any]
    durations: Sequence[Annotated[int, Ge(2)]]
    batch_size: PositiveInt
    classes: PositiveInt
    data_sizes: Sequence[Any] = (None,)
    image_size: PositiveInt | Mapping[str, PositiveInt] = 224
    head: str = "map"
    cooldown_share: Decay | None = 0.2
    seeds: Sequence[NonNegativeInt] = (0,)
    variants: Mapping[str, Sequence[str]] = dataclasses.field(
        default_factory=lambda: {"": ()}
    )
    gin_params: Sequence[str] = ()
    flags: Sequence[str] = ()
    metrics: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {"upstream": "eval/top1"}
    )
    flops_per_second: PositiveFloat = 3e10
    startup_seconds: NonNegativeFloat = 45.0
    shape_scope: str = "study"

    def __post_init__(self) -> None:
        check_fields(self)
        for field in _LISTS:
            values = list(getattr(self, field))
            if not values or len(set(values)) != len(values):
                raise ValueError(
                    f"`{field}` must name at least one, and none twice; received "
                    f"{values!r}."
                )
        if isinstance(self.image_size, Mapping) and set(self.image_size) != set(
            self.models
        ):
            raise ValueError(
                "`image_size` must be a number of pixels, or name each of the models "
                f"{sorted(self.models)}; received {self.image_size!r}."
            )
        _ = self.jobs  # Raises if a shape or a data size cannot be read.

    @functools.cached_property
    def jobs(self) -> tuple[Job, ...]:
        """All runs, trunks before their branches, models in order of their cost."""
        sizes = [None if s is None else parse_quantity(str(s)) for s in self.data_sizes]
        ordered = sorted(self.models, key=self._flops_per_step)
        combinations = itertools.product(ordered, self.variants, sizes, self.seeds)
        return tuple(
            job for combination in combinations for job in self._jobs_of(*combination)
        )

    def compute_cost(self, jobs: Sequence[Job]) -> dict[str, Any]:
        """Return the number of runs and processes, operations and estimated hours."""
        total = sum(job.flops for job in jobs)
        processes = len(group_by_process(jobs))
        seconds = total / self.flops_per_second + processes * self.startup_seconds
        return {
            "runs": len(jobs),
            "processes": processes,
            "training_flops": total,
            "estimated_hours": seconds / 3600,
        }

    def check_branches(self, warmup_steps: int) -> None:
        """Check that no branch starts in the warm-up, which training rejects.

        Raises:
            ValueError: A branch does.
        """
        starts = {job.steps: job.steps - job.trained_steps for job in self.jobs
                  if job.is_branch}  # fmt: skip
        early = {n: start for n, start in starts.items() if start < warmup_steps}
        if early:
            shortest = math.ceil(warmup_steps / (1 - (self.cooldown_share or 0.0)))
            raise ValueError(
                f"Durations {', '.join(map(str, early))} cannot be branched: their "
                f"cooldowns start at steps {', '.join(map(str, early.values()))}, in "
                f"the warm-up of {warmup_steps} steps. Use durations of at least "
                f"{shortest} steps, a shorter WARMUP_STEPS, or sweep.cooldown_share = "
                "None."
            )

    def _flops_per_step(self, model: str) -> float:
        side = self.image_size
        side = side[model] if isinstance(side, Mapping) else side
        shape = parse_shape(self.models[model])
        cost = flops(shape, head=self.head, image_size=side, classes=self.classes)
        return self.batch_size * cost.training

    def _jobs_of(
        self, model: str, variant: str, size: float | None, seed: int
    ) -> Iterator[Job]:
        """Yield the runs of all durations."""
        data = "all" if size is None else f"{int(size)}"
        parts = [model.replace("/", "_"), variant, f"data_{data}", f"seed_{seed}"]
        folder = "/".join(part for part in parts if part)
        shared = self._arguments(model, variant, size, seed)
        cost = self._flops_per_step(model)
        parts_of = (
            self._full_runs if self.cooldown_share is None else self._trunk_and_branches
        )
        for steps, trained, subfolder, arguments in parts_of():
            yield Job(
                model=f"{model} {variant}".rstrip(),
                shape=parse_shape(self.models[model]),
                data_size=size,
                seed=seed,
                steps=steps,
                trained_steps=trained,
                folder=folder + subfolder,
                arguments=(*shared, *arguments),
                flops=trained * cost,
            )

    def _arguments(
        self, model: str, variant: str, size: float | None, seed: int
    ) -> tuple[str, ...]:
        """Return the training binary's arguments that all durations share."""
        extra = self.variants[variant]
        late = _shape_bindings(self.models[model], self.shape_scope)
        if isinstance(self.image_size, Mapping):
            late.append(f"IMAGE_SIZE = {self.image_size[model]}")
        if size:
            late.append(f"TrainData.num_images = {int(size)}")
        late.append(f"BATCH_SIZE = {self.batch_size}")
        return (
            # The variant's files come later: a later file wins.
            *(f"--gin_file={file}" for file in self.gin_files),
            *(text if text.startswith("--") else _binding(text) for text in extra),
            *map(_binding, self.gin_params),
            *self.flags,
            *map(_binding, late),
            f"--seed={seed}",
        )

    def _full_runs(self) -> Iterator[tuple[int, int, str, tuple[str, ...]]]:
        """Yield steps, trained steps, subfolder and arguments of separate runs."""
        for steps in sorted(self.durations):
            yield steps, steps, f"/steps_{steps:09d}", _length_arguments(steps)

    def _trunk_and_branches(self) -> Iterator[tuple[int, int, str, tuple[str, ...]]]:
        """Yield the same of the longest duration, then of the branches off it."""
        *shorter, longest = sorted(self.durations)
        starts = {steps: steps - self._cooldown_steps(steps) for steps in shorter}
        cooldown = _binding(f"COOLDOWN_STEPS = {self._cooldown_steps(longest)}")
        shared = (*_length_arguments(longest), cooldown)
        branch_at = ",".join(map(str, starts.values()))
        kept = (f"--branch_at={branch_at}",) if starts else ()
        yield longest, longest, "", (*shared, "--mode=train_and_eval", *kept)
        for steps, start in starts.items():
            subfolder = f"/branch_{steps:09d}_from_{start:09d}"
            arguments = (*shared, "--mode=branch_cooldown")
            yield steps, steps - start, subfolder, arguments

    def _cooldown_steps(self, steps: int) -> int:
        return max(round(steps * (self.cooldown_share or 0.0)), 1)


def parse_shape(shape: Any) -> ViTShape:
    """Return a shape from a name, five numbers, or a ViTShape.

    Raises:
        ValueError: The value is none of these.
    """
    if isinstance(shape, str | ViTShape):
        return as_shape(shape)
    try:
        return ViTShape(*shape)
    except TypeError:
        raise ValueError(
            "A model must be a name such as 'Ti/16', or (patch, width, depth, "
            f"mlp_width, heads); received {shape!r}."
        ) from None


def _binding(text: str) -> str:
    return f"--gin_param={text}"


def _length_arguments(steps: int) -> tuple[str, ...]:
    return _binding(f"TOTAL_STEPS = {steps}"), _binding(f"EVAL_EVERY = {steps}")


def _shape_bindings(shape: Any, scope: str) -> list[str]:
    if isinstance(shape, str):
        return [f"SHAPE = '{shape}'"]
    fields = dataclasses.asdict(parse_shape(shape))
    return [
        f"SHAPE = @{scope}/ViTShape()",
        *(f"{scope}/ViTShape.{name} = {value}" for name, value in fields.items()),
    ]
