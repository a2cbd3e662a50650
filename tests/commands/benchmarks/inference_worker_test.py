"""An engine's process answers once to show that it is right, then as often as asked."""
# SPDX-License-Identifier: Apache-2.0

import io
import json
import sys

import numpy as np
import pytest

from vit_scaling.commands.benchmarks import inference_worker


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Return a function from lines of standard input to lines of output and batches."""
    images = np.arange(24, dtype=np.float32).reshape(6, 4)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "expected.npy", images[:1].sum(-1) + 0.5)
    batches = []

    def engine(path, threads):
        assert path == "file" and threads == 3

        def run(images):
            print("an engine may chatter")
            batches.append(len(images))
            return images.sum(-1)

        return run

    monkeypatch.setitem(inference_worker.ENGINES, "fake", engine)

    def ask(text):
        out = io.StringIO()
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        monkeypatch.setattr(sys, "stdout", out)
        images_file = str(tmp_path / "images.npy")
        inference_worker.main("fake", "file", images_file, "3", "processor")
        return [json.loads(line) for line in out.getvalue().splitlines()], batches

    return ask


def test_first_answer_is_compared_and_each_line_timed(asked):
    (first, *timed), batches = asked("4 3\n1 2\n")
    assert first == {"differs_by": 0.5}
    assert [len(seconds) for seconds in timed] == [3, 2]
    assert all(second >= 0 for seconds in timed for second in seconds)
    assert batches == [1, 4, 4, 4, 1, 1]


def test_process_ends_with_its_input(asked):
    (first,), batches = asked("")
    assert "differs_by" in first and batches == [1]
