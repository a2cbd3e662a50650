"""A smooth surface finds the valley that a noisy minimum misses."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from vit_scaling.scaling.laws.error_surface import (
    envelope,
    fit_joint_surface,
    fit_valley,
)


def chinchilla(size, duration):
    return 0.1 + 0.3 * size**-0.4 + 0.4 * duration**-0.3


def chinchilla_optimum(compute):
    """Hoffmann et al. 2022, equation 4, in float64."""
    ratio = (0.4 * 0.3 / (0.3 * 0.4)) ** (1 / 0.7)
    size = ratio * compute ** (0.3 / 0.7)
    return chinchilla(size, compute / size)


def study(surface, count=300, noise=0.0, seed=0):
    generator = np.random.default_rng(seed)
    size, duration = 10 ** generator.uniform(0, 3, (2, count))
    error = surface(size, duration) * np.exp(noise * generator.standard_normal(count))
    return size * duration, size, error


def test_hoffmanns_surface_is_recovered_without_noise():
    compute, size, error = study(chinchilla)
    surface = fit_joint_surface(size, compute / size, error)
    ahead = np.array([1e3, 1e6, 1e8])
    np.testing.assert_allclose(
        envelope(surface, ahead), chinchilla_optimum(ahead), rtol=1e-4
    )
    assert surface.values[[3, 4, 5]] == pytest.approx([0.4, 0.3, 1.0], rel=0.01)


def test_runs_are_moved_to_the_best_size_of_their_compute():
    compute, size, error = study(chinchilla, noise=0.03)
    valley = fit_valley(compute, size, error)
    assert valley.noise == pytest.approx(0.03, rel=0.15)
    moved = np.log(error) - valley.excess(np.ones((1, len(error))))[0]
    off = (moved - np.log(chinchilla_optimum(compute)))[valley.inside]
    assert abs(off.mean()) < 0.005  # A minimum would be 6 % low.
    assert off.std() == pytest.approx(0.03, rel=0.2)


def test_a_run_of_no_weight_has_no_influence():
    compute, size, error = study(chinchilla, noise=0.02)
    valley = fit_valley(compute, size, error)
    weights = np.ones((1, len(error)))
    weights[0, 7] = 0
    others = np.arange(len(error)) != 7
    changed = np.where(others, error, 5 * error)
    altered = valley.__class__(**{**vars(valley), "log_error": np.log(changed)})
    np.testing.assert_allclose(
        valley.excess(weights)[0, others], altered.excess(weights)[0, others]
    )


def test_error_that_depends_on_compute_alone_has_no_valley():
    compute, size, error = study(lambda n, d: 0.1 + 0.6 * (n * d) ** -0.3, noise=0.01)
    valley = fit_valley(compute, size, error)
    assert valley.degree == 0 and valley.inside.all()
    assert not valley.excess(np.ones((2, len(error)))).any()


def test_too_few_runs_near_the_valley_are_explained():
    compute, size, error = study(lambda n, d: (n**-2 + 1 / d) ** 0.9, count=24)
    with pytest.raises(ValueError, match=r"Only \d+ of 24 runs are near .*--method"):
        fit_valley(compute, size, error)
