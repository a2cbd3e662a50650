"""The flax layouts' NumPy forward pass answers what the authors' own code did."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from tests.applications.cases import CASES
from vit_scaling import array_files
from vit_scaling.applications.formats import registry

LAYOUTS = ("big_vision",)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.layout in LAYOUTS], ids=lambda case: case.name
)
def test_outputs_are_the_peers(case):
    """The fixture's outputs were computed by the peer, in float32."""
    read = array_files.read_npz
    if case.path.endswith(".safetensors"):
        read = lambda path: array_files.read_safetensors(path)[0]  # noqa: E731
    images, wanted = case.expected()
    found = registry.reference_outputs(read(case.path), case.read(), images)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
