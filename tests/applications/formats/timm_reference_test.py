"""The NumPy forward pass of timm's layout gives timm's own outputs."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from tests.applications.cases import CASES
from vit_scaling.applications.formats import registry
from vit_scaling.applications.sources import find_source

LAYOUTS = ("timm",)


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
