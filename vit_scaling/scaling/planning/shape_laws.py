"""Shape laws: growth of width, depth and MLP with compute (arXiv 2305.13035)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import itertools
import math
from collections.abc import Mapping

import numpy as np

from vit_scaling.checks import check_above
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.scaling.laws.runs import Floats

# Exponents for image classification, rounded as in "Getting ViT in Shape".
CLASSIFICATION = {"width": 0.22, "depth": 0.45, "mlp_width": 0.60}


@dataclasses.dataclass(frozen=True)
class ShapeLaw:
    """Error as a function of one dimension x and compute t, all else fixed.

    f(x, t) = α x^-a + (β x^b + ξ) t^-c + ε. For a given t it has one minimum in x,
    which grows as t^s with s = c/(a + b).

    Attributes:
        alpha: Cost of a small dimension.
        a: Its exponent.
        beta: Cost of a large dimension, per compute.
        b: Its exponent.
        xi: Reduction by compute that does not depend on the size.
        c: Exponent of compute.
        epsilon: Irreducible error.
        converged: Whether the fit converged; otherwise the numbers are meaningless.
        rms_relative_error: Root mean square relative error of the fit.
    """

    alpha: float
    a: float
    beta: float
    b: float
    xi: float
    c: float
    epsilon: float
    converged: bool
    rms_relative_error: float

    @property
    def exponent(self) -> float:
        """The exponent s = c/(a + b): the best dimension grows as compute^s."""
        self._check()
        return self.c / (self.a + self.b)

    def best(self, compute: float) -> float:
        """Return the best size of the dimension at `compute`."""
        self._check()
        ratio = self.alpha * self.a * compute**self.c / (self.beta * self.b)
        return float(ratio ** (1 / (self.a + self.b)))

    def _check(self) -> None:
        if not self.converged:
            raise RuntimeError(
                "The shape law did not converge because the sweep has no minimum over "
                "this dimension. Widen its grid, or add durations."
            )


def fit_shape_law(size: Floats, compute: Floats, error: Floats) -> ShapeLaw:
    """Fit one arm of a star sweep: one dimension varied, at several durations.

    Args:
        size: Value of the dimension in each run, shape (runs,).
        compute: Compute of each run, any unit, shape (runs,).
        error: Error of each run as a fraction, shape (runs,).

    Raises:
        ValueError: Lengths differ, a value is not positive, or there are fewer than 8
            runs, 3 sizes or 2 computes.
    """
    from scipy.optimize import least_squares

    size, compute, error = (np.asarray(v, float) for v in (size, compute, error))
    _check_arm(size, compute, error)
    x0, t0 = np.exp(np.log(size).mean()), np.exp(np.log(compute).mean())
    x, t = np.log(size / x0), np.log(compute / t0)

    def model(p: Floats) -> Floats:
        alpha, a, beta, b, xi, c = np.exp(p[:6])
        return np.asarray(
            alpha * np.exp(-a * x) + (beta * np.exp(b * x) + xi) * np.exp(-c * t) + p[6]
        )

    level = float(error.min())
    lower, upper = [-25.0] * 6 + [0.0], [3.0] * 6 + [level]
    fits = []
    for a, b, c, fraction in itertools.product(
        (0.4, 1), (0.4, 1), (0.3, 0.8), (0.1, 0.4)
    ):
        part = np.log(level * fraction)
        start = [part, np.log(a), part, np.log(b), part, np.log(c), level * 0.3]
        fits.append(
            least_squares(
                lambda p: model(p) / error - 1,
                start,
                bounds=(lower, upper),
                x_scale="jac",
                max_nfev=2000,
            )
        )
    best = min(fits, key=lambda result: result.cost)
    alpha, a, beta, b, xi, c = map(float, np.exp(best.x[:6]))
    inside = min(alpha, a, beta, b, c) > 1e-6
    return ShapeLaw(
        alpha=float(alpha * x0**a),
        a=a,
        beta=float(beta * x0**-b * t0**c),
        b=b,
        xi=float(xi * t0**c),
        c=c,
        epsilon=float(best.x[6]),
        converged=bool(best.status > 0 and inside),
        rms_relative_error=float(np.sqrt(2 * best.cost / len(error))),
    )


def _check_arm(size: Floats, compute: Floats, error: Floats) -> None:
    if not size.shape == compute.shape == error.shape or size.ndim != 1:
        raise ValueError(
            "`size`, `compute` and `error` must be lists of equal length; received "
            f"shapes {size.shape}, {compute.shape} and {error.shape}."
        )
    if min(size.min(), compute.min(), error.min()) <= 0:
        raise ValueError("`size`, `compute` and `error` must be above 0.")
    sizes, computes = len(set(size)), len(set(compute))
    if len(size) < 8 or sizes < 3 or computes < 2:
        raise ValueError(
            "A shape law has seven coefficients and needs at least 8 runs over 3 sizes "
            f"and 2 computes; received {len(size)} runs, {sizes} sizes and {computes} "
            "computes."
        )


def scale_shape(
    shape: ViTShape,
    factor: float,
    *,
    exponents: Mapping[str, float] | None = None,
    multiple: int = 16,
) -> ViTShape:
    """Return `shape` for `factor` times the compute.

    Compute grows in three equal parts, one per dimension: dimension k grows by
    factor^(s_k/3), which is 2.65 times the parameters for 10 times the compute (the
    authors say about 2.5).

    Args:
        shape: The best shape for the available compute.
        factor: Above 0; below 1 shrinks the shape.
        exponents: s_k by dimension; default `CLASSIFICATION`.
        multiple: The MLP's width is rounded to a multiple of this; the width to a
            multiple of this and of the heads.

    Raises:
        ValueError: `factor` is not above 0.
    """
    check_above(0, factor=factor)
    exponents = CLASSIFICATION if exponents is None else exponents
    grown = {
        name: getattr(shape, name) * factor ** (exponent / 3)
        for name, exponent in exponents.items()
    }

    def rounded(value: float, step: int) -> int:
        return max(round(value / step), 1) * step

    return dataclasses.replace(
        shape,
        width=rounded(grown["width"], math.lcm(multiple, shape.heads)),
        depth=rounded(grown["depth"], 1),
        mlp_width=rounded(grown["mlp_width"], multiple),
    )
