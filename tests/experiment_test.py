"""An experiment checks its settings and knows its schedule, before it is built."""
# SPDX-License-Identifier: Apache-2.0

import functools

import pytest

from tests.training import small
from vit_scaling.experiment import check_batch, check_best_metric
from vit_scaling.modeling.vit import vit
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


@pytest.mark.parametrize("batch_size", [0, -4, "8", 8.0, True])
def test_a_batch_must_be_a_positive_integer(batch_size):
    message = rf"`batch_size` must be an integer of at least 1; received {batch_size!r}"
    with pytest.raises(ValueError, match=message):
        check_batch(batch_size, small.mirrored(4))
    with pytest.raises(ValueError, match=message):
        small.experiment(batch_size=batch_size)


def test_a_batch_that_replicas_cannot_share_is_rejected():
    with pytest.raises(ValueError, match=r"`batch_size`.*4 replicas.* 6\."):
        check_batch(6, small.mirrored(4))
    with pytest.raises(
        ValueError, match=r"4 replicas.* times `micro_batches` = 3; .*8"
    ):
        check_batch(8, small.mirrored(4), micro_batches=3)
    check_batch(8, small.mirrored(4))
    check_batch(24, small.mirrored(4), micro_batches=3)


@pytest.mark.parametrize("metric", ["eval/top2", "evla/top1", "eval", "top1", "few"])
def test_a_metric_that_nothing_will_measure_is_rejected_before_training(metric):
    with pytest.raises(ValueError, match=r"`best_metric` must be eval/top1, .*few/…"):
        check_best_metric(metric, ["eval"], ["few"])


@pytest.mark.parametrize("metric", [None, "eval/top1", "eval/loss", "few/anything"])
def test_a_metric_that_something_measures_passes(metric):
    check_best_metric(metric, ["eval"], ["few"])


def test_no_metric_is_best_where_nothing_is_evaluated():
    with pytest.raises(ValueError, match="nothing is evaluated"):
        check_best_metric("eval/top1", (), ())


def test_a_model_without_the_logits_of_the_data_is_rejected_before_training():
    message = r"`make_model` must .* \(None, 10\); received \(None, 7\)"
    with pytest.raises(ValueError, match=message):
        small.experiment(make_model=lambda: small.linear(7)).build_model()
    tokens = functools.partial(vit, small.SHAPE, "none", image_size=8, classes=10)
    with pytest.raises(ValueError, match=r"received \(None, 4, 10\).* HEAD = 'map'"):
        small.experiment(make_model=tokens).build_model()


def test_evaluation_images_have_the_range_of_training_images():
    """Nothing else would notice: the shapes are equal."""
    made = small.experiment()
    for value_range in ((-1.0, 1.0), ((-1.0,) * 3, (1.0,) * 3)):
        made.eval_data.value_range = value_range
        made.check(make_strategy(), RunOptions())
    made.eval_data.value_range = (0.0, 1.0)
    with pytest.raises(ValueError, match=r"`value_range` of .* 'eval' must be that"):
        made.check(make_strategy(), RunOptions())
