"""State of a run: everything it resumes from, saved, restored and rolled back."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

from absl import logging

from vit_scaling.training.checkpoint_variables import GLOBAL_STEP
from vit_scaling.training.checkpoints import Checkpoints
from vit_scaling.training.divergence import DivergedError, LossWatch
from vit_scaling.training.progress import Progress


@dataclasses.dataclass(eq=False)
class RunState:
    """Everything that a run resumes from, and the rules for restoring it.

    Attributes:
        variables: From `variables_of` a model, its built optimizer and a step.
        checkpoints: Where they are saved.
        progress: Images and core-seconds so far, and the batch size.
        watch: Losses and left-out batches so far.
        seed: Seed of the run.
        sum_over_processes: From `strategy.sum_over_processes`.
        pipelines: Number of hosts that each read their part of the data
            (`strategy.count_input_pipelines`).
        allow_changes: "seed" and "batch_size" where they may differ from the run's
            earlier ones.
        order_version: Version of the order of the batches. A checkpoint's own replaces
            it; one without a version has 1.
    """

    variables: Mapping[str, Any]
    checkpoints: Checkpoints
    progress: Progress
    watch: LossWatch
    seed: int
    sum_over_processes: Callable[[int], int] = int
    pipelines: int = 1
    allow_changes: Collection[str] = ()
    order_version: int = 1

    @property
    def step(self) -> int:
        """Number of updates done."""
        return int(self.variables[GLOBAL_STEP].numpy())

    @property
    def batch(self) -> int:
        """Number of the next batch: the step plus the batches left out so far."""
        return self.step + self.watch.skipped_batches

    def restore(self, *, scheduled: bool = False) -> bool:
        """Restore the newest complete checkpoint; return whether there was one.

        Args:
            scheduled: Whether scheduled checkpoints are preferred to newer ones saved
                in between, as at SIGTERM, which an uninterrupted run would not have.

        Raises:
            ValueError: It is of another model, optimizer, seed or batch size, or after
                the schedule's end.
        """
        checkpoints = self.checkpoints
        state = None
        if checkpoints.writes:
            state = checkpoints.restore(self.variables, scheduled=scheduled)
        # Other workers may read the folder a moment later: the chief's choice holds.
        step = self.sum_over_processes(0 if state is None else state["step"] + 1) - 1
        if step < 0:
            return False
        if state is None:
            state = checkpoints.restore(self.variables, step=step) or {}
        self._check_step()
        if state["seed"] != self.seed and "seed" not in self.allow_changes:
            raise ValueError(
                f"`seed` must be the one that the run began with, {state['seed']}, or "
                f"its batches would change; received {self.seed}. Pass "
                f"--seed={state['seed']}, or take a new --model_dir."
            )
        self._check_batches(state)
        self.progress.restore(state)
        self.watch.restore(state)
        checkpoints.discard_after(self.step)
        return True

    def _check_step(self) -> None:
        """Raise if the run, as configured now, ended before the checkpoint."""
        total = self.progress.total_steps
        if self.step > total:
            raise ValueError(
                f"`total_steps` is {total}, below step {self.step}, which the run has "
                f"reached. Bind TOTAL_STEPS = {self.step} or more, or branch a shorter "
                "run off an earlier checkpoint (--mode=branch_cooldown)."
            )

    def _check_batches(self, state: Mapping[str, Any]) -> None:
        """Raise for another batch size; warn of another order or number of hosts.

        Batch n is a function of the seed, the batch size, the number of hosts and n,
        and the schedule counts batches. Older checkpoints hold none of these numbers.
        """
        size = self.progress.batch_size
        before = state.get("batch_size", size)
        if before != size and "batch_size" not in self.allow_changes:
            raise ValueError(
                f"`batch_size` must be the one that the run began with, {before}, or "
                "its schedule and batches would change in the middle; received "
                f"{size}. Bind BATCH_SIZE = {before} (with more replicas each takes "
                "fewer images), or take a new --model_dir."
            )
        order_version = state.get("order_version", 1)
        if order_version != self.order_version:
            logging.warning(
                "The run continues with the order of batches that it began with, "
                "version %d; new runs have version %d.",
                order_version,
                self.order_version,
            )
            self.order_version = order_version
        hosts = state.get("input_pipelines", self.pipelines)
        if hosts != self.pipelines:
            logging.warning(
                "The run was saved by %d host(s) and continues with %d: which images "
                "make a batch depends on their number, so some are seen once more and "
                "some once less in this epoch, and the weights are not those of an "
                "uninterrupted run.",
                hosts,
                self.pipelines,
            )

    def roll_back(self, error: DivergedError) -> dict[str, Any]:
        """Restore the newest scheduled checkpoint and skip the batches seen since.

        Returns:
            {"from_step", "left_out_batches", "roll_backs", "reason"}, for the log.

        Raises:
            DivergedError: The guard does not roll back, or has done so too often.
        """
        from_step, batch, before = self.step, self.batch, self.watch.roll_backs
        guard = self.watch.guard
        if not guard.roll_back:
            raise error
        if before >= guard.max_roll_backs:
            raise DivergedError(
                f"{error} The run was rolled back {before} times already, as often as "
                "`max_roll_backs` allows."
            ) from error
        self.checkpoints.wait()
        self.restore(scheduled=True)
        left_out = batch - self.batch
        self.watch.skip(left_out, roll_backs=before + 1)
        return {
            "from_step": from_step,
            "left_out_batches": left_out,
            "roll_backs": before + 1,
            "reason": str(error).partition(" Nothing of them")[0],
        }

    def save(self, *, wait: bool = False) -> None:
        """Save the run as it is now.

        Args:
            wait: Whether to return only when the files are written.
        """
        state = {
            **self.progress.state(),
            **self.watch.state(),
            "seed": self.seed,
            "batch_size": self.progress.batch_size,
            "input_pipelines": self.pipelines,
            "order_version": self.order_version,
        }
        self.checkpoints.save(self.step, self.variables, state)
        if wait:
            self.checkpoints.wait()

    def wait_for_all_processes(self) -> None:
        """Wait until every process has come here.

        A worker that exits before the chief has saved would abort the chief as well.
        """
        self.sum_over_processes(0)
