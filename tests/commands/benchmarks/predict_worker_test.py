"""The process that predicts files makes a pass for each line that it reads."""
# SPDX-License-Identifier: Apache-2.0

import io
import json
import sys

from vit_scaling.commands.benchmarks import predict_worker


def test_each_line_asks_for_a_pass(tmp_path, monkeypatch):
    def engine(folder, image_size, batch_size):
        assert (folder, image_size, batch_size) == (tmp_path, 32, 4)

        def run():
            print("an engine may chatter")
            return [[3, 1]]

        return run

    monkeypatch.setitem(predict_worker.ENGINES, "fake", engine)
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO("pass\npass\n"))
    monkeypatch.setattr(sys, "stdout", out)
    predict_worker.main("fake", str(tmp_path), "32", "4")
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [[[3, 1]]] * 2
