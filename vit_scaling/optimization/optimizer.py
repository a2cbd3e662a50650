"""The optimizer: a step around an update rule, the same for every rule and replica.

The rule gives the direction of a weight's step (`update_rule.py`); everything that
depends on replicas, the schedule, weight decay and averages is here.
"""
# SPDX-License-Identifier: Apache-2.0

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Self

import keras
import tensorflow as tf

from vit_scaling import backend
from vit_scaling.argument_types import Decay, PositiveFloat, check_arguments
from vit_scaling.backend import require_tensorflow
from vit_scaling.optimization import averaging
from vit_scaling.optimization.base_schedule import Schedule, find_base_rate
from vit_scaling.optimization.loss_scale import LossScale
from vit_scaling.optimization.path_rules import (
    check_path_rules,
    check_rules_match,
    describe_rules,
    value_for,
)
from vit_scaling.optimization.reductions import (
    GradientDtype,
    exchange_gradients,
    global_norm,
    sums_of_squares,
)
from vit_scaling.optimization.state_variables import make_state_variable
from vit_scaling.optimization.update_rule import Tensors, UpdateRule
from vit_scaling.optimization.update_rules import RULE_CLASSES
from vit_scaling.optimization.weight_decay import WeightRates, change_of

require_tensorflow()

for _rule in RULE_CLASSES:  # Here, since the rules' own modules do not import Keras.
    keras.saving.register_keras_serializable("vit_scaling")(_rule)


