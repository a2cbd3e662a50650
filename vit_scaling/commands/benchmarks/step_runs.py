"""What a run adds to its steps: strategy, loop and checkpoints, side by side."""
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
# Of a run that is compared, beside the model's: what differs from the first, by name.
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
# Rounds of whole loops, each with all the checkpoints that its steps stand for.
WHOLE_LOOPS = 100


def run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Return each run's seconds per step and its ratio to the first one's.

    Each run is a process (or two workers) of its own; all take turns for some rounds,
    so that a change in the machine's load meets all of them, and the medians count. The
    global batch is the same for all. Where loops or checkpoints are compared, a round's
    steps are rounded up to a multiple of 100.

    Raises:
        ValueError: Replicas or workers cannot share the global batch evenly.
    """
    shares = [
        changes.get("virtual_devices", changes.get("workers", 1))
        for changes in RUNS[arguments.measure].values()
    ]
    if arguments.batch_size % max(shares):
        raise ValueError(
            f"`batch_size` must be a multiple of {max(shares)} for "
            f"--measure={arguments.measure}, or its runs would take other global "
            f"batches; received {arguments.batch_size}."
        )
    model = {name: vars(arguments)[name] for name in MODEL_FLAGS}
    runs = RUNS[arguments.measure]
    unit = WHOLE_LOOPS if arguments.measure != "strategies" else 1
    steps = -(-arguments.steps // unit) * unit
    with contextlib.ExitStack() as stack:
        started = {
            name: stack.enter_context(Run({**model, **changes}))
            for name, changes in runs.items()
        }
        for one in started.values():
            one.seconds(max(1, arguments.warmup_steps))
        taken: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(arguments.rounds):
            for name, one in started.items():
                taken[name].append(one.seconds(steps) / steps)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    first = next(iter(medians.values()))
    return {
        **model,
        "measure": arguments.measure,
        "steps_per_round": steps,
        "rounds": arguments.rounds,
        "seconds_per_step": medians,
        "ratio_to_first": {name: value / first for name, value in medians.items()},
        "range_of_seconds_per_step": {
            name: [min(values), max(values)] for name, values in taken.items()
        },
    }


class Run:
    """A training run in processes of its own, which steps when it is told to."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Start the processes; they make the model meanwhile."""
        workers = settings.get("workers", 1)
        with contextlib.ExitStack() as stack:
            sockets = [
                stack.enter_context(socket.create_server(("127.0.0.1", 0)))
                for _ in range(workers)
            ]
            hosts = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
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

    def __enter__(self) -> "Run":
        """Return it; on leaving the `with`, the processes end."""
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()

    def seconds(self, steps: int) -> float:
        """Run steps and return how long they took, by the slowest process.

        Raises:
            RuntimeError: A process has ended.
        """
        for process in self._processes:
            if process.stdin is not None and process.poll() is None:
                process.stdin.write(f"{steps}\n")
                process.stdin.flush()
        taken = []
        for process in self._processes:
            line = process.stdout.readline() if process.stdout is not None else ""
            if not line:
                raise RuntimeError(
                    "A measured process ended; what it said is above. Try a smaller "
                    "--shape or --batch_size."
                )
            taken.append(float(json.loads(line)["seconds"]))
        return max(taken)
