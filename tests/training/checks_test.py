"""What does not fit together is refused, with the rule and what came."""
# SPDX-License-Identifier: Apache-2.0

import types

import pytest
import tensorflow as tf

from tests.training import small
from vit_scaling.training import checks


@pytest.mark.parametrize("batch_size", [0, -4, 6, "8", 8.0])
def test_a_batch_that_replicas_cannot_share_is_rejected(batch_size):
    message = rf"`batch_size`.*4 replicas.* {batch_size!r}\."
    with pytest.raises(ValueError, match=message):
        checks.check_batch(batch_size, small.mirrored(4))
    checks.check_batch(8, small.mirrored(4))


@pytest.mark.parametrize("metric", ["eval/top2", "evla/top1", "eval", "top1", "few"])
def test_a_metric_that_nothing_will_measure_is_rejected_before_training(metric):
    with pytest.raises(ValueError, match=r"`best_metric` must be eval/top1, .*few/…"):
        checks.check_best_metric(metric, ["eval"], ["few"])


@pytest.mark.parametrize("metric", [None, "eval/top1", "eval/loss", "few/anything"])
def test_a_metric_that_something_measures_passes(metric):
    checks.check_best_metric(metric, ["eval"], ["few"])


def test_no_metric_is_best_where_nothing_is_evaluated():
    with pytest.raises(ValueError, match="nothing is evaluated"):
        checks.check_best_metric("eval/top1", (), ())


def test_averages_that_are_not_kept_are_rejected():
    checks.check_averages(types.SimpleNamespace(average_decay=0.9))
    with pytest.raises(ValueError, match="bind the optimizer's `average_decay`"):
        checks.check_averages(types.SimpleNamespace(average_decay=None))


def test_several_workers_cannot_follow_checkpoints(monkeypatch):
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    checks.check_single_process(strategy)  # Alone it may.
    monkeypatch.setattr(strategy.extended, "_num_workers", 2)
    with pytest.raises(ValueError, match="`continuous_eval` needs one process"):
        checks.check_single_process(strategy)
