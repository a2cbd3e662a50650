"""The optimizers' pure formulas in float64, against the oracles, within 1e-12."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from tests.optimization.cases import SHAPES, gradients_for, weights_for
from tests.oracles.adafactor import Adafactor as AdafactorOracle
from tests.oracles.adam import Adam as AdamOracle
from tests.oracles.lion import Lion as LionOracle
from tests.oracles.momentum import Momentum as MomentumOracle
from vit_scaling.optimization.adafactor import Adafactor
from vit_scaling.optimization.adam import Adam
from vit_scaling.optimization.lion import Lion
from vit_scaling.optimization.momentum import Momentum

CASES = {
    "adam": (Adam(), AdamOracle),
    "adam_other_betas": (
        Adam(beta1=0.8, beta2=0.95, epsilon=1e-5),
        lambda shape: AdamOracle(shape, beta1=0.8, beta2=0.95, epsilon=1e-5),
    ),
    "momentum": (Momentum(), MomentumOracle),
    "nesterov": (
        Momentum(nesterov=True),
        lambda shape: MomentumOracle(shape, nesterov=True),
    ),
    "adafactor": (Adafactor(), AdafactorOracle),
    "adafactor_original": (
        Adafactor(
            momentum=None,
            beta2_cap=None,
            clipping_threshold=1.0,
            scale_by_parameters=True,
            min_size_to_factor=4,
        ),
        lambda shape: AdafactorOracle(
            shape, momentum=None, cap=None, clip=1.0, scale=True, least=4
        ),
    ),
    "adafactor_low_cap": (
        Adafactor(beta2_cap=0.7),
        lambda shape: AdafactorOracle(shape, cap=0.7),
    ),
    "adafactor_not_factored": (
        Adafactor(min_size_to_factor=None),
        lambda shape: AdafactorOracle(shape, least=10**9),
    ),
    "lion": (Lion(), LionOracle),
    "lion_other_betas": (
        Lion(beta1=0.95, beta2=0.98),
        lambda shape: LionOracle(shape, beta1=0.95, beta2=0.98),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_formulas_in_float64_equal_the_oracle(name):
    rule, make_oracle = CASES[name]
    for shape in SHAPES:
        oracle, weights = make_oracle(shape), weights_for(shape)
        state = {key: np.zeros(slot.shape) for key, slot in rule.slots(shape).items()}
        for step, gradient in enumerate(gradients_for(shape), start=1):
            # Straight through `direction`: no variable, no rounding, float64.
            direction, new = rule.direction(gradient, state, weights, np.float64(step))
            state = {key: np.asarray(value) for key, value in new.items()}
            expected = oracle.direction(gradient, weights)
            np.testing.assert_allclose(direction, expected, rtol=1e-12, atol=1e-12)
            assert set(state) == set(oracle.state)
            for key, value in oracle.state.items():
                assert state[key].dtype == np.float64
                np.testing.assert_allclose(state[key], value, rtol=1e-12, atol=1e-12)
