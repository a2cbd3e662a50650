"""Fit a surface L(N, D) to runs, with bootstrap intervals (Hoffmann et al. 2022)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from vit_scaling.naming import check_known, unknown_name_message
from vit_scaling.scaling.laws.blas_threads import one_blas_thread
from vit_scaling.scaling.laws.bootstrap import draw_counts
from vit_scaling.scaling.laws.runs import Floats, Runs
from vit_scaling.scaling.laws.surface_forms import SURFACES, SurfaceForm

HUBER_DELTA = 1e-3  # Of log loss: Hoffmann et al. 2022, Appendix D.3.
_RELATIVE = 1e-2  # Log loss over which squares are taken.
_STEP = 1e-6  # Of central differences.


@dataclasses.dataclass(frozen=True)
class Surface:
    """A fitted surface, or its resamples.

    Attributes:
        form: Key of `SURFACES`.
        coefficients: Internal coefficients, shape (…, coefficients).
        centre: Means of log N and of log D of the fitted runs.
    """

    form: str
    coefficients: Floats
    centre: tuple[float, float]

    @property
    def values(self) -> Floats:
        """Coefficients as published, of the shape of `coefficients`."""
        return SURFACES[self.form].published(self.coefficients, *self.centre)

    def loss_at(
        self,
        parameters: npt.ArrayLike,
        examples: npt.ArrayLike,
        unique: npt.ArrayLike | None = None,
    ) -> Floats:
        """Return the loss, shape (…, points) for the coefficients' leading axes.

        Args:
            parameters: N, shape (points,).
            examples: D, shape (points,).
            unique: Different examples; None: all are different.
        """
        logs = [np.log(np.atleast_1d(values)) for values in (parameters, examples)]
        if unique is not None:
            logs.append(np.minimum(np.log(np.atleast_1d(unique)), logs[1]))
        return np.exp(self.log_loss_at(*logs))

    def log_loss_at(
        self,
        log_parameters: Floats,
        log_examples: Floats,
        log_unique: Floats | None = None,
    ) -> Floats:
        """Return the logarithm of `loss_at`, of logarithms."""
        n, d = log_parameters - self.centre[0], log_examples - self.centre[1]
        u = d if log_unique is None else log_unique - self.centre[1]
        return SURFACES[self.form].log_law(self.coefficients, n, d, u)


@dataclasses.dataclass(frozen=True)
class SurfaceFit:
    """The result of `fit_surface`.

    Attributes:
        surface: The fitted law.
        samples: The law on each resample, or None.
        runs: The runs that were fitted.
        left_out: Runs left out as outliers.
        rms_log_error: Root mean square of log(law) - log(loss).
        converged: Whether the optimizer reached a minimum inside the bounds.
    """

    surface: Surface
    samples: Surface | None
    runs: Runs
    left_out: Runs | None
    rms_log_error: float
    converged: bool


class SurfaceProblem:
    """The loss of a form on runs, and its gradient.

    Args:
        form: The form.
        parameters: N of the runs, in any unit, shape (runs,).
        examples: D of the runs.
        loss: Their losses.
        unique: Different examples; None: all are different.
        delta: Where Huber's loss of log loss turns linear; None: squares.
    """

    def __init__(
        self,
        form: SurfaceForm,
        parameters: Floats,
        examples: Floats,
        loss: Floats,
        *,
        unique: Floats | None = None,
        delta: float | None = HUBER_DELTA,
    ) -> None:
        self.form, self.delta = form, delta
        log_n, log_d = np.log(parameters), np.log(examples)
        self.centre = (float(log_n.mean()), float(log_d.mean()))
        self.n, self.d = log_n - self.centre[0], log_d - self.centre[1]
        log_u = log_d if unique is None else np.log(unique)
        self.unique = np.minimum(log_u - self.centre[1], self.d)
        self.loss, self.log_loss = loss, np.log(loss)

    def starts(self) -> Iterator[Floats]:
        """Return the form's starts for these runs."""
        return self.form.starts(self.n, self.d, self.loss)

    def objective(self, c: Floats, weight: Floats) -> tuple[float, Floats]:
        """Return the weighted loss of the fit and its gradient.

        Both losses are near 1 per run at a relative error of 1 %: the optimizer's
        tolerances are absolute.
        """
        residual = self._log_law(c) - self.log_loss
        if self.delta is None:
            cost, slope = (residual / _RELATIVE) ** 2 / 2, residual / _RELATIVE**2
        else:
            z = residual / self.delta
            size = np.abs(z)
            cost = np.where(size < 1, z**2 / 2, size - 0.5)
            slope = np.clip(z, -1, 1) / self.delta
        return float(weight @ cost), self._jacobian(c) @ (weight * slope)

    def _log_law(self, c: Floats) -> Floats:
        return self.form.log_law(c, self.n, self.d, self.unique)

    def _jacobian(self, c: Floats) -> Floats:
        if self.form.jacobian is not None:
            return self.form.jacobian(c, self.n, self.d, self.unique)
        steps = _STEP * np.eye(len(c))
        return (self._log_law(c + steps) - self._log_law(c - steps)) / (2 * _STEP)

    def minimize(self, start: Floats, weight: Floats) -> tuple[float, Floats, bool]:
        """Return the cost at the minimum, the coefficients and whether it is one."""
        from scipy.optimize import minimize

        low, high = np.array(self.form.lower), np.array(self.form.upper)
        result = minimize(
            self.objective,
            np.clip(start, low, high),
            args=(weight,),
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(low, high, strict=True)),
            options={"maxiter": 2000, "maxfun": 4000, "ftol": 1e-13, "maxcor": 20},
        )
        inside = ((result.x > low + 1e-6) & (result.x < high - 1e-6)).all()
        return float(result.fun), result.x, bool(inside)

    def minimize_from(
        self, starts: Iterable[Floats], weight: Floats
    ) -> tuple[float, Floats, bool]:
        """Return the best result of `minimize` over several starts."""
        with one_blas_thread():
            results = [self.minimize(start, weight) for start in starts]
        return min(results, key=lambda result: result[0])


