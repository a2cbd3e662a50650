"""A study as a grid of runs: models by data sizes by durations, costed first (§2.1)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import itertools
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vit_scaling.modeling.shapes import ViTShape, as_shape
from vit_scaling.scaling.laws.run_tables import quantity
from vit_scaling.scaling.planning.flops import flops

TRAIN = ("-m", "vit_scaling.train")
# Steps in all, steps of its own, the end of its folder's name, its arguments.
_Part = tuple[int, int, str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of the training binary: a trunk, or a cooldown branched off it.

    Attributes:
        model: The model's name.
        shape: Its dimensions.
        data_size: Images of the subset; None takes all.
        seed: Of the run.
        steps: Duration, cooldown included.
        own_steps: Steps that this run adds: all of a trunk, the end of a branch.
        folder: Where the finished run lies, below the sweep's work folder.
        arguments: Of the training binary, but for where a branch begins and ends.
        flops: Training operations of `own_steps`.
    """

    model: str
    shape: ViTShape
    data_size: float | None
    seed: int
    steps: int
    own_steps: int
    folder: str
    arguments: tuple[str, ...]
    flops: float

    @property
    def is_branch(self) -> bool:
        """Whether it begins on a trunk."""
        return self.own_steps < self.steps

    @property
    def trunk(self) -> str:
        """The folder of the run itself or of the trunk that it begins on."""
        return self.folder.partition("/branch_")[0]


def command(jobs: Sequence[Job], work_dir: str) -> list[str]:
    """Return the command line of a job, or of several branches of one trunk.

    Branches share a process, since starting one takes longer than a short cooldown.
    """
    first = jobs[0]
    words = [sys.executable, *TRAIN, *first.arguments]
    if first.is_branch:
        starts = ",".join(str(job.steps - job.own_steps) for job in jobs)
        lengths = ",".join(str(job.own_steps) for job in jobs)
        words += [f"--branch_at={starts}", f"--branch_cooldown_steps={lengths}"]
    return [*words, f"--model_dir={work_dir}/{first.trunk}"]


def command_text(jobs: Sequence[Job], work_dir: str) -> str:
    """Return the command line as a shell takes it."""
    words = command(jobs, work_dir)
    return " ".join(["python", *(shlex.quote(word) for word in words[1:])])


def together(jobs: Iterable[Job]) -> list[list[Job]]:
    """Return the jobs in their order, neighbouring branches of one trunk together."""
    groups = itertools.groupby(jobs, key=lambda job: (job.trunk, job.is_branch))
    made = (list(group) for _, group in groups)
    return [
        part
        for group in made
        for part in ([group] if group[0].is_branch else [[job] for job in group])
    ]


@dataclasses.dataclass(frozen=True)
class Study:
    """What `sweep` returns: the grid, and how to run and read it.

    Attributes:
        name: Of the study.
        jobs: Trunks before their branches, cheapest model first.
        batch_size: Images per step, over all replicas.
        metrics: Name to "SET/FIELD" of metrics.jsonl; fields are accuracies.
        flops_per_second: For the estimate of hours.
    """

    name: str
    jobs: tuple[Job, ...]
    batch_size: int
    metrics: Mapping[str, str]
    flops_per_second: float

    def cost(self, jobs: Sequence[Job] | None = None) -> dict[str, Any]:
        """Return runs, operations and estimated hours of all jobs, or of some."""
        chosen = self.jobs if jobs is None else jobs
        total = sum(job.flops for job in chosen)
        return {
            "runs": len(chosen),
            "training_flops": total,
            "estimated_hours": total / self.flops_per_second / 3600,
        }


