"""Lengths in steps, epochs, examples and percent."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.optimization.durations import duration_in_steps


@pytest.mark.parametrize(
    ("length", "steps"),
    [
        (7, 7),
        (("steps", 7), 7),
        (["epochs", 2], 200),
        (("epochs", 0.5), 50),
        (("examples", 45), 4),
        (("percent", 5), 50),
        (("percent", 100), 1000),
        (("epochs", 0), 0),
        # Asked for something, however little: at least one step.
        (("examples", 1), 1),
    ],
)
def test_every_unit_becomes_steps(length, steps):
    got = duration_in_steps(
        "warmup_steps", length, batch_size=10, train_examples=1000, total_steps=1000
    )
    assert got == steps


@pytest.mark.parametrize(
    ("length", "missing"),
    [
        (("epochs", 2), "batch_size and train_examples"),
        (("examples", 2), "batch_size"),
        (("percent", 2), "total_steps"),
    ],
)
def test_a_unit_says_what_it_needs(length, missing):
    with pytest.raises(ValueError, match=f"needs {missing}"):
        duration_in_steps("warmup_steps", length)