def fit_surface(
    runs: Runs,
    *,
    form: str = "chinchilla",
    loss: str = "huber",
    leave_out_largest: int = 0,
    resamples: int = 1000,
    seed: int = 0,
) -> SurfaceFit:
    """Fit L(N, D) to all runs; there is no frontier.

    Args:
        runs: Runs of one metric with parameters and examples.
        form: Key of `SURFACES`.
        loss: "huber" (delta 0.001 of log loss, Hoffmann et al. 2022) or "squared".
        leave_out_largest: Number of runs with the largest losses to leave out as
            outliers: five of Hoffmann et al.'s runs in Besiroglu et al. 2024.
        resamples: Bootstraps; checkpoints of one training run are drawn together.
        seed: Seed of the resampling.

    Raises:
        ValueError: A name is unknown, or the runs lack sizes or are too few.
    """
    if form not in SURFACES:
        raise ValueError(unknown_name_message("surface", form, SURFACES))
    check_known("loss", loss, ("huber", "squared"))
    runs, left_out = _leave_out(runs.of_metric(None), leave_out_largest)
    _check_runs(runs, SURFACES[form])
    delta = HUBER_DELTA if loss == "huber" else None
    problem = problem_of(form, runs, delta)
    draws = draw_counts(runs.clusters, resamples, seed) * runs.weight
    _, best, converged = problem.minimize_from(problem.starts(), runs.weight)
    drawn = [problem.minimize_from([best], draw)[1] for draw in draws]
    surface = Surface(form, best, problem.centre)
    samples = Surface(form, np.array(drawn), problem.centre) if drawn else None
    rms = float(np.sqrt(np.average(log_residuals(surface, runs) ** 2,
                                   weights=runs.weight)))  # fmt: skip
    return SurfaceFit(surface, samples, runs, left_out, rms, converged)


def problem_of(
    form: str, runs: Runs, delta: float | None = HUBER_DELTA
) -> SurfaceProblem:
    """Return the problem of fitting a form to runs with parameters and examples."""
    values = runs.parameters, runs.images_seen, runs.error
    unique = unique_examples(runs)
    return SurfaceProblem(SURFACES[form], *values, unique=unique, delta=delta)


def log_residuals(surface: Surface, runs: Runs) -> Floats:
    """Return log(law) - log(loss) of runs, shape (runs,)."""
    law = surface.loss_at(runs.parameters, runs.images_seen, unique_examples(runs))
    return np.asarray(np.log(law) - np.log(runs.error))


def unique_examples(runs: Runs) -> Floats:
    """Return the different examples of every run; all it saw where not known."""
    return np.array([run.data_size or run.images_seen or np.nan for run in runs])


def _leave_out(runs: Runs, count: int) -> tuple[Runs, Runs | None]:
    if not 0 <= count < len(runs):
        raise ValueError(
            f"`leave_out_largest` must be between 0 and {len(runs) - 1}; received "
            f"{count} (--leave_out_largest)."
        )
    if not count:
        return runs, None
    order = np.argsort(runs.error, kind="stable")
    return runs.take(sorted(order[:-count])), runs.take(sorted(order[-count:]))


def _check_runs(runs: Runs, form: SurfaceForm) -> None:
    for values, field, flag in (
        (runs.parameters, "number of parameters", "--size_column"),
        (runs.images_seen, "number of examples", "--examples_column"),
    ):
        missing = np.flatnonzero(np.isnan(values))
        if len(missing):
            raise ValueError(
                f"A surface needs the {field} of every run; {len(missing)} of "
                f"{len(runs)} have none, the first is "
                f"{runs.rows[missing[0]].source!r}. Name the column with {flag}, or "
                "leave rows out with --where."
            )
    if runs.error.min() <= 0:
        raise ValueError(
            "A loss of 0 has no logarithm. Leave the row out with --where."
        )
    needed = len(form.names) + 1
    if len(runs) < needed:
        raise ValueError(
            f"Too few runs: {form.formula} has {len(form.names)} coefficients, so it "
            f"needs at least {needed} runs; received {len(runs)}."
        )
    if "R_D" in form.names and not (runs.images_seen > unique_examples(runs)).any():
        raise ValueError(
            "The form 'repetition' needs runs that saw their data several times; every "
            "run saw at most as many examples as are different. Name the column with "
            "their number with --data_size_column, or fit 'chinchilla'."
        )
    for values, name in ((runs.parameters, "size"), (runs.images_seen, "examples")):
        if len(set(values)) < 3:
            raise ValueError(
                f"All runs have nearly the same {name}: a surface needs at least three "
                f"different values (--{name}_column)."
            )
