"""An experiment checks its settings and knows its schedule, before it is built."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.training import small
from vit_scaling.optimization.learning_rate_schedules import ReciprocalSqrt
from vit_scaling.training.evaluator import InLoopEvaluator
from vit_scaling.training.options import RunOptions
from vit_scaling.training.strategy import make_strategy


def test_a_schedule_in_epochs_knows_the_size_of_the_data():
    schedule = ReciprocalSqrt(
        1e-2, total_steps=("epochs", 3), warmup_steps=0, cooldown_steps=("percent", 10)
    )
    made = small.experiment(schedule=schedule, batch_size=20)
    assert made.schedule_in_steps().total_steps == 3 * 200 // 20


class Unable(InLoopEvaluator):
    """An evaluator that cannot run."""

    name, interval_steps = "unable", 1

    def check(self):
        raise ValueError("too few images")


def test_evaluators_are_checked_only_if_they_will_run():
    made = small.experiment(evaluators=[Unable()])
    made.check(make_strategy(), RunOptions(evaluate=False))
    with pytest.raises(ValueError, match="too few images"):
        made.check(make_strategy(), RunOptions())


def test_a_best_metric_needs_an_evaluation():
    options = RunOptions(best_metric="eval/top1", evaluate=False)
    with pytest.raises(ValueError, match="nothing is evaluated"):
        small.experiment().check(make_strategy(), options)


def test_a_single_evaluation_set_is_called_eval():
    made = small.experiment()
    assert made.eval_sets() == {"eval": made.eval_data}
    assert small.experiment(eval_data=None).eval_sets() == {}
