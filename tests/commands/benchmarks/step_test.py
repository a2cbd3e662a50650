"""The step benchmark answers one JSON object whose shares follow from its rates."""
# SPDX-License-Identifier: Apache-2.0

import json

import pytest

from vit_scaling.commands import benchmark
from vit_scaling.commands.benchmarks import step
from vit_scaling.modeling.shapes import shape_named
from vit_scaling.scaling.planning.flops import flops

SMALL = [
    "--shape=mu/16",
    "--image_size=32",
    "--classes=3",
    "--batch_size=2",
    "--steps=1",
]


def test_rates_and_shares_belong_together(capsys):
    assert benchmark.main(["step", *SMALL, "--warmup_steps=1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    counted = flops(shape_named("mu/16"), image_size=32, classes=3)
    peak = result["gemm_peak_gflops_per_second"] * 1e9
    assert peak > 0
    for name, operations in (
        ("training", counted.training),
        ("inference", counted.forward),
    ):
        rate = result[f"{name}_images_per_second"]
        assert rate == pytest.approx(2 / result[f"{name}_seconds_per_step"])
        share = result[f"{name}_share_of_gemm_peak"]
        assert share == pytest.approx(rate * operations / peak)
        # Of one round, which is that of the medians.
        of_rounds = result[name]["share_of_gemm_peak"]
        assert of_rounds["min"] == pytest.approx(share)
    (table,) = step.tables(result)
    assert [row[0] for row in table.rows] == ["training", "inference"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch_size=0"], "`--batch_size` must be at least 1; received 0"),
        (["--shape=XL/16"], "No shape is called 'XL/16'"),
    ],
)
def test_bad_flags_are_refused_by_name(capsys, flags, message):
    assert benchmark.main(["step", *SMALL, *flags]) == 1
    assert message in capsys.readouterr().err


def test_an_unknown_benchmark_is_refused_with_the_known_ones(capsys):
    assert benchmark.main(["stepp"]) == 2
    assert "step, optimizer, pipeline, scale, writing" in capsys.readouterr().err
