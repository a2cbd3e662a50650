"""The NumPy forward pass of Hugging Face's layouts gives its own outputs."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from tests.applications.cases import CASES, NAMED
from vit_scaling.applications.formats import huggingface, registry
from vit_scaling.applications.formats.vit_weights import ReadOptions
from vit_scaling.applications.sources import find_source

LAYOUTS = ("huggingface_vit", "huggingface_siglip")


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.layout in LAYOUTS], ids=lambda case: case.name
)
def test_outputs_are_the_peers(case):
    """The fixture's outputs were computed by the peer, in float32."""
    images, wanted = case.expected()
    found = registry.reference_outputs(
        find_source(case.path).read_arrays()[0], case.read(), images
    )
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("name", ["hf_vit", "hf_vit_pooler"])
def test_names_inside_transformers_5_are_known_too(name):
    """As a state_dict of its modules has them; its files have the older ones."""
    newer = {
        "encoder.layer.": "layers.",
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        ".output.dense": ".mlp.fc2",
    }
    case = NAMED[name]
    held, _ = find_source(case.path).read_arrays()
    for old, new in newer.items():
        held = {key.replace(old, new): value for key, value in held.items()}
    assert sum(".attention.o_proj." in key for key in held) == 4
    images, wanted = case.expected()
    config = {"num_attention_heads": 2}
    weights = huggingface.read_huggingface(held, ReadOptions(), config)
    found = registry.reference_outputs(held, weights, images)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
