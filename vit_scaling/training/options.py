"""Options of a run: what happens at which steps, what is kept and evaluated."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

from absl import logging

from vit_scaling.argument_types import (
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    check_fields,
)
from vit_scaling.training.divergence import LossGuard
from vit_scaling.training.settings import ALLOWABLE


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How an experiment is run: seed, loops, checkpoints, evaluations.

    Attributes:
        seed: Seed of initial weights, batches, augmentation and dropout.
        steps_per_loop: Steps in one loop on the device, after which a line is logged;
            take more on TPU.
        checkpoint_every_steps: Steps between checkpoints, 1000 in the authors' code.
            None: only at the start and at the end.
        eval_every_steps: Steps between evaluations. None: only at the end.
        keep_last: Number of the newest checkpoints that are kept. None: all.
        keep_every_steps: Checkpoints at multiples of this are kept as well (10,000 in
            the authors' code).
        keep_steps: Further steps that are saved and kept, such as branches need.
        best_metric: "SET/METRIC", such as "eval/top1": the best checkpoint by this
            metric is kept too.
        asynchronous_checkpoints: Whether a thread writes checkpoints.
        evaluate_averages: Whether averaged weights are evaluated instead of the last.
            None: as the run did before, or as its parent if it is a branch; a new run
            evaluates the last ones.
        loss_guard: When a loss counts as diverged, and what happens then.
        allow_changes: Names of `settings.ALLOWABLE`, such as "train_data": settings
            that may differ from those of the run that is resumed, although it will then
            not continue with the batches that it would have seen.
        evaluate: Whether the evaluation sets are evaluated during and after training.
        jit_compile: Whether XLA compiles the step. None: on a single GPU only.
        branch_at: Steps at which cooldowns will be branched off: saved and kept.
        profile_steps: Two steps: those after the first, up to the second, are profiled.
        peak_flops_per_core: Operations per second that a core can do. None: the
            fraction of the peak is not reported.

    Raises:
        ValueError: A value is out of range.
    """

    seed: NonNegativeInt = 0
    steps_per_loop: PositiveInt = 100
    checkpoint_every_steps: PositiveInt | None = 1000
    eval_every_steps: PositiveInt | None = None
    keep_last: PositiveInt | None = 3
    keep_every_steps: PositiveInt | None = 10_000
    keep_steps: Sequence[NonNegativeInt] = ()
    best_metric: str | None = None
    asynchronous_checkpoints: bool = True
    evaluate_averages: bool | None = None
    loss_guard: LossGuard = dataclasses.field(default_factory=LossGuard)
    allow_changes: Sequence[Literal[ALLOWABLE]] = ()  # type: ignore[valid-type]
    # The command line sets the following ones.
    evaluate: bool = True
    jit_compile: bool | None = None
    branch_at: Sequence[NonNegativeInt] = ()
    profile_steps: Sequence[NonNegativeInt] = ()
    peak_flops_per_core: PositiveFloat | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        steps = self.profile_steps
        if steps and not (len(steps) == 2 and steps[0] < steps[1]):
            raise ValueError(
                "`profile_steps` must be two rising steps, such as 20,30; received "
                f"{','.join(map(str, steps))}."
            )

    def check_total_steps(self, total_steps: int) -> None:
        """Check the options against the length of the run.

        Also warn if fewer checkpoints will be kept than `keep_every_steps` asks for.

        Raises:
            ValueError: A step of `branch_at` or `profile_steps` is after the run's end.
        """
        late = [step for step in self.branch_at if step > total_steps]
        if late:
            raise ValueError(
                f"`branch_at` must be steps of the run, which ends at {total_steps}; "
                f"received {', '.join(map(str, late))}. Branch earlier, or bind a "
                "larger TOTAL_STEPS."
            )
        if self.profile_steps and self.profile_steps[0] >= total_steps:
            raise ValueError(
                f"`profile_steps` must begin before the run's end, step {total_steps}; "
                f"received {','.join(map(str, self.profile_steps))}."
            )
        kept, saved = self.keep_every_steps, self.checkpoint_every_steps
        if kept and saved and kept <= total_steps and kept % saved:
            logging.warning(
                "Of the checkpoints at multiples of `keep_every_steps`, %d, only those "
                "at multiples of %d stay: the run saves every "
                "`checkpoint_every_steps`, %d. Make one a multiple of the other.",
                kept,
                math.lcm(kept, saved),
                saved,
            )

    @property
    def all_keep_steps(self) -> list[int]:
        """Single steps whose checkpoints are saved and kept."""
        return [*self.keep_steps, *self.branch_at]

    def loop_length(self, step: int, total_steps: int) -> int:
        """Return the number of steps in the loop that begins at `step`.

        Loops end at every multiple of each interval, so that checkpoints and
        evaluations are at the same steps however often the run is interrupted.
        """
        intervals = (
            self.steps_per_loop,
            self.checkpoint_every_steps,
            self.eval_every_steps,
        )
        ends = [step - step % every + every for every in intervals if every]
        single_steps = (*self.all_keep_steps, *self.profile_steps)
        ends += [single for single in single_steps if single > step]
        return max(1, min(*ends, total_steps) - step)

    def is_checkpoint_due(self, step: int, total_steps: int) -> bool:
        """Whether a run that is not interrupted saves a checkpoint at `step`."""
        every = self.checkpoint_every_steps
        return step in (0, total_steps, *self.all_keep_steps) or (
            every is not None and step % every == 0
        )

    def is_evaluation_due(self, step: int, total_steps: int) -> bool:
        """Whether the run is evaluated at `step`."""
        every = self.eval_every_steps
        is_multiple = every is not None and step > 0 and step % every == 0
        return self.evaluate and (step == total_steps or is_multiple)
