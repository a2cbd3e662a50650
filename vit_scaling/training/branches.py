"""Branches of a long run: cooldowns that start from one of its checkpoints (§3.5)."""
# SPDX-License-Identifier: Apache-2.0

from typing import Any

from etils import epath

from vit_scaling import io_files
from vit_scaling.run_record import RUN_FILE
from vit_scaling.training.checkpoint_files import (
    MANIFEST,
    checkpoint_folder,
    new_checkpoint,
    read_checkpoint,
    saved_steps,
)
from vit_scaling.training.checkpoints import FOLDER
from vit_scaling.training.settings import read_settings, save_settings

RECORD_FILE = "branch.json"


def prepare_branch(
    parent_dir: epath.PathLike, start_step: int, cooldown_steps: int
) -> epath.Path:
    """Copy the parent's last checkpoint at or before a step into the branch's folder.

    From that checkpoint to `start_step` the branch repeats the parent's steps. The
    parent is only read; its run.json is copied, so that the branch evaluates averages
    if the parent does. A branch that was prepared before is left unchanged, so that one
    that was killed continues.

    Args:
        parent_dir: `model_dir` of the long run.
        start_step: Step of the parent at which the cooldown begins.
        cooldown_steps: Length of the cooldown.

    Returns:
        The branch's folder, `PARENT/branch_…`.

    Raises:
        FileNotFoundError: The parent has no checkpoint at or before `start_step`.
        CorruptCheckpointError: That checkpoint is damaged.
    """
    parent = epath.Path(parent_dir)
    total = start_step + cooldown_steps
    model_dir = parent / f"branch_{total:09d}_from_{start_step:09d}"
    record = model_dir / RECORD_FILE
    if not record.exists():
        saved = saved_steps(parent / FOLDER)
        steps = [step for step in saved if step <= start_step]
        if not steps:
            raise FileNotFoundError(
                f"`branch_at` needs a checkpoint at or before step {start_step}; "
                f"`{parent / FOLDER}` has {saved or 'none'}. Bind "
                "`RunOptions.keep_steps` or `RunOptions.keep_every_steps`, or pass the "
                "same --branch_at when training, so that it is kept."
            )
        source = checkpoint_folder(parent / FOLDER, steps[-1])
        _, manifest = read_checkpoint(source)
        settings = read_settings(parent)
        if settings is not None:  # The branch is compared with its parent.
            save_settings(model_dir, settings)
        _copy_checkpoint(source, checkpoint_folder(model_dir / FOLDER, steps[-1]))
        if (parent / RUN_FILE).exists():
            io_files.write_text(model_dir / RUN_FILE, (parent / RUN_FILE).read_text())
        io_files.write_json(
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
    return model_dir


def read_branch_record(model_dir: epath.PathLike) -> dict[str, Any] | None:
    """Return a branch's record of its parent; None if the folder is not a branch."""
    path = epath.Path(model_dir) / RECORD_FILE
    return io_files.read_json(path) if path.exists() else None


def _copy_checkpoint(source: epath.Path, target: epath.Path) -> None:
    """Copy a checkpoint, its manifest last, which completes it."""
    if (target / MANIFEST).exists():
        return
    with new_checkpoint(target) as folder:
        for path in sorted(source.iterdir(), key=lambda path: path.name == MANIFEST):
            path.copy(folder / path.name)
