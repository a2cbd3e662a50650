"""Predictions on files, next to a loop that another program would run."""
# SPDX-License-Identifier: Apache-2.0

import json

import pytest

from vit_scaling.commands import benchmark
from vit_scaling.commands.benchmarks import predict

SMALL = ["--shape=mu/16", "--image_size=32", "--files=5", "--batch_size=2"]


def test_a_pass_predicts_each_file(capsys):
    flags = [*SMALL, "--rounds=2", "--torch_python=", "--json"]
    assert benchmark.main(["predict", *flags]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["files"] == 5
    seconds = result["seconds"]["predict"]
    assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
    rate = result["images_per_second"]["predict"]
    assert rate == pytest.approx(5 / seconds["median"])
    assert predict.tables(result)[0].rows[0][-1] == ""  # Without the peer.


def test_programs_that_find_other_classes_are_not_compared():
    fives = [[n, n + 1, n + 2, n + 3, n + 4] for n in range(20)]
    others = [list(reversed(five)) for five in fives]
    assert predict._agreement(fives, others) == 1
    assert predict._agreement(fives, [*others[:-1], [99] * 5]) == 0.95
    with pytest.raises(RuntimeError, match="for 50% of the files only"):
        predict._agreement(fives[:2], [fives[0], [99] * 5])


@pytest.mark.parametrize("name", ["files", "batch_size", "rounds"])
def test_numbers_below_one_are_rejected(name, capsys):
    assert benchmark.main(["predict", f"--{name}=0"]) == 1
    assert f"`--{name}` must be at least 1; received 0" in capsys.readouterr().err
