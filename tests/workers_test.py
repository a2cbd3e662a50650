"""Two real workers on loopback: killed, ended, restarted, the same weights."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from vit_scaling.training.checkpoint_files import (
    checkpoint_folder,
    read_checkpoint,
    saved_steps,
)
from vit_scaling.training.logs import read_metrics

ROOT = pathlib.Path(__file__).resolve().parents[1]
LAUNCHER = ["bash", str(ROOT / "tools" / "launch_local_workers.sh")]
TINY = """
include 'experiments/quickstart.gin'
digits/ViTShape.width = 16
digits/ViTShape.mlp_width = 16
digits/ViTShape.heads = 2
digits/ViTShape.depth = 1
vit.dropout = 0.1
SHUFFLE_WINDOW = 128
BATCH_SIZE = 8
TOTAL_STEPS = 300
WARMUP_STEPS = 1
COOLDOWN_STEPS = 1
STEPS_PER_LOOP = 5
CHECKPOINT_EVERY = 10
EVAL_EVERY = None
"""


@pytest.mark.parametrize(
    "arguments",
    [["--steps=3"], ["--workers=0"], ["--workers=two"], ["--max_restarts=-1"]],
)
def test_what_the_launcher_does_not_know_is_rejected(arguments):
    done = subprocess.run(
        [*LAUNCHER, *arguments, "--"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert arguments[0] in done.stderr or "must be whole numbers" in done.stderr


def stand_in(folder, script):
    """Return an environment whose `python` runs a shell script as each worker."""
    python = folder / "bin" / "python"
    python.parent.mkdir()
    ports = f'[[ $1 == - ]] && exec {sys.executable} "$@"'
    python.write_text(f"#!/bin/bash\n{ports}\n{script}\n")
    python.chmod(0o755)
    return {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"}


def test_workers_that_end_together_are_all_noticed(tmp_path):
    """Bash forgets children that ended while it looked at another one."""
    done = subprocess.run(
        [*LAUNCHER, "--workers=12", f"--log_dir={tmp_path}/logs", "--", "flag"],
        env=stand_in(tmp_path, "exit 3"),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 3, done.stderr
    assert "a worker ended with code 3 after 1 restarts" in done.stderr


def test_progress_is_not_judged_by_what_an_earlier_launcher_logged(tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "worker_0.log").write_text("step 9,000/9,000 (100%)\n")
    script = f"""
    echo life >>{tmp_path}/lives; echo "step $(wc -l <{tmp_path}/lives)/99"
    exit 3"""
    done = subprocess.run(
        [*LAUNCHER, "--workers=1", "--max_restarts=4", f"--log_dir={logs}", "--", "f"],
        env=stand_in(tmp_path, script),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 3
    assert "a worker ended with code 3 after 4 restarts" in done.stderr


@pytest.mark.parametrize("to_all", [False, True])
def test_a_signal_lets_every_worker_save(tmp_path, to_all):
    """Ctrl-C reaches all processes of the group, those that keep the logs too."""
    script = """
    trap 'echo saving; sleep 0.3; echo saved; exit 75' INT TERM
    echo up; for i in {1..600}; do sleep 0.1; done"""
    heard = ["env", "--default-signal=INT"]  # A job in the background ignores it.
    launcher = subprocess.Popen(
        [*heard, *LAUNCHER, f"--log_dir={tmp_path}/logs", "--", "flag"],
        env=stand_in(tmp_path, script),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    logs = [tmp_path / "logs" / f"worker_{number}.log" for number in (0, 1)]
    until = time.monotonic() + 60
    while not all(log.exists() and "up" in log.read_text() for log in logs):
        assert time.monotonic() < until
        time.sleep(0.05)
    if to_all:
        os.killpg(launcher.pid, signal.SIGINT)
    else:
        launcher.terminate()
    try:
        assert launcher.wait(60) == 75
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(launcher.pid, signal.SIGKILL)
        launcher.wait()
    assert all("saved" in log.read_text() for log in logs)


class Group:
    """A launcher and its two workers, training the digits."""

    def __init__(self, records, folder, name, more=""):
        self.run, self.logs = folder / name, folder / f"{name}_logs"
        patterns = f"TRAIN_PATTERN = '{records}/train-*'\n"
        patterns += f"EVAL_PATTERN = '{records}/test-*'\n"
        (folder / "run.gin").write_text(TINY + patterns + more)
        self.process = subprocess.Popen(
            [
                *LAUNCHER,
                f"--log_dir={self.logs}",
                "--",
                f"--gin_file={folder / 'run.gin'}",
                "--mode=train",
                f"--model_dir={self.run}",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )

    def until(self, step):
        while not [s for s in saved_steps(self.run / "checkpoints") if s >= step]:
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.01)
        return self

    def workers(self):
        found = subprocess.run(
            ["pgrep", "-P", str(self.process.pid), "-f", "vit_scaling.train"],
            capture_output=True,
            text=True,
            check=True,
        )
        return [int(number) for number in found.stdout.split()]

    def finish(self):
        out, _ = self.process.communicate(timeout=900)
        return self.process.returncode, out

    def bits(self):
        step = saved_steps(self.run / "checkpoints")[-1]
        folder = checkpoint_folder(self.run / "checkpoints", step)
        values, _ = read_checkpoint(folder)
        losses = {r["step"]: r["loss"] for r in read_metrics(self.run, "train")}
        return step, {key: v.tobytes() for key, v in values.items()}, losses


@pytest.mark.slow
def test_a_group_that_lost_a_worker_and_was_ended_comes_out_the_same(
    digit_records, tmp_path
):
    peace = Group(digit_records, tmp_path, "peace")
    code, out = peace.finish()
    assert code == 0, out
    assert "[0] step" in out and (peace.logs / "worker_1.log").exists()

    group = Group(digit_records, tmp_path, "killed").until(30)
    os.kill(group.workers()[-1], signal.SIGKILL)
    group.until(saved_steps(group.run / "checkpoints")[-1] + 30)
    group.process.send_signal(signal.SIGTERM)
    code, out = group.finish()
    assert code == 75, out
    assert "restart 1 of 10" in out and "SIGTERM was received: saved" in out

    group = Group(digit_records, tmp_path, "killed")
    code, out = group.finish()
    assert code == 0, out
    assert group.bits() == peace.bits()
    assert group.bits()[0] == 300


@pytest.mark.slow
def test_workers_that_compute_again_and_in_pieces_train_to_the_same_weights(
    digit_records, tmp_path
):
    plain = "vit.dropout = 0.0\nTOTAL_STEPS = 20\n"
    pieces = "REMATERIALIZE = 'all'\nMICRO_BATCHES = 2\n"
    ends = []
    for name, more in (("whole", plain), ("pieces", plain + pieces)):
        group = Group(digit_records, tmp_path, name, more)
        code, out = group.finish()
        assert code == 0, out
        folder = checkpoint_folder(group.run / "checkpoints", 20)
        ends.append((read_checkpoint(folder)[0], group.bits()[2]))
    (whole, losses), (again, others) = ends
    assert whole.keys() == again.keys() and losses.keys() == others.keys()
    for step, loss in losses.items():
        assert others[step] == pytest.approx(loss, rel=1e-5)
    # All weights as one: the biases of keys have no gradient but rounding, which Adam
    # makes as large as any.
    keys = [key for key in sorted(whole) if key.startswith("model/")]
    first, second = (
        np.concatenate([end[key].ravel() for key in keys]) for end in (whole, again)
    )
    assert np.linalg.norm(first - second) < 1e-3 * np.linalg.norm(first)