def sweep(
    *,
    name: str,
    gin_files: Sequence[str],
    models: Mapping[str, Any],
    durations: Sequence[int],
    batch_size: int,
    classes: int,
    data_sizes: Sequence[Any] = (None,),
    image_size: int | Mapping[str, int] = 224,
    head: str = "map",
    cooldown_share: float | None = 0.2,
    seeds: Sequence[int] = (0,),
    variants: Mapping[str, Sequence[str]] | None = None,
    gin_params: Sequence[str] = (),
    flags: Sequence[str] = (),
    metrics: Mapping[str, str] | None = None,
    flops_per_second: float = 3e10,
    shape_scope: str = "study",
) -> Study:
    """Describe a study: every model and variant on every data size for every duration.

    The longest duration is trained in full; the shorter ones are cooldowns branched off
    it, which the reciprocal-square-root schedule allows (§3.5). Data sizes are nested
    subsets of one set.

    Args:
        name: Of the study; a folder name.
        gin_files: Experiment that all runs share, by path or name.
        models: Name to shape: a row of Table 2 such as "Ti/16", or the five numbers
            (patch, width, depth, mlp_width, heads).
        durations: In steps, cooldown included.
        batch_size: Images per step, over all replicas.
        classes: Outputs of the classifier.
        data_sizes: Numbers of images, such as 30000 or "30K"; None is all.
        image_size: Side of the images, in pixels, as the experiment has it; or a side
            for each model's name, which IMAGE_SIZE is then bound to.
        head: The pooling head.
        cooldown_share: Cooldown of each duration, as a share of it. The paper's
            cooldowns are 0.5 of 20 K steps down to 0.01 of 4 M. None trains every
            duration in full, by a schedule that has no cooldown to branch off.
        seeds: Repetitions.
        variants: Name to what its runs get beside the rest: gin bindings, and flags of
            the training binary such as "--gin_file=optimizers/adam.gin".
        gin_params: More bindings for all runs.
        flags: More flags of the training binary, such as "--nojit_compile".
        metrics: Name to "SET/FIELD" of metrics.jsonl; default: top-1 on "eval".
        flops_per_second: Measured on the machine at hand, for the estimate of hours.
        shape_scope: Gin scope of the ViTShape that five numbers are bound to; name the
            one that the experiment uses, if it binds a ViTShape itself.

    Raises:
        ValueError: A list is empty or has duplicates, a duration is shorter than its
            cooldown, or a shape cannot be read.
    """
    sizes = [None if size is None else quantity(str(size)) for size in data_sizes]
    lists: dict[str, Sequence[Any]] = {
        "gin_files": gin_files,
        "models": list(models),
        "durations": durations,
        "data_sizes": sizes,
        "seeds": seeds,
        "variants": list({"": ()} if variants is None else variants),
    }
    for argument, values in lists.items():
        if not values or len(set(values)) != len(values):
            raise ValueError(
                f"`{argument}` must name at least one, and none twice; received "
                f"{list(values)!r}."
            )
    if cooldown_share is not None and not 0 < cooldown_share < 1:
        raise ValueError(
            "`cooldown_share` must be between 0 and 1, or None for no cooldowns; "
            f"received {cooldown_share!r}."
        )
    if min(durations) < 2 or not flops_per_second > 0:
        raise ValueError(
            "`durations` must be at least 2 steps and `flops_per_second` above 0; "
            f"received {list(durations)!r} and {flops_per_second!r}."
        )
    sides = image_size
    if not isinstance(sides, Mapping):
        sides = dict.fromkeys(models, sides)
    if set(sides) != set(models):
        raise ValueError(
            "`image_size` must be a number of pixels, or name each of the models "
            f"{sorted(models)}; received {image_size!r}."
        )
    grid = _Grid(
        files=tuple(f"--gin_file={file}" for file in gin_files),
        shared=(*(f"--gin_param={text}" for text in gin_params), *flags),
        durations=tuple(sorted(durations)),
        batch_size=batch_size,
        cooldown_share=cooldown_share,
        shape_scope=shape_scope,
        sides=sides if isinstance(image_size, Mapping) else {},
        cost_of_a_step={
            model: batch_size
            * flops(
                shape_of(shape), head=head, image_size=sides[model], classes=classes
            ).training
            for model, shape in models.items()
        },
    )
    ordered = sorted(models, key=lambda model: grid.cost_of_a_step[model])
    jobs = [
        job
        for model in ordered
        for variant, extra in (variants or {"": ()}).items()
        for size in sizes
        for seed in seeds
        for job in grid.jobs(model, models[model], (variant, extra), size, seed)
    ]
    return Study(
        name,
        tuple(jobs),
        batch_size,
        dict(metrics or {"upstream": "eval/top1"}),
        flops_per_second,
    )


