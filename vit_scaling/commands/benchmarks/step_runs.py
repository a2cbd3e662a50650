"""Compare the step time of runs with different strategies, loops and checkpoints."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

COMPARISONS = ("strategies", "loops", "checkpoints")
CHECKPOINT_EVERY = 50
# Settings by run, in addition to the model's; the first run is the reference.
RUNS: dict[str, dict[str, dict[str, Any]]] = {
    "strategies": {
        "one_device": {},
        "two_virtual_devices": {"distribution": "mirrored", "virtual_devices": 2},
        "two_local_workers": {"distribution": "multi_worker_mirrored", "workers": 2},
    },
    "loops": {
        "100_steps_per_loop": {"steps_per_loop": 100},
        "10_steps_per_loop": {"steps_per_loop": 10},
        "1_step_per_loop": {"steps_per_loop": 1},
    },
    "checkpoints": {
        "without_checkpoints": {"steps_per_loop": CHECKPOINT_EVERY},
        f"every_{CHECKPOINT_EVERY}_steps": {
            "steps_per_loop": CHECKPOINT_EVERY,
            "checkpoint_every": CHECKPOINT_EVERY,
        },
    },
}
MODEL_FLAGS = (
    "shape",
    "head",
    "image_size",
    "classes",
    "batch_size",
    "dtype",
    "jit_compile",
    "rematerialize",
    "fresh_memory",
)
# Rounds are multiples of this, so that each has complete loops and its checkpoints.
STEPS_MULTIPLE = 100


def run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Return each run's seconds per step and its ratio to the first run's.

    Each run has its own process (or two workers). The runs alternate for some rounds,
    so that changes of the machine's load affect all of them; medians are reported. The
    global batch is the same for all. Where loops or checkpoints are compared, a round's
    steps are rounded up to a multiple of 100.

    Raises:
        ValueError: The global batch is not divisible by the replicas or workers.
    """
    replicas = [
        changes.get("virtual_devices", changes.get("workers", 1))
        for changes in RUNS[arguments.measure].values()
    ]
    if arguments.batch_size % max(replicas):
        raise ValueError(
            f"`batch_size` must be a multiple of {max(replicas)} for "
            f"--measure={arguments.measure}, so that all runs have the same global "
            f"batch; received {arguments.batch_size}."
        )
    model = {name: vars(arguments)[name] for name in MODEL_FLAGS}
    runs = RUNS[arguments.measure]
    unit = STEPS_MULTIPLE if arguments.measure != "strategies" else 1
    steps = -(-arguments.steps // unit) * unit
    with contextlib.ExitStack() as stack:
        processes = {
            name: stack.enter_context(MeasuredRun({**model, **changes}))
            for name, changes in runs.items()
        }
        for process in processes.values():
            process.seconds(max(1, arguments.warmup_steps))
        samples: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(arguments.rounds):
            for name, process in processes.items():
                samples[name].append(process.seconds(steps) / steps)
    medians = {name: statistics.median(values) for name, values in samples.items()}
    first = next(iter(medians.values()))
    return {
        **model,
        "measure": arguments.measure,
        "steps_per_round": steps,
        "rounds": arguments.rounds,
        "seconds_per_step": medians,
        "ratio_to_first": {name: value / first for name, value in medians.items()},
        "range_of_seconds_per_step": {
            name: [min(values), max(values)] for name, values in samples.items()
        },
    }


class MeasuredRun:
    """A training run in separate processes that trains a number of steps on request."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Start the processes, which build the model in the background."""
        workers = settings.get("workers", 1)
        with contextlib.ExitStack() as stack:
            sockets = [
                stack.enter_context(socket.create_server(("127.0.0.1", 0)))
                for _ in range(workers)
            ]
            hosts = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
        self._processes = []
        for number in range(workers):
            environment = dict(os.environ)
            if workers > 1:
                task = {"type": "worker", "index": number}
                cluster = {"cluster": {"worker": hosts}, "task": task}
                environment["TF_CONFIG"] = json.dumps(cluster)
            module = "vit_scaling.commands.benchmarks.step_worker"
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", module, json.dumps(settings)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=environment,
                )
            )

    def __enter__(self) -> "MeasuredRun":
        """Return the run; leaving the block ends its processes."""
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()

    def seconds(self, steps: int) -> float:
        """Train some steps and return the seconds of the slowest process.

        Raises:
            RuntimeError: A process has ended.
        """
        for process in self._processes:
            if process.stdin is not None and process.poll() is None:
                process.stdin.write(f"{steps}\n")
                process.stdin.flush()
        seconds = []
        for process in self._processes:
            line = process.stdout.readline() if process.stdout is not None else ""
            if not line:
                raise RuntimeError(
                    "A measured process ended; its output is above. Try a smaller "
                    "--shape or --batch_size."
                )
            seconds.append(float(json.loads(line)["seconds"]))
        return max(seconds)
