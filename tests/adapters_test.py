"""Adapters as arrays: shapes by path, and merging against the formula."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from vit_scaling import adapters
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.modeling.variables import vit_variables

SHAPE = ViTShape(4, 8, depth=2, mlp_width=12, heads=2)


def test_every_kernel_of_a_block_gets_factors_whose_product_has_its_shape():
    variables = vit_variables(SHAPE, image_size=8, classes=3)
    shapes = adapters.with_adapters(variables, rank=5)
    added = shapes.keys() - variables.keys()
    assert len(added) == 2 * 6 * 3 and all(map(adapters.is_adapter, added))
    for path in added:
        layer, _, name = path.rpartition("/")
        if name == adapters.A:
            a, b = (
                np.zeros(shapes[f"{layer}/{part}"]) for part in ("lora_a", "lora_b")
            )
            assert np.tensordot(a, b, 1).shape == variables[f"{layer}/kernel"]
            assert a.shape[-1] == b.shape[0] == 5


@pytest.mark.parametrize("inputs", [(6,), (2, 3)])
def test_merged_kernel_is_w_plus_scale_a_b(inputs):
    rng = np.random.default_rng(0)
    w, a, b = (rng.normal(size=s) for s in ((*inputs, 4), (*inputs, 2), (2, 4)))
    values = {
        "block_00/out/kernel": w.astype("float32"),
        "block_00/out/bias": np.ones(4, "float32"),
        "block_00/out/lora_a": a.astype("float32"),
        "block_00/out/lora_b": b.astype("float32"),
        "block_00/out/lora_scale": np.float32(0.25),
        "head/kernel": np.eye(4, dtype="float32"),
    }
    merged = adapters.merge(values)
    flat = w.reshape(-1, 4) + 0.25 * a.reshape(-1, 2) @ b  # Hu et al. 2022, §4.1.
    expected = flat.reshape(*inputs, 4)
    assert merged.keys() == {
        "block_00/out/kernel", "block_00/out/bias", "head/kernel",
    }  # fmt: skip
    np.testing.assert_allclose(merged["block_00/out/kernel"], expected, atol=1e-6)
    assert merged["head/kernel"] is values["head/kernel"]


def test_values_without_adapters_are_unchanged():
    values = {"head/kernel": np.ones(2)}
    assert adapters.merge(values) == values


@pytest.mark.parametrize(
    ("path", "trained"),
    [
        ("block_00/mlp/dense_0/lora_a", True),
        ("block_00/mlp/dense_0/lora_scale", False),
        ("block_00/mlp/dense_0/kernel", False),
        ("head/bias", True),
        ("map_head/probe", False),
    ],
)
def test_adapters_and_classifier_are_trained(path, trained):
    assert adapters.is_trained(path) == trained
