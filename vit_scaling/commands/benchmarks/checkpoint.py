"""Measure the host memory that saving and restoring a checkpoint needs (Linux)."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from vit_scaling.checks import check_at_least
from vit_scaling.commands.benchmarks import records
from vit_scaling.commands.benchmarks.process_memory import (
    PROCESS,
    call_in_fresh_process,
    status_bytes,
)
from vit_scaling.commands.benchmarks.records import Table

VARIABLE_BYTES = 2**26  # Of ViT-G/14's MLP, rounded: 54 million.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags: how much state, on which disk."""
    add = parser.add_argument
    add("--state_mib", type=int, default=2048, help="size of the variables")
    add(
        "--folder",
        metavar="FOLDER",
        help="folder on the disk to measure; default: a temporary one",
    )


def run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Return the most memory in addition to the variables, over the variables' size.

    While the checkpoint is written in the background, every variable is updated, as
    training does. Saving and restoring each have a process, with nothing else in
    memory than TensorFlow: TensorFlow keeps memory that saving has freed.
    """
    check_at_least(VARIABLE_BYTES // 2**20, **{"--state_mib": arguments.state_mib})
    count = arguments.state_mib * 2**20 // VARIABLE_BYTES
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        saved = call_in_fresh_process(_save, folder, count)
        restored = call_in_fresh_process(_restore, folder, count)
    return {"state_bytes": count * VARIABLE_BYTES, **saved, **restored}


def _make_variables(count: int) -> dict[str, Any]:
    import tensorflow as tf

    return {
        f"model/{number}": tf.Variable(tf.random.normal([VARIABLE_BYTES // 4]))
        for number in range(count)
    }


def _save(folder: str, count: int) -> dict[str, Any]:
    """Return memory, time and files of a checkpoint of `count` variables."""
    import tensorflow as tf

    from vit_scaling.training.checkpoints import Checkpoints

    variables = _make_variables(count)

    @tf.function(autograph=False)
    def update() -> None:
        for variable in variables.values():
            variable.assign_add(tf.ones_like(variable))

    def save() -> None:
        began = time.perf_counter()
        checkpoints.save(1, variables, {})
        blocked.append(time.perf_counter() - began)
        update()
        checkpoints.wait()

    update()  # Compiled before memory is measured.
    blocked: list[float] = []
    checkpoints = Checkpoints(folder)
    saving = _peak_bytes(save)
    files = [path.stat().length for path in checkpoints.path(1).glob("*.data-*")]
    return {
        "files": len(files),
        "largest_file_bytes": max(files),
        "save_blocks_seconds": blocked[0],
        "save_memory_over_state": saving / (count * VARIABLE_BYTES),
    }


def _restore(folder: str, count: int) -> dict[str, Any]:
    """Return the memory of reading that checkpoint."""
    from vit_scaling.training.checkpoints import Checkpoints

    variables, checkpoints = _make_variables(count), Checkpoints(folder)
    restoring = _peak_bytes(lambda: checkpoints.restore(variables))
    return {"restore_memory_over_state": restoring / (count * VARIABLE_BYTES)}


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return memory and time. Nothing is repeated, and there is no peer."""
    quantities = {
        "variables, GiB": result["state_bytes"] / 2**30,
        "memory for saving, over the variables": result["save_memory_over_state"],
        "memory for restoring, over the variables": result["restore_memory_over_state"],
        "files": result["files"],
        "largest file, GiB": result["largest_file_bytes"] / 2**30,
        "seconds for which saving holds up training": result["save_blocks_seconds"],
    }
    rows = [{"name": name, "value": value} for name, value in quantities.items()]
    columns = {"name": "quantity", "value": "value"}
    title = "Memory and time of a checkpoint"
    return [records.make_table("checkpoint", "Training", title, columns, rows)]


def _peak_bytes(function: Callable[[], Any]) -> int:
    """Return how far the process's memory rises above its present size during a call.

    Linux resets its record of the peak (VmHWM) when 5 is written to clear_refs.
    """
    (PROCESS / "clear_refs").write_text("5")
    before = status_bytes("VmRSS")
    function()
    return status_bytes("VmHWM") - before
