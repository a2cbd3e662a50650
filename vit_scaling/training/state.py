"""Where a run stands: all that it resumes from, saved, restored and rolled back."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable, Mapping
from typing import Any

from absl import logging

from vit_scaling.training.checkpoints import GLOBAL_STEP, Checkpoints
from vit_scaling.training.divergence import DivergedError, LossWatch
from vit_scaling.training.progress import Progress


class RunState:
    """Everything that a run resumes from, and the rules for saving it."""

    def __init__(
        self,
        variables: Mapping[str, Any],
        checkpoints: Checkpoints,
        progress: Progress,
        watch: LossWatch,
        *,
        seed: int,
        agree: Callable[[int], int] = int,
        pipelines: int = 1,
    ) -> None:
        """Take the parts.

        Args:
            variables: From `variables_of` a model, its built optimizer and a step.
            checkpoints: Where they are saved.
            progress: Images and core-seconds so far, and the batch size.
            watch: Losses and left-out batches so far.
            seed: Of the run.
            agree: The sum of a number over the run's processes.
            pipelines: Hosts that each read their part of the data
                (`strategy.input_pipelines`).
        """
        self.variables = variables
        self.checkpoints = checkpoints
        self.progress = progress
        self.watch = watch
        self.seed = seed
        self.agree = agree
        self.pipelines = pipelines

    @property
    def step(self) -> int:
        """Updates done."""
        return int(self.variables[GLOBAL_STEP].numpy())

    @property
    def batch(self) -> int:
        """Number of the next batch: the step, and what was left out before it."""
        return self.step + self.watch.skipped_batches

    def restore(self, *, scheduled: bool = False) -> bool:
        """Go back to the newest whole checkpoint; return whether there was one.

        Args:
            scheduled: Whether one that was saved in between, as at SIGTERM, is passed
                over for the newest that an undisturbed run would have.

        Raises:
            ValueError: It is of another model, optimizer, seed or batch size.
        """
        saved = self.checkpoints
        state = None
        if saved.writes:
            state = saved.restore(self.variables, scheduled=scheduled)
        # The others may look at the folder a moment later: the chief's choice holds.
        step = self.agree(0 if state is None else state["step"] + 1) - 1
        if step < 0:
            return False
        if state is None:
            state = saved.restore(self.variables, step=step) or {}
        if state["seed"] != self.seed:
            raise ValueError(
                f"`seed` must be the one that the run began with, {state['seed']}, or "
                f"its batches would change; received {self.seed}. Pass "
                f"--seed={state['seed']}, or take a new --model_dir."
            )
        self._check_batches(state)
        self.progress.restore(state)
        self.watch.restore(state)
        saved.discard_after(self.step)
        return True

    def _check_batches(self, state: Mapping[str, Any]) -> None:
        """Refuse another batch size, and warn of other hosts than a checkpoint knows.

        Batch n is a function of the seed, the batch size, the number of hosts and n;
        the step counts the schedule in batches. Older checkpoints keep none of these.
        """
        size = self.progress.batch_size
        before = state.get("batch_size", size)
        if before != size:
            raise ValueError(
                f"`batch_size` must be the one that the run began with, {before}, or "
                "its schedule and batches would change in the middle; received "
                f"{size}. Bind BATCH_SIZE = {before} (with more replicas each takes "
                "fewer images), or take a new --model_dir."
            )
        hosts = state.get("input_pipelines", self.pipelines)
        if hosts != self.pipelines:
            logging.warning(
                "The run was saved by %d host(s) and goes on with %d: which images "
                "make a batch depends on their number, so some are seen once more and "
                "some once less in this epoch, and the weights are not those of an "
                "undisturbed run.",
                hosts,
                self.pipelines,
            )

    def roll_back(self, error: DivergedError) -> dict[str, Any]:
        """Go back to the newest scheduled checkpoint, on with batches not yet seen.

        Returns:
            What happened, for the log.

        Raises:
            DivergedError: The guard does not roll back, or has done so too often.
        """
        reached, batch, before = self.step, self.batch, self.watch.roll_backs
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
            "from_step": reached,
            "left_out_batches": left_out,
            "roll_backs": before + 1,
            "reason": str(error).partition(" Nothing of them")[0],
        }

    def save(self, *, wait: bool = False) -> None:
        """Save the run as it is now; unless waited for, perhaps in the background."""
        state = {
            **self.progress.state(),
            **self.watch.state(),
            "seed": self.seed,
            "batch_size": self.progress.batch_size,
            "input_pipelines": self.pipelines,
        }
        self.checkpoints.save(self.step, self.variables, state)
        if wait:
            self.checkpoints.wait()
