"""Every foreign layout has a reference; our own model is its own."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from tests.applications.cases import CASES
from vit_scaling.applications.formats import registry
from vit_scaling.applications.formats.vit_weights import ViTWeights


def test_reference_exists_for_every_foreign_layout():
    assert {case.layout for case in CASES} == set(registry.REFERENCES)
    own = ViTWeights("vit_scaling", {}, {})
    with pytest.raises(ValueError, match="no reference for layout 'vit_scaling'"):
        registry.reference_outputs({}, own, np.zeros(1))
