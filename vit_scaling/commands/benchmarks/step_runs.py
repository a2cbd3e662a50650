"""Compare the step time of runs with different strategies, loops and checkpoints."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import contextlib
import json
import os
import pathlib
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from vit_scaling.commands.benchmarks import records
from vit_scaling.commands.benchmarks.alternation import ratio_spread, spread

COMPARISONS = ("strategies", "loops", "checkpoints", "peers", "first_step", "depths")
TORCH_WORKER = pathlib.Path(__file__).with_name("torch_worker.py")
CHECKPOINT_EVERY = 50
PEERS = ("timm_compile", "timm_eager")
LABELS = {
    "graph": "this package, graph (default)",
    "xla": "this package, XLA (`--jit_compile`)",
    "timm_compile": "timm, `torch.compile`",
    "timm_eager": "timm, eager",
}
# Settings by run, in addition to the model's. The first run is the reference, or the
# faster one of the peers.
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
    "peers": {
        "xla": {"jit_compile": True},
        "graph": {"jit_compile": False},
        "timm_compile": {"torch_compile": True},
        "timm_eager": {"torch_compile": False},
    },
    "first_step": {"this_version": {}, "other_version": {}},
    "depths": {"48_blocks": {"depth": 48}, "12_blocks": {"depth": 12}},
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
    "clock",
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
    runs = _runs(arguments)
    if arguments.measure in ("first_step", "depths"):
        return {
            **model,
            "measure": arguments.measure,
            "rounds": arguments.rounds,
            **_first_steps(model, runs, arguments.rounds),
        }
    unit = STEPS_MULTIPLE if arguments.measure in ("loops", "checkpoints") else 1
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
    peers = [name for name in PEERS if name in runs]
    reference = min(peers or [next(iter(runs))], key=medians.__getitem__)
    return {
        **model,
        "measure": arguments.measure,
        "steps_per_round": steps,
        "rounds": arguments.rounds,
        "seconds_per_step": medians,
        "ratio_to_first": {name: value / first for name, value in medians.items()},
        "spread_of_seconds_per_step": {
            name: spread(values) for name, values in samples.items()
        },
        "reference": reference,
        "ratio_of_rounds": {
            name: ratio_spread(values, samples[reference])
            for name, values in samples.items()
        },
    }


def make_table(result: Mapping[str, Any]) -> records.Table:
    """Return the seconds of each run, and their ratios to the reference's."""
    measure = result["measure"]
    columns = {"run": "run", **records.SECONDS}
    if measure in ("first_step", "depths"):
        columns |= {"clock": "clock", "ratio": "time over the second run's"}
        title = f"From process start to the first step of {result['shape']}"
        rows = [
            {"run": _label(run), **clocks[clock], "clock": clock, "ratio": ratio}
            for clock in ("wall", "processor")
            for (run, clocks), ratio in zip(
                result["seconds"].items(), (result["ratio"][clock], 1.0), strict=True
            )
        ]
    else:
        peers = measure == "peers"
        columns["ratio"] = f"time over the {'fastest of timm' if peers else 'first'}'s"
        compared = "next to timm on a processor" if peers else f"by {measure}"
        title = f"Training step of {result['shape']} {compared}"
        rows = [
            {"run": _label(run), **values, "ratio": result["ratio_of_rounds"][run]}
            for run, values in result["spread_of_seconds_per_step"].items()
        ]
    name = f"training_{measure}_{result['shape'].lower().replace('/', '')}"
    return records.make_table(name, "Training", title, columns, rows)


def _label(run: str) -> str:
    return LABELS.get(run) or run.replace("_", " ")


def _runs(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the settings of each run.

    Raises:
        ValueError: A flag that the comparison needs is missing.
    """
    runs = {name: dict(one) for name, one in RUNS[arguments.measure].items()}
    needed = {"peers": "torch_python", "first_step": "against"}.get(arguments.measure)
    if needed is None:
        return runs
    value = getattr(arguments, needed)
    if not value:
        raise ValueError(
            f"`--measure={arguments.measure}` needs `--{needed}`; received {value!r}."
        )
    for name in ("timm_compile", "timm_eager", "other_version"):
        if name in runs:
            runs[name][needed] = value
    return runs


def _first_steps(
    model: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]], rounds: int
) -> dict[str, Any]:
    """Return the seconds from process start to the end of the first step."""
    samples: dict[str, dict[str, list[float]]] = {
        name: {"wall": [], "processor": []} for name in runs
    }
    for _ in range(rounds):
        for name, settings in runs.items():
            before, started = _processor_seconds(), time.perf_counter()
            with MeasuredRun({**model, **settings}) as process:
                process.seconds(1)
                samples[name]["wall"].append(time.perf_counter() - started)
            samples[name]["processor"].append(_processor_seconds() - before)
    first, second = samples.values()
    return {
        "seconds": {
            name: {clock: spread(values) for clock, values in clocks.items()}
            for name, clocks in samples.items()
        },
        "ratio": {c: ratio_spread(first[c], second[c]) for c in first},
    }


def _processor_seconds() -> float:
    """Return the processor time of all processes that this one started and ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


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
            if settings.get("clock") == "processor":
                # PyTorch's threads spin while they wait, which would count.
                environment["OMP_WAIT_POLICY"] = "PASSIVE"
            tree = settings.get("against")
            if tree:
                environment["PYTHONPATH"] = tree
            self._processes.append(
                subprocess.Popen(
                    [*_worker(settings), json.dumps(settings)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=environment,
                    cwd=tree,  # `python -m` looks in the current folder first.
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


def _worker(settings: Mapping[str, Any]) -> list[str]:
    if python := settings.get("torch_python"):
        return [python, str(TORCH_WORKER), "--serve"]
    return [sys.executable, "-m", "vit_scaling.commands.benchmarks.step_worker"]