@keras.saving.register_keras_serializable("vit_scaling")
class Optimizer(keras.Optimizer):
    """Trains weights by an update rule, under any number of replicas.

    The step s (0-based) of `apply`, with lr = learning_rate(s):

        g = sum of the gradients over replicas            (`gradient_dtype`)
        skip the step if a gradient is not finite         (`skip_nonfinite`)
        g = g · min(1, clip_norm / |g|)                   (`clip_norm`; all weights)
        u, state = rule.direction(g, state, w, t)         (t = 1, 2, …)
        w = w - lr · multiplier · (u + strength · w)      (`weight_decay`, by path)
        average = d · average + (1 - d) · w               (`average_decay`)

    Call `apply` in replica context with gradients of the loss divided by the number of
    replicas. Keras' own clipping would precede the sum, on each replica separately.

    Args:
        rule: The update rule, such as `Adafactor()`.
        learning_rate: A schedule, or a float.
        weight_decay: Rules ((regex over the variable's path, strength), …), such as
            `weight_decay.head_and_body()`. The first that matches the whole path wins,
            no match means no decay. A strength is as the paper writes it (3.0, 0.03):
            multiplied by the variable's learning rate. Default no decay.
        absolute_weight_decay: If true, a strength multiplies only the schedule,
            lr / base, as in the authors' code (0.03 · 8e-4): the base rate and
            multipliers do not change the decay.
        clip_norm: Largest global norm of the gradients, 1.0 in the paper (App. C and
            D); default None, not clipped.
        skip_nonfinite: If true, or a `LossScale` (for float16; see `scale_loss`), a
            step with a gradient that is not finite leaves weights, state and averages
            unchanged. It counts in the schedule, not in t.
            If false it is applied. `diagnostics["nonfinite_steps"]` counts it in either
            case, so that the caller can stop.
        learning_rate_multipliers: Rules ((regex, factor), …), default factor 1. A
            factor of 0 freezes: no state, no decay, not counted in the norms.
        average_decay: Decay of the Polyak average of the weights, such as 0.9999 or
            `AverageDecay(0.9999, warmup_steps=1000)`. Default None, no average.
        gradient_dtype: Dtype in which replicas exchange gradients, see
            `exchange_gradients`: "float32" by default, or "bfloat16".

    Attributes:
        name: The rule's name, the first part of the state variables' paths. Checkpoints
            are keyed by these paths.
        diagnostics: Scalars of the last step: gradient_norm (before clipping),
            update_norm (of the change of the weights), parameter_norm (after the
            update), and nonfinite_steps, the count since the first step.

    References:
        Zhai et al. 2022, §3.1, §3.4, Appendices B and C.
    """

    measured: ClassVar[tuple[str, ...]] = (
        "gradient_norm",
        "update_norm",
        "parameter_norm",
        "nonfinite_steps",
    )

    @check_arguments
    def __init__(
        self,
        rule: UpdateRule,
        learning_rate: PositiveFloat
        | keras.optimizers.schedules.LearningRateSchedule
        | Callable[[], float],
        *,
        weight_decay: Iterable[tuple[str, float]] | None = None,
        absolute_weight_decay: bool = False,
        clip_norm: PositiveFloat | None = None,
        skip_nonfinite: bool | LossScale = False,
        learning_rate_multipliers: Iterable[tuple[str, float]] | None = None,
        average_decay: Decay | averaging.AverageDecay | None = None,
        gradient_dtype: GradientDtype = "float32",
    ) -> None:
        super().__init__(learning_rate, name=rule.name)
        if isinstance(learning_rate, Schedule) and not learning_rate.resolved:
            learning_rate(0)  # Raises, naming the lengths that are not in steps.
        self.rule = rule
        self.weight_decay = check_path_rules("weight_decay", weight_decay)
        self.absolute_weight_decay = absolute_weight_decay
        self.clip_norm = clip_norm
        self.skip_nonfinite = skip_nonfinite
        self.learning_rate_multipliers = check_path_rules(
            "learning_rate_multipliers", learning_rate_multipliers
        )
        self.average_decay = average_decay
        self.gradient_dtype = gradient_dtype
        self._average_decay = averaging.make_average_decay(average_decay)
        self._base_learning_rate = find_base_rate(learning_rate)
        self.diagnostics = {key: self._scalar(key) for key in self.measured}
        if isinstance(skip_nonfinite, LossScale):
            first = skip_nonfinite.initial
            self.diagnostics["loss_scale"] = self._scalar("loss_scale", first)
            self.diagnostics["good_steps"] = self._scalar("good_steps")

    def scale_loss(self, loss: Any) -> Any:
        """Return a loss times the loss scale, if any; `apply` takes its gradients."""
        if not isinstance(self.skip_nonfinite, LossScale):
            return loss
        return loss * tf.cast(self.diagnostics["loss_scale"].value, loss.dtype)

    def averages(self, variables: Sequence[Any]) -> list[Any] | None:
        """Return the averages of `variables`, or None if none are kept.

        The average of a frozen variable, which does not change, is the variable itself.

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
        """Return the constructor's arguments, in a form that JSON can hold."""
        serialize = keras.saving.serialize_keras_object
        return {
            "rule": serialize(self.rule),
            "learning_rate": super().get_config()["learning_rate"],
            # Plain tuples: Keras wraps those that are attributes of an optimizer.
            "weight_decay": check_path_rules("weight_decay", self.weight_decay),
            "absolute_weight_decay": self.absolute_weight_decay,
            "clip_norm": self.clip_norm,
            "skip_nonfinite": serialize(self.skip_nonfinite),
            "learning_rate_multipliers": check_path_rules(
                "learning_rate_multipliers", self.learning_rate_multipliers
            ),
            "average_decay": serialize(self.average_decay),
            "gradient_dtype": self.gradient_dtype,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> Self:
        """Return the optimizer of a configuration."""
        parts = {
            key: keras.saving.deserialize_keras_object(config[key], custom_objects)
            for key in ("rule", "average_decay", "skip_nonfinite")
        }
        return super().from_config({**config, **parts}, custom_objects)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the state of `variables`, unless it exists; `apply` calls it too.

        Build before restoring a checkpoint, which needs the variables.

        Raises:
            ValueError: Two variables have the same path, or a rule matches no variable.
        """
        if self.built:
            return
        variables = list(variables)
        paths = [variable.path for variable in variables]
        repeated = sorted({path for path in paths if paths.count(path) > 1})
        if repeated:
            raise ValueError(
                "Variables must have different paths, which rules and checkpoints use; "
                f"received more than one of {', '.join(repeated)}. Give the layers "
                "different names."
            )
        rates = self.learning_rate_multipliers
        check_rules_match("weight_decay", self.weight_decay, paths)
        check_rules_match("learning_rate_multipliers", rates, paths)
        super().build(variables)
        self._multipliers = [value_for(path, rates, default=1.0) for path in paths]
        self._strengths = [
            value_for(path, self.weight_decay, default=0.0) for path in paths
        ]
        self._state = [
            self._make_state(variable) if multiplier else None
            for variable, multiplier in zip(variables, self._multipliers, strict=True)
        ]

    def describe_rules(self, variables: Sequence[keras.Variable]) -> list[str]:
        """Return lines: how many variables and parameters each rule takes."""
        sizes = {v.path: math.prod(v.shape) for v in variables}
        decay, rates = self.weight_decay, self.learning_rate_multipliers
        lines = describe_rules("weight_decay", decay, sizes, default=0.0)
        if rates:
            name = "learning_rate_multipliers"
            lines += describe_rules(name, rates, sizes, default=1.0)
        return lines

    def _make_state(self, variable: keras.Variable) -> dict[str, keras.Variable]:
        state = {
            slot: self._variable(f"{variable.path}/{slot}", *specification)
            for slot, specification in self.rule.slots(tuple(variable.shape)).items()
        }
        if self.average_decay is not None:
            # Outside of the step, if it builds while it is traced: XLA cannot lift out
            # a variable whose initial value is another variable's.
            with tf.init_scope():
                state["average"] = self._variable(
                    f"{variable.path}/average",
                    variable.shape,
                    variable.dtype,
                    initializer=lambda shape, dtype: tf.cast(variable.value, dtype),
                )
        return state

    def _scalar(self, name: str, initial: float = 0.0) -> keras.Variable:
        first, only = keras.initializers.Constant(initial), "only_first_replica"
        return self._variable(name, (), "float32", initializer=first, aggregation=only)

    def _variable(
        self,
        path: str,
        shape: Sequence[int],
        dtype: str,
        *,
        initializer: Any = "zeros",
        aggregation: str = "none",
    ) -> keras.Variable:
        variable = make_state_variable(
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
        gradients = [gradient for gradient, _, _ in trained]
        gradients = exchange_gradients(gradients, self.gradient_dtype)
        if isinstance(self.skip_nonfinite, LossScale):
            inverse = 1.0 / self.diagnostics["loss_scale"].value
            gradients = [g * tf.cast(inverse, g.dtype) for g in gradients]
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
        """Update every weight on every replica; return the sums of squares."""
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
            # One entry per local replica, all equal. A single value where the strategy
            # updates without a merge call, as on GPUs under XLA.
            parts.append(results[0] if isinstance(results, tuple) else results)
        return tf.add_n(parts)

    def _update_one(
        self, index: int, variable: Any, gradient: Any, scalars: Tensors
    ) -> Any:
        """Update one weight on one replica; return its change's and its own squares."""
        state = {key: slot.value for key, slot in (self._state[index] or {}).items()}
        rates = WeightRates(self._multipliers[index], self._strengths[index])
        update = functools.partial(self._update_weight, rates)
        program = backend.share_program(("update", rates), update)
        return program(variable, state, gradient, scalars)

    def _update_weight(
        self,
        rates: WeightRates,
        variable: Any,
        stored: Tensors,
        gradient: Any,
        scalars: Tensors,
    ) -> Any:
        """Update a weight and its state by the rule and the weight's own rates."""
        dtype = tf.float64 if variable.dtype == tf.float64 else tf.float32
        names = ("learning_rate", "step", "clip")
        rate, step, clip = (tf.cast(scalars[name], dtype) for name in names)
        weights = tf.cast(variable, dtype)
        state = {key: tf.cast(value, dtype) for key, value in stored.items()}
        average = state.pop("average", None)
        gradient = tf.cast(gradient, dtype)
        if self.clip_norm is not None:
            gradient = gradient * clip
        direction, new = self.rule.direction(gradient, state, weights, step)
        base = self._base_learning_rate if self.absolute_weight_decay else None
        change = change_of(direction, weights, rate, rates, base_rate=base)
        updated = weights - change
        if average is not None and self._average_decay is not None:
            kept = self._average_decay.at(step)
            new["average"] = kept * average + (1.0 - kept) * updated
        pairs = [(stored[key], value) for key, value in new.items()]
        for target, value in [(variable, updated), *pairs]:
            value = tf.cast(value, target.dtype)
            if self.skip_nonfinite:
                value = tf.where(scalars["finite"], value, target)
            target.assign(value)
        return sums_of_squares(change, updated)

    def _record(self, norm: Any, squares: Any, finite: Any) -> None:
        diagnostics = self.diagnostics
        diagnostics["gradient_norm"].assign(norm)
        diagnostics["nonfinite_steps"].assign_add(1.0 - tf.cast(finite, tf.float32))
        if isinstance(self.skip_nonfinite, LossScale):
            self.skip_nonfinite.update(diagnostics, finite)
        diagnostics["update_norm"].assign(tf.sqrt(squares[0]))
        diagnostics["parameter_norm"].assign(tf.sqrt(squares[1]))
