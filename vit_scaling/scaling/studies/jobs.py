"""The training runs of a sweep and the command lines that start them."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import itertools
import shlex
import sys
from collections.abc import Iterable, Sequence

from vit_scaling.modeling.shapes import ViTShape

TRAIN_MODULE = ("-m", "vit_scaling.train")


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of the training binary: a trunk, or a cooldown that branches off it.

    Attributes:
        model: Name of the model and variant.
        shape: Dimensions of the model.
        data_size: Images of the subset; None: all.
        seed: Seed of the run.
        steps: Duration in steps, cooldown included.
        trained_steps: Steps that this run adds: all of a trunk's, a branch's cooldown.
        folder: Folder of the finished run, relative to the sweep's work folder.
        arguments: Of the training binary, except for a branch's start and length.
        flops: Training operations of `trained_steps`.
    """

    model: str
    shape: ViTShape
    data_size: float | None
    seed: int
    steps: int
    trained_steps: int
    folder: str
    arguments: tuple[str, ...]
    flops: float

    @property
    def is_branch(self) -> bool:
        """Whether the run continues a trunk."""
        return self.trained_steps < self.steps

    @property
    def trunk(self) -> str:
        """Folder of the trunk that a branch continues; a trunk's own folder."""
        return self.folder.partition("/branch_")[0]


def make_command(jobs: Sequence[Job], work_dir: str) -> list[str]:
    """Return the command line of one job, or of several branches of one trunk.

    Branches share a process because starting one takes longer than a short cooldown.
    """
    first = jobs[0]
    words = [sys.executable, *TRAIN_MODULE, *first.arguments]
    if first.is_branch:
        starts = ",".join(str(job.steps - job.trained_steps) for job in jobs)
        lengths = ",".join(str(job.trained_steps) for job in jobs)
        words += [f"--branch_at={starts}", f"--branch_cooldown_steps={lengths}"]
    return [*words, f"--model_dir={work_dir}/{first.trunk}"]


def make_shell_command(jobs: Sequence[Job], work_dir: str) -> str:
    """Return the command line of `make_command` as text, quoted for a shell."""
    return shlex.join(["python", *make_command(jobs, work_dir)[1:]])


def group_by_process(jobs: Iterable[Job]) -> list[list[Job]]:
    """Return the jobs in order; consecutive branches of one trunk form one group."""
    groups = itertools.groupby(
        jobs, key=lambda job: (job.trunk, None if job.is_branch else job.folder)
    )
    return [list(group) for _, group in groups]
