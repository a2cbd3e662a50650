"""The nearest run that fits does fit, and asks for no more than is needed."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.modeling.shapes import shape_named
from vit_scaling.scaling.planning.advice import find_nearest_fit
from vit_scaling.scaling.planning.devices import device_named
from vit_scaling.scaling.planning.step import Step


@pytest.mark.parametrize(
    ("shape", "batch", "device", "optimizer", "nearest"),
    [
        ("B/16", 320, "tpu_v3", "adam", "--rematerialize=all"),
        ("B/8", 32, "tpu_v3", "adam", "--attention_chunk=512"),
        ("B/16", 100_000, "tpu_v3", "adam", "--batch="),
        ("G/14", 8, "tpu_v3", "adam", "--optimizer=adafactor"),
        ("G/14", 8, "8GiB", "adafactor", "--device=tpu_v3"),
    ],
)
def test_the_smallest_change_is_advised(shape, batch, device, optimizer, nearest):
    device = device_named(device)
    advice = find_nearest_fit(
        shape_named(shape), batch=batch, device=device,
        step=Step(optimizer=optimizer, tpu=device.tpu),
    )  # fmt: skip
    assert advice.startswith(nearest)


def test_what_no_device_holds_has_no_advice():
    step = Step(optimizer="adam", tpu=False)
    huge = shape_named("G/14").__class__(14, 20_000, 96, 80_000, 100)
    device = device_named("24GiB")
    assert find_nearest_fit(huge, batch=1, device=device, step=step) is None
