"""Branch a cooldown off a long run: finished models at several durations (§3.5)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from vit_scaling.training.checkpoint_files import (
    MANIFEST,
    checkpoint_folder,
    is_remote,
    read_checkpoint,
    remove_checkpoint,
    saved_steps,
    write_json,
)
from vit_scaling.training.checkpoints import FOLDER

RECORD_FILE = "branch.json"


@dataclasses.dataclass(frozen=True)
class Branch:
    """A branch that is ready to be trained in its own folder.

    Attributes:
        model_dir: The branch's folder, `PARENT/branch_…`, which holds the checkpoint it
            starts from.
        start_step: Where the cooldown begins.
        cooldown_steps: How long it lasts.
        parent_step: The step of the parent's checkpoint, at most `start_step`; steps
            between the two are the parent's own.
    """

    model_dir: epath.Path
    start_step: int
    cooldown_steps: int
    parent_step: int

    @property
    def total_steps(self) -> int:
        """The branch's duration, cooldown included, as Tables 14 to 22 count it."""
        return self.start_step + self.cooldown_steps


def branch_cooldowns(
    experiment: Any,
    *,
    model_dir: epath.PathLike,
    branch_at: Sequence[int],
    cooldown_steps: int | Sequence[int] | None = None,
    train_branch: Callable[..., dict[str, Any]],
    **launch: Any,
) -> dict[str, dict[str, Any]]:
    """Turn a long run into finished models at several durations (§3.5).

    Each branch follows the run from its checkpoint nearest below `start` to `start`,
    cools down to zero, is evaluated, and stays in a folder of its own with a record of
    where it came from. The run itself is only read; killed branches go on.

    Args:
        experiment: An `Experiment`, as the run was trained.
        model_dir: Folder of the run.
        branch_at: Steps at which the cooldowns begin.
        cooldown_steps: Length of the cooldowns, one for all or one for each; None: that
            of the run's schedule.
        train_branch: `experiment.train`, or its gin-bound form.
        **launch: Further arguments of `train`, such as `strategy`.

    Returns:
        {branch's folder: what `train` returned}.

    Raises:
        ValueError: A branch starts in the warm-up or the cooldown of the run, the
            schedule's decay depends on the total, or there are other numbers of starts
            and of lengths.
        FileNotFoundError: No checkpoint at or below a start is left.
    """
    schedule = experiment.schedule_in_steps()
    lengths = cooldown_steps or schedule.cooldown_steps
    if isinstance(lengths, int):
        lengths = [lengths] * len(branch_at)
    if len(lengths) != len(branch_at):
        raise ValueError(
            "`cooldown_steps` must be one length for all branches or one for each of "
            f"{list(branch_at)}; received {list(lengths)}."
        )
    pairs = sorted(zip(branch_at, lengths, strict=True))
    schedules = {start: schedule.branch(start, length) for start, length in pairs}
    branches = [prepare_branch(model_dir, *pair) for pair in pairs]
    return {
        str(branch.model_dir): train_branch(
            dataclasses.replace(experiment, schedule=schedules[branch.start_step]),
            model_dir=branch.model_dir,
            **launch,
        )
        for branch in branches
    }


def prepare_branch(
    parent_dir: epath.PathLike, start_step: int, cooldown_steps: int
) -> Branch:
    """Copy the parent's checkpoint nearest below a step into the branch's own folder.

    The parent is only read. A branch prepared before is found again as it is, so that
    one that was killed goes on.

    Args:
        parent_dir: `model_dir` of the long run.
        start_step: Where the cooldown begins, in steps of the parent.
        cooldown_steps: How long it lasts.

    Raises:
        FileNotFoundError: The parent has no checkpoint at or below `start_step`.
        CorruptCheckpointError: That checkpoint is damaged.
    """
    parent = epath.Path(parent_dir)
    total = start_step + cooldown_steps
    model_dir = parent / f"branch_{total:09d}_from_{start_step:09d}"
    record = model_dir / RECORD_FILE
    if not record.exists():
        steps = [s for s in saved_steps(parent / FOLDER) if s <= start_step]
        if not steps:
            raise FileNotFoundError(
                f"`branch_at` needs a checkpoint at or below step {start_step}; "
                f"`{parent / FOLDER}` has {saved_steps(parent / FOLDER) or 'none'}. "
                "Bind `train.keep_steps` or `train.keep_every_steps`, or pass the same "
                "--branch_at when training, so that it is kept."
            )
        source = checkpoint_folder(parent / FOLDER, steps[-1])
        _, manifest = read_checkpoint(source, prefixes=["run/"])
        _copy_folder(source, checkpoint_folder(model_dir / FOLDER, steps[-1]))
        write_json(
            record,
            {
                "parent": str(parent),
                "parent_step": steps[-1],
                "start_step": start_step,
                "cooldown_steps": cooldown_steps,
                "total_steps": total,
                "images_seen_by_parent": manifest["state"]["images_seen"],
            },
        )
    parent_step = _record(record)["parent_step"]
    return Branch(model_dir, start_step, cooldown_steps, parent_step)


def read_branch_record(model_dir: epath.PathLike) -> dict[str, Any] | None:
    """Return a branch's record of its parent, or None where there is none."""
    path = epath.Path(model_dir) / RECORD_FILE
    return _record(path) if path.exists() else None


def _record(path: epath.Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def _copy_folder(source: epath.Path, target: epath.Path) -> None:
    """Copy a checkpoint, its manifest last: it makes the copy a checkpoint."""
    if (target / MANIFEST).exists():
        return
    remote = is_remote(target)
    working = target if remote else target.with_name(f".writing_{target.name}")
    for rest in {working, target}:  # Of a copy that was cut off.
        remove_checkpoint(rest)
    working.mkdir(parents=True)
    for path in sorted(source.iterdir(), key=lambda path: path.name == MANIFEST):
        path.copy(working / path.name)
    if not remote:
        working.rename(target)
