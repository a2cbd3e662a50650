"""Detect a diverged loss, not finite or exploded, and decide how the run reacts."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math
import statistics
from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge, Gt

from vit_scaling.argument_types import PositiveInt, check_fields

_MIN_LOOPS = 3  # For a median; one of fewer means little.


class DivergedError(RuntimeError):
    """The loss of a loop diverged; nothing of the loop was saved."""


class NonFiniteError(DivergedError):
    """A loss, gradient or weight of a loop was not finite."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossGuard:
    """When a loss counts as diverged, and what happens then.

    A loss, gradient or weight that is not finite always counts as diverged, with one
    exception: gradients of steps that the optimizer's `skip_nonfinite` leaves out,
    unless it leaves out all steps.

    Attributes:
        explodes_at: A loop's mean loss above this multiple of the median of earlier
            loops has exploded, such as 3.0. None: no loss is too high.
        window_loops: Number of loops in that median.
        roll_back: Whether the run goes back to the newest checkpoint and continues with
            the batches after the bad ones. Otherwise it stops.
        max_roll_backs: Number of roll-backs in a run; one more stops it.
        max_lost_loops: Number of loops in a row after which the run has diverged if
            all their steps were left out, so that the weights do not change any more.

    Raises:
        ValueError: A number is out of range.
    """

    explodes_at: Annotated[float, Gt(1)] | None = None
    window_loops: Annotated[int, Ge(_MIN_LOOPS)] = 20
    roll_back: bool = False
    max_roll_backs: PositiveInt = 3
    max_lost_loops: PositiveInt = 3

    def __post_init__(self) -> None:
        check_fields(self)


class LossWatch:
    """Checks the loss of each loop, and counts the batches that were left out.

    Checkpoints keep both, so that a run that was killed checks the same losses and
    reads the same batches as one that was not.
    """

    def __init__(self, guard: LossGuard) -> None:
        """Start with a guard's rules and no losses."""
        self.guard = guard
        self.losses: list[float] = []
        self.skipped_batches = 0
        self.roll_backs = 0
        self.lost_loops = 0

    def check(
        self,
        step: int,
        outputs: Mapping[str, float],
        *,
        steps: int = 0,
        nonfinite_steps: float = 0,
        skips_nonfinite: bool = False,
    ) -> None:
        """Check a loop's metrics and remember its loss.

        Args:
            step: Number of updates done.
            outputs: The loop's metrics: "loss", and "parameter_norm" if measured.
            steps: Number of steps in the loop; 0: unknown.
            nonfinite_steps: Number of its steps with gradients that are not finite.
            skips_nonfinite: Whether the optimizer left such steps out.

        Raises:
            NonFiniteError: Something is not finite, or no step of the last loops was.
            DivergedError: The loss exploded.
        """
        loss, norm = outputs["loss"], outputs.get("parameter_norm", 0.0)
        skipped = nonfinite_steps > 0 and skips_nonfinite
        finite = not nonfinite_steps and math.isfinite(loss) and math.isfinite(norm)
        if not finite and not skipped:
            raise NonFiniteError(
                f"{nonfinite_steps:.0f} of the steps up to {step} had gradients that "
                f"are not finite (mean loss {loss}, norm of the weights {norm}). "
                "Nothing of them was saved. "
                + self._advice(skips_nonfinite=skips_nonfinite)
            )
        self._count_lost_loop(skipped and nonfinite_steps >= steps > 0, step)
        if skipped:  # The mean over such a loop is not a loss.
            return
        has_median, limit = len(self.losses) >= _MIN_LOOPS, self.guard.explodes_at
        usual = statistics.median(self.losses) if has_median else math.inf
        if limit is not None and loss > limit * usual:
            raise DivergedError(
                f"The mean loss of the steps up to {step}, {loss:.6g}, is more than "
                f"{limit:g} times the median of the loops before, {usual:.6g}. Nothing "
                "of them was saved. " + self._advice()
            )
        self.losses = [*self.losses, float(loss)][-self.guard.window_loops :]

    def _advice(self, *, skips_nonfinite: bool = True) -> str:
        """Return what may be changed, without what is bound already."""
        advice = ["Start again from the last checkpoint with a lower learning rate"]
        if not skips_nonfinite:
            advice.append(
                "bind the optimizer's `skip_nonfinite = True` to leave such steps out"
            )
        if not self.guard.roll_back:
            advice.append(
                "bind `LossGuard.roll_back = True` to go back and leave their batches "
                "out"
            )
        return ", or ".join(advice) + "."

    def _count_lost_loop(self, is_lost: bool, step: int) -> None:
        """Count loops in a row that lost all their steps; raise if there are many."""
        self.lost_loops = self.lost_loops + 1 if is_lost else 0
        if self.lost_loops >= self.guard.max_lost_loops:
            raise NonFiniteError(
                f"No step of the last {self.lost_loops} loops, up to {step}, had "
                "finite gradients: all were left out, and the weights do not change. "
                "Nothing of them was saved since the last checkpoint. Check the data "
                "and the initial weights. " + self._advice()
            )

    def skip(self, batches: int, *, roll_backs: int) -> None:
        """Count batches that a roll-back leaves out.

        Args:
            batches: Number of further batches that are left out.
            roll_backs: Number of roll-backs so far, with this one.
        """
        self.skipped_batches += batches
        self.roll_backs = roll_backs

    def state(self) -> dict[str, Any]:
        """Return the values that a checkpoint keeps."""
        return {
            "recent_losses": list(self.losses),
            "skipped_batches": self.skipped_batches,
            "roll_backs": self.roll_backs,
            "lost_loops": self.lost_loops,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint's values, which older checkpoints do not have."""
        self.losses = [float(loss) for loss in state.get("recent_losses", ())]
        self.skipped_batches = int(state.get("skipped_batches", 0))
        self.roll_backs = int(state.get("roll_backs", 0))
        self.lost_loops = int(state.get("lost_loops", 0))
