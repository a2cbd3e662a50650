"""The optimizers' pure formulas in float64, against the oracles, within 1e-12."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from tests.optimization.cases import SHAPES, gradients_for, weights_for
from tests.oracles.adafactor import Adafactor as AdafactorOracle
from tests.oracles.adam import Adam as AdamOracle
from tests.oracles.momentum import Momentum as MomentumOracle
from vit_scaling.optimization.adafactor import Adafactor
from vit_scaling.optimization.adam import Adam
from vit_scaling.optimization.momentum import Momentum

CASES = {
    "adam": (lambda: Adam(1e-3), AdamOracle),
    "adam_other_betas": (
        lambda: Adam(1e-3, beta1=0.8, beta2=0.95, epsilon=1e-5),
        lambda shape: AdamOracle(shape, beta1=0.8, beta2=0.95, epsilon=1e-5),
    ),
    "momentum": (lambda: Momentum(1e-3), MomentumOracle),
    "nesterov": (
        lambda: Momentum(1e-3, nesterov=True),
        lambda shape: MomentumOracle(shape, nesterov=True),
    ),
    "adafactor": (lambda: Adafactor(1e-3), AdafactorOracle),
    "adafactor_original": (
        lambda: Adafactor(
            1e-3,
            momentum=None,
            beta2_cap=None,
            clipping_threshold=1.0,
            scale_by_parameters=True,
            least_factored=4,
        ),
        lambda shape: AdafactorOracle(
            shape, momentum=None, cap=None, clip=1.0, scale=True, least=4
        ),
    ),
    "adafactor_low_cap": (
        lambda: Adafactor(1e-3, beta2_cap=0.7),
        lambda shape: AdafactorOracle(shape, cap=0.7),
    ),
    "adafactor_not_factored": (
        lambda: Adafactor(1e-3, factored=False),
        lambda shape: AdafactorOracle(shape, least=10**9),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_formulas_in_float64_equal_the_oracle(name):
    make, make_oracle = CASES[name]
    optimizer = make()
    for shape in SHAPES:
        oracle, weights = make_oracle(shape), weights_for(shape)
        state = {
            key: np.zeros(slot.shape) for key, slot in optimizer.slots(shape).items()
        }
        for step, gradient in enumerate(gradients_for(shape), start=1):
            # Straight through `direction`: no variable, no rounding, float64.
            direction, new = optimizer.direction(
                gradient, state, weights, np.float64(step)
            )
            state = {key: np.asarray(value) for key, value in new.items()}
            expected = oracle.direction(gradient, weights)
            np.testing.assert_allclose(direction, expected, rtol=1e-12, atol=1e-12)
            assert set(state) == set(oracle.state)
            for key, value in oracle.state.items():
                assert state[key].dtype == np.float64
                np.testing.assert_allclose(state[key], value, rtol=1e-12, atol=1e-12)