def shape_of(shape: Any) -> ViTShape:
    """Return a shape from a name, five numbers, or a ViTShape.

    Raises:
        ValueError: It is none of them.
    """
    if isinstance(shape, str | ViTShape):
        return as_shape(shape)
    try:
        patch, width, depth, mlp_width, heads = shape
    except (TypeError, ValueError):
        raise ValueError(
            "A model must be a name such as 'Ti/16', or (patch, width, depth, "
            f"mlp_width, heads); received {shape!r}."
        ) from None
    return ViTShape(patch, width, depth, mlp_width, heads)


@dataclasses.dataclass(frozen=True)
class _Grid:
    files: tuple[str, ...]
    shared: tuple[str, ...]
    durations: tuple[int, ...]
    batch_size: int
    cooldown_share: float | None
    shape_scope: str
    sides: Mapping[str, int]
    cost_of_a_step: Mapping[str, float]

    def jobs(
        self,
        model: str,
        shape: Any,
        variant: tuple[str, Sequence[str]],
        size: float | None,
        seed: int,
    ) -> Iterator[Job]:
        """Yield the runs of a model, variant, data size and seed, all durations."""
        data = "all" if size is None else f"{int(size)}"
        name, extra = variant
        parts = [model.replace("/", "_"), name, f"data_{data}", f"seed_{seed}"]
        folder = "/".join(part for part in parts if part)
        bindings = (
            *self.files,  # Before the variant's: a later file wins.
            *(
                text if text.startswith("--") else f"--gin_param={text}"
                for text in extra
            ),
            *self.shared,
            *(
                f"--gin_param={text}"
                for text in _shape_bindings(shape, self.shape_scope)
            ),
            *([f"--gin_param=IMAGE_SIZE = {self.sides[model]}"] if self.sides else []),
            *([f"--gin_param=TrainData.num_images = {int(size)}"] if size else []),
            f"--gin_param=BATCH_SIZE = {self.batch_size}",
            f"--seed={seed}",
        )
        made = functools.partial(
            Job, f"{model} {name}".rstrip(), shape_of(shape), size, seed
        )
        parts_of = self._apart if self.cooldown_share is None else self._branched
        for steps, own, end, arguments in parts_of():
            cost = own * self.cost_of_a_step[model]
            yield made(steps, own, folder + end, (*bindings, *arguments), cost)

    def _apart(self) -> Iterator[_Part]:
        """Yield a run of its own for every duration."""
        for steps in self.durations:
            yield steps, steps, f"/steps_{steps:09d}", _length(steps)

    def _branched(self) -> Iterator[_Part]:
        """Yield the trunk, then its branches."""
        longest = self.durations[-1]
        starts = {steps: steps - self._cooldown(steps) for steps in self.durations[:-1]}
        whole = (
            *_length(longest),
            f"--gin_param=COOLDOWN_STEPS = {self._cooldown(longest)}",
        )
        branch_at = ",".join(str(start) for start in starts.values())
        kept = (f"--branch_at={branch_at}",) if starts else ()
        yield longest, longest, "", (*whole, "--mode=train_and_eval", *kept)
        for steps, start in starts.items():
            arguments = (*whole, "--mode=branch_cooldown")
            end = f"/branch_{steps:09d}_from_{start:09d}"
            yield steps, steps - start, end, arguments

    def _cooldown(self, steps: int) -> int:
        return max(round(steps * (self.cooldown_share or 0.0)), 1)


def _length(steps: int) -> tuple[str, ...]:
    return f"--gin_param=TOTAL_STEPS = {steps}", f"--gin_param=EVAL_EVERY = {steps}"


def _shape_bindings(shape: Any, scope: str) -> list[str]:
    if isinstance(shape, str):
        return [f"SHAPE = '{shape}'"]
    fields = dataclasses.asdict(shape_of(shape))
    return [
        f"SHAPE = @{scope}/ViTShape()",
        *(f"{scope}/ViTShape.{name} = {value}" for name, value in fields.items()),
    ]
