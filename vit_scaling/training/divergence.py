"""A loss gone wrong: not finite, or far above what it was; stop, or go back."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math
import statistics
from collections.abc import Mapping
from typing import Any

_ENOUGH_LOOPS = 3  # A median of fewer says little.


class DivergedError(RuntimeError):
    """The loss of a loop has gone wrong; nothing of the loop was saved."""


class NonFiniteError(DivergedError):
    """Training met a loss or gradients that are not finite, and was bound to stop."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossGuard:
    """When a loss has gone wrong, and what is done about it.

    A loss, gradient or weight that is not finite always counts as wrong (gradients not
    where the optimizer's `skip_nonfinite` leaves such steps out, unless it leaves out
    all that there are).

    Attributes:
        explodes_at: A loop's mean loss above this multiple of the median of the loops
            before it has exploded, such as 3.0; None does not judge it.
        window_loops: How many loops that median is over.
        roll_back: Whether the run goes back to the newest checkpoint and on with the
            batches after the bad ones; otherwise it stops.
        max_roll_backs: How often in a run; one more stops it.
        max_lost_loops: After so many loops in a row all of whose steps were left out
            it has gone wrong: the weights do not move any more.

    Raises:
        ValueError: A number is out of range.
    """

    explodes_at: float | None = None
    window_loops: int = 20
    roll_back: bool = False
    max_roll_backs: int = 3
    max_lost_loops: int = 3

    def __post_init__(self) -> None:
        if self.explodes_at is not None and not self.explodes_at > 1:
            raise ValueError(
                "`explodes_at` must be above 1, a multiple of the usual loss, or None; "
                f"received {self.explodes_at!r}."
            )
        for name, least in (
            ("window_loops", _ENOUGH_LOOPS),
            ("max_roll_backs", 1),
            ("max_lost_loops", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(
                    f"`{name}` must be at least {least}; received "
                    f"{getattr(self, name)}."
                )


class LossWatch:
    """The losses of the last loops, and the batches that were left out.

    Both are part of what a checkpoint keeps, so that a run that was killed judges and
    reads as one that was not.
    """

    def __init__(self, guard: LossGuard) -> None:
        """Watch by a guard's rules, from nothing."""
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
        left_out: bool = False,
    ) -> None:
        """Judge a loop's figures and remember its loss.

        Args:
            step: Updates done.
            outputs: The loop's figures: "loss", and "parameter_norm" if measured.
            steps: How many steps the loop had; 0: not known.
            nonfinite_steps: How many of its steps had gradients that are not finite.
            left_out: Whether the optimizer left such steps out.

        Raises:
            NonFiniteError: Something is not finite, or no step of the last loops was.
            DivergedError: The loss exploded.
        """
        loss, norm = outputs["loss"], outputs.get("parameter_norm", 0.0)
        met, excused = nonfinite_steps > 0, nonfinite_steps > 0 and left_out
        finite = not met and math.isfinite(loss) and math.isfinite(norm)
        if not finite and not excused:
            raise NonFiniteError(
                f"{nonfinite_steps:.0f} of the steps up to {step} had gradients that "
                f"are not finite (mean loss {loss}, norm of the weights {norm}). "
                "Nothing of them was saved. Start again from the last checkpoint with "
                "a lower learning rate, bind the optimizer's `skip_nonfinite = True` "
                "to leave such steps out, or `LossGuard.roll_back = True` to go back "
                "and leave their batches out."
            )
        self._count_lost(step, lost=excused and nonfinite_steps >= steps > 0)
        if excused:  # The mean over such a loop says nothing.
            return
        usual, limit = self._usual(), self.guard.explodes_at
        if limit is not None and usual is not None and loss > limit * usual:
            raise DivergedError(
                f"The mean loss of the steps up to {step}, {loss:.6g}, is more than "
                f"{limit:g} times the median of the loops before, {usual:.6g}. Nothing "
                "of them was saved. Start again from the last checkpoint with a lower "
                "learning rate, or bind `LossGuard.roll_back = True` to go back and "
                "leave their batches out."
            )
        self.losses = [*self.losses, float(loss)][-self.guard.window_loops :]

    def _count_lost(self, step: int, *, lost: bool) -> None:
        """Note whether a loop lost all its steps; raise where that goes on."""
        self.lost_loops = self.lost_loops + 1 if lost else 0
        if self.lost_loops >= self.guard.max_lost_loops:
            raise NonFiniteError(
                f"No step of the last {self.lost_loops} loops, up to {step}, had "
                "finite gradients: all were left out, and the weights stand still. "
                "Nothing of them was saved since the last checkpoint. Look at the data "
                "and the weights that the run began with, start anew with a lower "
                "learning rate, or bind `LossGuard.roll_back = True` to go back and "
                "leave their batches out."
            )

    def skip(self, batches: int, *, roll_backs: int) -> None:
        """Note that this many batches more are left out by roll-back number so many."""
        self.skipped_batches += batches
        self.roll_backs = roll_backs

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "recent_losses": list(self.losses),
            "skipped_batches": self.skipped_batches,
            "roll_backs": self.roll_backs,
            "lost_loops": self.lost_loops,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept; older ones kept nothing of this."""
        self.losses = [float(loss) for loss in state.get("recent_losses", ())]
        self.skipped_batches = int(state.get("skipped_batches", 0))
        self.roll_backs = int(state.get("roll_backs", 0))
        self.lost_loops = int(state.get("lost_loops", 0))

    def _usual(self) -> float | None:
        if len(self.losses) < _ENOUGH_LOOPS:
            return None
        return statistics.median(self.losses)
