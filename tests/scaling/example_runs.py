"""Runs made from known laws, for the tests of scaling."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np

from vit_scaling.modeling.shapes import shape_named
from vit_scaling.scaling.laws.power_law import PowerLaw
from vit_scaling.scaling.laws.runs import Run, Runs

LAW = PowerLaw(a=0.63, b=0.32, c=0.12, d=0.5)


def runs_on_law(law=LAW, *, count=40, noise=0.0, seed=0, low=0.3, high=2e4):
    """Return runs on a law, with log-normal noise of standard deviation `noise`."""
    generator = np.random.default_rng(seed)
    compute = np.sort(np.exp(generator.uniform(np.log(low), np.log(high), count)))
    error = law.error_at(compute) * np.exp(noise * generator.standard_normal(count))
    return Runs(
        tuple(
            Run(f"m{k}", float(c), float(e))
            for k, (c, e) in enumerate(zip(compute, error, strict=True))
        )
    )


def grid_of_runs():
    """Return a small study: three models, two data sizes, three durations."""
    rows = []
    for model, size, floor in (
        ("Ti/16", 1, 0.40),
        ("B/32", 4, 0.25),
        ("L/16", 40, 0.1),
    ):
        for data in (1e6, 1e8):
            for images in (1e6, 1e7, 1e8):
                gain = 0.3 if data == 1e6 and model == "L/16" else 0.0
                error = floor + gain * (images / 1e8) + 0.5 * (images / 1e6) ** -0.4
                rows.append(
                    Run(
                        model,
                        size * images / 1e6,
                        min(error, 1.0),
                        data_size=data,
                        images_seen=images,
                        shape=shape_named(model),
                    )
                )
    return Runs(tuple(rows))


# E + A/N^alpha + B/D^beta of Besiroglu et al. 2024.
SURFACE = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}


def surface_loss(n, d):
    """Return the loss of `SURFACE`, written out from the paper."""
    return (
        SURFACE["E"]
        + SURFACE["A"] / n ** SURFACE["alpha"]
        + SURFACE["B"] / d ** SURFACE["beta"]
    )


def runs_on_surface(*, loss=surface_loss, noise=0.0, seed=0, unique=None):
    """Return a grid of sizes and budgets on a surface, with log-normal noise."""
    generator = np.random.default_rng(seed)
    rows = []
    for compute in np.geomspace(1e19, 1e22, 8):
        for n in np.geomspace(5e7, 2e9, 7) * (compute / 1e19) ** 0.4:
            d = compute / (6 * n)
            value = loss(n, d) * np.exp(noise * generator.standard_normal())
            rows.append(
                Run(
                    f"{n:.3g}",
                    compute,
                    float(value),
                    compute_unit="flops",
                    data_size=unique,
                    images_seen=d,
                    target="loss",
                    parameters=n,
                )
            )
    return Runs(tuple(rows))
