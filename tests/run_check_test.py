"""What an evaluation needs is checked before the first step, not at its first one."""
# SPDX-License-Identifier: Apache-2.0

import types

import numpy as np
import pytest

from tests.training import small
from vit_scaling import runs
from vit_scaling.evaluation.evaluators import FewShot, FewShotSet, MappedAccuracy
from vit_scaling.evaluation.label_maps import same_classes
from vit_scaling.training.options import RunOptions
from vit_scaling.training.strategy import make_strategy

IMAGES, LABELS = small.digits()


def part(images=IMAGES[:60], labels=LABELS[:60], names=None):
    """Return a part of a few-shot set; `classes` as `EvalData` has it."""
    data = small.EvalArrays(images, labels)
    data.classes = labels.shape[1]
    data.source = types.SimpleNamespace(class_names=names)
    return data


def few_shot(train=None, test=None, **options):
    parts = FewShotSet("pets", train or part(), test or part())
    options = {"layer": "flat", "shots": [1], "interval_steps": 6, **options}
    return FewShot([parts], **options)


def mapped(classes):
    return MappedAccuracy(
        part(labels=np.eye(classes, dtype=np.float32)[:2], images=IMAGES[:2]),
        same_classes(classes),
        name="v2",
        interval_steps=6,
    )


LARGE = np.zeros([60, 9, 9, 3], np.float32)
TWO_LABELS = np.ones([60, 10], np.float32)
SEVEN = LABELS[:60, :7]
TYPO = {"best_metric": "fewshot/pets_2shot"}
FAULTS = {
    "evaluation classes": ({"eval_data": small.EvalArrays(IMAGES[:60], SEVEN)}, {}),
    "evaluation size": ({"eval_data": small.EvalArrays(LARGE, LABELS[:60])}, {}),
    "layer": ({"evaluators": [few_shot(layer="pre_logit")]}, {}),
    "few-shot classes": ({"evaluators": [few_shot(test=part(labels=SEVEN))]}, {}),
    "few-shot size": ({"evaluators": [few_shot(test=part(LARGE))]}, {}),
    "few-shot labels": ({"evaluators": [few_shot(part(labels=TWO_LABELS))]}, {}),
    "label map": ({"evaluators": [mapped(7)]}, {}),
    "best metric": ({"evaluators": [few_shot()]}, TYPO),
}  # fmt: skip
MESSAGES = {
    "evaluation classes": "the set 'eval' has images 8×8×3 of 7",
    "evaluation size": "the set 'eval' has images 9×9×3 of 10",
    "layer": "`layer` must be one of the model's; received 'pre_logit'",
    "few-shot classes": "must have the same classes; received 10 .train. and 7",
    "few-shot size": "The images of 'pets' must have the model's shape",
    "few-shot labels": "Few-shot sets must have one label per image",
    "label map": "`label_map` of 'v2' is for 7 classes; the model has 10",
    "best metric": "`best_metric` must be one of .*fewshot/pets_1shot, .*pets_2shot",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("function", [runs.train, runs.check])
def test_faults_of_the_first_evaluation_stop_a_run_before_its_first_step(
    tmp_path, fault, function
):
    changes, options = FAULTS[fault]
    made = small.experiment(**changes)
    with pytest.raises(ValueError, match=MESSAGES[fault]):
        function(
            made,
            RunOptions(**options),
            model_dir=tmp_path / "run",
            strategy=make_strategy(),
        )
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_metrics_named_before_the_first_step_are_those_measured(tmp_path):
    evaluators = [few_shot(strengths=[1024.0, 8.0], shots=[1, 3]), mapped(10)]
    model, strategy = small.linear(), make_strategy()
    for evaluator in evaluators:
        named = evaluator.check_model(model)
        assert set(named) == set(evaluator.evaluate(model, strategy))


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_check_evaluates_a_batch_of_every_set(tmp_path, replicas):
    """Faults beyond the first image are found, by each evaluator's own pass."""
    two_labels = LABELS[:60].copy()
    two_labels[3] = 1.0
    bad_loss = small.EvalArrays(IMAGES[:60].copy(), LABELS[:60])
    bad_loss.images[3] = np.nan
    faults = {
        "one label per image; received 1 images": {
            "evaluators": [few_shot(part(labels=two_labels))]
        },
        "images of 'eval' must be finite; received nan": {"eval_data": bad_loss},
    }
    strategy = make_strategy() if replicas == 1 else small.mirrored(replicas)
    for message, changes in faults.items():
        made = small.experiment(**changes)
        with pytest.raises(ValueError, match=message):
            runs.check(made, model_dir=tmp_path / "run", strategy=strategy)
    assert not (tmp_path / "run").exists()


def test_a_check_writes_nothing_and_describes_sets_and_first_batch(tmp_path, capsys):
    made = small.experiment(evaluators=[few_shot()])
    runs.check(made, model_dir=tmp_path / "run", strategy=make_strategy())
    text = capsys.readouterr().err
    batch = next(iter(made.train_data.dataset(batch_size=8, seed=0)))
    mean = np.mean(batch["images"], axis=(0, 1, 2))[0]
    assert f"train: first batch: 8 images 8×8×3, mean {mean:.3f} " in text
    first = small.EvalArrays(*(part[200:208] for part in small.digits()))
    assert f"min {first.images.min():.3f} " in text
    labels = first.labels.sum(axis=0)
    listed = ", ".join(f"{i} {n:g}" for i, n in enumerate(labels))
    assert f"eval: first labels: {listed}\n" in text
    logits = small.linear()(first.images).numpy()  # Of weights from a fixed seed.
    top1 = np.mean(logits.argmax(1) == first.labels.argmax(1))
    loss = np.log1p(np.exp(logits)) - first.labels * logits  # Sigmoid, per class.
    assert f"loss {loss.sum(1).mean():.4f}, top1 {top1:.4f}" in text
    assert "train: 200 images, 10 classes" in text
    assert "fewshot: every 6 steps; pets_1shot, " in text
    assert not (tmp_path / "run").exists()
