"""SIGTERM is noted, shared with the other processes, and then means what it did."""
# SPDX-License-Identifier: Apache-2.0

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from vit_scaling.training import preemption
from vit_scaling.training.preemption import PreemptionNotice


def test_sigterm_is_noted_and_the_handler_put_back():
    before, notice = signal.getsignal(signal.SIGTERM), PreemptionNotice()
    with notice.catch_sigterm():
        assert not notice.is_given()
        signal.raise_signal(signal.SIGTERM)
        assert notice.is_given()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == before
    assert notice.is_given()  # It stays given.


def test_a_signal_to_another_process_counts():
    numbers = []

    def sum_over(own):
        numbers.append(own)
        return own + 1

    assert PreemptionNotice(sum_over).is_given() and numbers == [0]
    assert not PreemptionNotice(lambda own: own).is_given()


def test_a_thread_catches_nothing():
    before, notice = signal.getsignal(signal.SIGTERM), PreemptionNotice()
    seen = []

    def run():
        with notice.catch_sigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_second_sigterm_ends_the_process_at_once():
    code = (
        "import signal\n"
        "from vit_scaling.training.preemption import PreemptionNotice\n"
        "with PreemptionNotice().catch_sigterm():\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('once', flush=True)\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('twice')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM and done.stdout == "once\n"


def test_a_second_sigterm_ends_a_loop_of_steps_at_once():
    """The first, which Python sees once the loop has ended, does not."""
    code = (
        "import tensorflow as tf\n"
        "from vit_scaling.training.preemption import PreemptionNotice\n"
        "@tf.function\n"
        "def loop(steps):\n"
        "    return tf.while_loop(lambda n: n < steps, lambda n: n + 1, [0])\n"
        "loop(1)\n"
        "with PreemptionNotice().catch_sigterm():\n"
        "    print('looping', flush=True)\n"
        "    loop(2_000_000_000)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"looping\n"
        time.sleep(0.5)  # Into the loop, which takes many minutes.
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.communicate()


def test_what_woke_other_code_at_signals_does_so_again():
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    before, threads = signal.set_wakeup_fd(writes), threading.active_count()
    try:
        with PreemptionNotice().catch_sigterm():
            assert threading.active_count() == threads + 1
        assert threading.active_count() == threads
        assert signal.set_wakeup_fd(before) == writes
    finally:
        signal.set_wakeup_fd(before)
        os.close(reads)
        os.close(writes)


def test_the_exit_code_is_neither_success_nor_error_nor_a_signal():
    assert preemption.EXIT_CODE not in (0, 1, 2) and preemption.EXIT_CODE < 126
