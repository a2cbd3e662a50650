"""What all optimizers share: reduce, check, clip, update, decay, average, measure.

A subclass writes two short methods: `slots`, the arrays it keeps for a weight, and
`direction`, a pure formula. Everything that depends on replicas stands here, once.
"""
# SPDX-License-Identifier: Apache-2.0

import functools
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import keras
import tensorflow as tf

from vit_scaling.backend import require_tensorflow
from vit_scaling.optimization import averaging
from vit_scaling.optimization.configuration import constructor_config
from vit_scaling.optimization.schedule import Schedule
from vit_scaling.optimization.state_size import Shape, Slots
from vit_scaling.optimization.tensors import (
    global_norm,
    squares_of,
    state_variable,
    sum_over_replicas,
)
from vit_scaling.optimization.weight_decay import checked_rules, value_for

require_tensorflow()

Tensors = dict[str, Any]


class Optimizer(keras.Optimizer):
    """The frame of a step, the same for every optimizer and number of replicas.

    The step s (0-based) of `apply`, with lr = schedule(s):

        g = sum of the gradients over replicas
        skip the step if a gradient is not finite         (`skip_nonfinite`)
        g = g · min(1, clip_norm / |g|)                   (`clip_norm`; all weights)
        u, state = direction(g, state, w, t)              (the subclass; t = 1, 2, …)
        w = w - lr · multiplier · (u + strength · w)      (`weight_decay`, by path)
        average = d · average + (1 - d) · w               (`average_decay`)

    Call it in replica context with gradients of the loss divided by the number of
    replicas. Keras' own clipping would come before the sum, replica by replica.

    Args:
        learning_rate: A schedule, or a float.
        weight_decay: Rules ((regex over the variable's path, strength), …); the first
            that matches the whole path wins, no match means no decay. A strength is as
            the paper writes it (3.0, 0.03): multiplied by the variable's learning rate.
        absolute_weight_decay: If true, a strength multiplies only the schedule,
            lr / base, as in the authors' code (0.03 · 8e-4): another base rate, or a
            multiplier, leaves the decay as it is.
        clip_norm: Largest global norm of the gradients; None does not clip.
        skip_nonfinite: If true, a step with a gradient that is not finite leaves
            weights, state and averages as they were. It counts in the schedule, not in
            t. If false it goes through. `diagnostics["nonfinite_steps"]` counts it in
            either case, so that the caller can stop.
        learning_rate_multipliers: Rules ((regex, factor), …), default factor 1. A
            factor of 0 freezes: no state, no decay, no part in the norms.
        average_decay: Decay of the Polyak average of the weights, such as 0.9999; None
            keeps no average.
        average_warmup_steps: Steps with the average a copy (see `averaging`).
        measure: Whether to measure the norms of updates and weights; the
            gradient's is always measured.
        name: First part of the state variables' paths; keep it fixed, since checkpoints
            are keyed by them.

    Attributes:
        diagnostics: Scalars of the last step: gradient_norm (before clipping),
            update_norm (of the change of the weights), parameter_norm (after the
            update), and nonfinite_steps, the count since the beginning.

    References:
        Zhai et al. 2022, §3.1, §3.4, Appendices B and C.
    """

    measured: ClassVar[tuple[str, ...]] = (
        "gradient_norm",
        "update_norm",
        "parameter_norm",
        "nonfinite_steps",
    )

    def __init__(
        self,
        learning_rate: float | Schedule,
        *,
        weight_decay: Iterable[tuple[str, float]] | None,
        absolute_weight_decay: bool,
        clip_norm: float | None,
        skip_nonfinite: bool,
        learning_rate_multipliers: Iterable[tuple[str, float]] | None,
        average_decay: float | None,
        average_warmup_steps: int,
        measure: bool,
        name: str,
    ) -> None:
        super().__init__(learning_rate, name=name)
        if isinstance(learning_rate, Schedule) and not learning_rate.resolved:
            learning_rate(0)  # Says which lengths are not in steps.
        if clip_norm is not None and not clip_norm > 0:
            raise ValueError(
                f"`clip_norm` must be above 0, or None for no clipping; received "
                f"{clip_norm!r}."
            )
        averaging.check(average_decay, average_warmup_steps)
        self.weight_decay = checked_rules("weight_decay", weight_decay)
        self.absolute_weight_decay = bool(absolute_weight_decay)
        self.clip_norm = clip_norm
        self.skip_nonfinite = bool(skip_nonfinite)
        self.learning_rate_multipliers = checked_rules(
            "learning_rate_multipliers", learning_rate_multipliers
        )
        self.average_decay = average_decay
        self.average_warmup_steps = average_warmup_steps
        self.measure = bool(measure)
        self._base_learning_rate = _base_of(learning_rate)
        self.diagnostics = {
            key: self._scalar(key)
            for key in self.measured
            if measure or key not in ("update_norm", "parameter_norm")
        }

    def slots(self, shape: Shape) -> Slots:
        """Return the arrays kept for a weight of `shape`, by name."""
        raise NotImplementedError(f"{type(self).__name__} must define `slots`.")

    def direction(
        self, gradient: Any, state: Tensors, weights: Any, step: Any
    ) -> tuple[Any, Tensors]:
        """Return the direction to subtract and the new state, as a pure formula.

        Args:
            gradient: Gradient, clipped, float32 (or float64 for such a weight).
            state: The slots' values, raised to the gradient's dtype.
            weights: The weight's value.
            step: Number of this update, a scalar tensor: 1 for the first.

        Returns:
            The direction and the new state, both unrounded; the state is then stored in
            its slots' dtypes, and the direction made from the unrounded values.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `direction`.")

    def averages(self, variables: Sequence[Any]) -> list[Any] | None:
        """Return the averages of `variables`, or None if none are kept.

        A frozen variable, which does not change, stands for its own average.

        Raises:
            ValueError: The optimizer is not built, or was built for other variables.
        """
        if self.average_decay is None:
            return None
        if not self.built:
            raise ValueError("Averages exist after `optimizer.build(variables)`.")
        self._check_variables_are_known(variables)
        state = [self._state[self._get_variable_index(v)] for v in variables]
        return [
            variable if kept is None else kept["average"]
            for variable, kept in zip(variables, state, strict=True)
        ]

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **constructor_config(self),
            "learning_rate": super().get_config()["learning_rate"],
        }

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the state of `variables`; done by the first `apply` if not before.

        Build before restoring a checkpoint, so that there is something to restore.

        Raises:
            ValueError: Two variables have the same path.
        """
        if self.built:
            return
        variables = list(variables)
        paths = [variable.path for variable in variables]
        repeated = sorted({path for path in paths if paths.count(path) > 1})
        if repeated:
            raise ValueError(
                "Variables must have different paths, since rules and checkpoints go "
                f"by them; received more than one of {', '.join(repeated)}. Give the "
                "layers different names."
            )
        super().build(variables)
        rates = self.learning_rate_multipliers
        self._multipliers = [value_for(path, rates, default=1.0) for path in paths]
        self._strengths = [
            value_for(path, self.weight_decay, default=0.0) for path in paths
        ]
        self._state = [
            self._make_state(variable) if multiplier else None
            for variable, multiplier in zip(variables, self._multipliers, strict=True)
        ]

    def _make_state(self, variable: keras.Variable) -> dict[str, keras.Variable]:
        state = {
            slot: self._variable(f"{variable.path}/{slot}", *specification)
            for slot, specification in self.slots(tuple(variable.shape)).items()
        }
        if self.average_decay is not None:
            # Outside of a step that builds as it is traced: XLA cannot lift a variable
            # out of it whose first value is another's.
            with tf.init_scope():
                state["average"] = self._variable(
                    f"{variable.path}/average",
                    variable.shape,
                    variable.dtype,
                    initializer=lambda shape, dtype: tf.cast(variable.value, dtype),
                )
        return state

    def _scalar(self, name: str) -> keras.Variable:
        return self._variable(name, (), "float32", aggregation="only_first_replica")

    def _variable(
        self,
        path: str,
        shape: Sequence[int],
        dtype: str,
        *,
        initializer: Any = "zeros",
        aggregation: str = "none",
    ) -> keras.Variable:
        variable = state_variable(
            f"{self.name}/{path}",
            shape=tuple(shape),
            dtype=dtype,
            initializer=keras.initializers.get(initializer),
            aggregation=aggregation,
        )
        self._track_variable(variable)
        return variable

    def _backend_apply_gradients(
        self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable]
    ) -> None:
        """Run one step: Keras' hook, before its own clipping and reduction."""
        indices = [self._get_variable_index(v) for v in trainable_variables]
        trained = [
            (tf.convert_to_tensor(gradient), variable, index)
            for gradient, variable, index in zip(
                grads, trainable_variables, indices, strict=True
            )
            if self._state[index] is not None
        ]
        if not trained:
            return
        gradients = sum_over_replicas([gradient for gradient, _, _ in trained])
        norm = global_norm(gradients)
        scalars = self._scalars(norm)
        squares = tf.__internal__.distribute.interim.maybe_merge_call(
            functools.partial(
                self._update_all,
                variables=[variable for _, variable, _ in trained],
                indices=[index for _, _, index in trained],
            ),
            tf.distribute.get_strategy(),
            gradients,
            scalars,
        )
        self._record(norm, squares, scalars["finite"])

    def _scalars(self, norm: Any) -> Tensors:
        """Return the numbers that all weights share in this step."""
        steps = tf.cast(self._iterations.value, tf.float32)
        if self.skip_nonfinite:
            # A skipped step made no update: bias corrections must not count it.
            steps -= self.diagnostics["nonfinite_steps"].value
        clip = 1.0
        if self.clip_norm is not None:
            clip = self.clip_norm / tf.maximum(norm, self.clip_norm)
        return {
            "learning_rate": tf.convert_to_tensor(self.learning_rate),
            "step": steps + 1.0,
            "clip": tf.convert_to_tensor(clip),
            "finite": tf.math.is_finite(norm),
        }

    def _update_all(
        self,
        distribution: tf.distribute.Strategy,
        gradients: Sequence[Any],
        scalars: Tensors,
        *,
        variables: Sequence[keras.Variable],
        indices: Sequence[int],
    ) -> Any:
        """Update every weight on every replica; return the sums of squares, or None."""
        parts = []
        for gradient, variable, index in zip(
            gradients, variables, indices, strict=True
        ):
            results = distribution.extended.update(
                variable.value,
                functools.partial(self._update_one, index),
                args=(gradient, scalars),
                group=False,
            )
            # One entry per local replica, all equal: the first will do. A single value
            # where the strategy updates without a merge call, as on GPUs under XLA.
            parts.append(results[0] if isinstance(results, tuple) else results)
        return tf.add_n(parts) if self.measure else None

    def _update_one(
        self, index: int, variable: Any, gradient: Any, scalars: Tensors
    ) -> Any:
        """Update one weight on one replica; return the squares of its change and it."""
        dtype = tf.float64 if variable.dtype == tf.float64 else tf.float32
        number = {
            key: tf.cast(scalars[key], dtype)
            for key in ("learning_rate", "step", "clip")
        }
        weights = tf.cast(variable, dtype)
        stored = {key: slot.value for key, slot in (self._state[index] or {}).items()}
        state = {key: tf.cast(value, dtype) for key, value in stored.items()}
        average = state.pop("average", None)
        gradient = tf.cast(gradient, dtype)
        if self.clip_norm is not None:
            gradient = gradient * number["clip"]
        direction, new = self.direction(gradient, state, weights, number["step"])
        change = self._change(index, direction, weights, number["learning_rate"])
        updated = weights - change
        if average is not None and self.average_decay is not None:
            share = averaging.kept_share(
                number["step"], self.average_decay, self.average_warmup_steps
            )
            new["average"] = share * average + (1.0 - share) * updated
        for target, value in [(variable, updated)] + [
            (stored[key], value) for key, value in new.items()
        ]:
            value = tf.cast(value, target.dtype)
            if self.skip_nonfinite:
                value = tf.where(scalars["finite"], value, target)
            target.assign(value)
        return squares_of(change, updated) if self.measure else tf.zeros(2)

    def _change(self, index: int, direction: Any, weights: Any, rate: Any) -> Any:
        """Return what to subtract: direction and decay, times their rates."""
        multiplier, strength = self._multipliers[index], self._strengths[index]
        if not strength:
            return rate * multiplier * direction
        if self.absolute_weight_decay:
            schedule = rate / self._base_learning_rate
            return rate * multiplier * direction + schedule * strength * weights
        return rate * multiplier * (direction + strength * weights)

    def _record(self, norm: Any, squares: Any, finite: Any) -> None:
        diagnostics = self.diagnostics
        diagnostics["gradient_norm"].assign(norm)
        diagnostics["nonfinite_steps"].assign_add(1.0 - tf.cast(finite, tf.float32))
        if squares is not None:
            diagnostics["update_norm"].assign(tf.sqrt(squares[0]))
            diagnostics["parameter_norm"].assign(tf.sqrt(squares[1]))


def _base_of(learning_rate: Any) -> float:
    """Return the base rate of what Keras takes as one, not of the variable it makes.

    That variable has a copy on every replica, and so no single value to read.
    """
    if isinstance(learning_rate, Schedule):
        return float(learning_rate.base_learning_rate)
    if isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        return float(learning_rate(0))
    return float(learning_rate() if callable(learning_rate) else learning_rate)
