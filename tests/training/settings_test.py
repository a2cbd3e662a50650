"""What may change when a run resumes, and what is said of it."""
# SPDX-License-Identifier: Apache-2.0

import gin
import pytest

from vit_scaling import configurables, gin_files
from vit_scaling.training import settings

DATA = ["TRAIN_PATTERN = 'train-*'", "EVAL_PATTERN = 'test-*'"]
# Bindings, and the changes that they mean.
MAY_CHANGE = [
    (
        "include 'schedules/cosine.gin'",
        "Experiment.schedule: @ReciprocalSqrt() → @Cosine()",
    ),
    ("BASE_LEARNING_RATE = 1e-3", "BASE_LEARNING_RATE: 0.003 → 0.001"),
    ("TOTAL_STEPS = 3000", "TOTAL_STEPS: 1200 → 3000"),
    ("WARMUP_STEPS = 10", "WARMUP_STEPS: 100 → 10"),
    ("COOLDOWN_STEPS = 10", "COOLDOWN_STEPS: 600 → 10"),
    ("TIMESCALE = 10", "TIMESCALE: 400 → 10"),
    (
        "LOSS = @softmax_cross_entropy",
        "LOSS: @sigmoid_cross_entropy → @softmax_cross_entropy",
    ),
    (
        "sigmoid_cross_entropy.label_smoothing = 0.1",
        "sigmoid_cross_entropy.label_smoothing: 0.0 → 0.1",
    ),
    ("vit.dropout = 0.1", "vit.dropout: 0.0 → 0.1"),
    ("vit.stochastic_depth = 0.1", "vit.stochastic_depth: 0.0 → 0.1"),
    ("CLIP_NORM = None", "CLIP_NORM: 1.0 → None"),
    ("HEAD_WEIGHT_DECAY = 0.1", "HEAD_WEIGHT_DECAY: 0.3 → 0.1"),
    ("BODY_WEIGHT_DECAY = 0.1", "BODY_WEIGHT_DECAY: 0.03 → 0.1"),
    (
        "Optimizer.weight_decay = None",
        "Optimizer.weight_decay: @head_and_body() → None",
    ),
    ("DTYPE = 'mixed_bfloat16'", "DTYPE: 'float32' → 'mixed_bfloat16'"),
    ("MICRO_BATCHES = 2", "MICRO_BATCHES: 1 → 2"),
    ("REMATERIALIZE = 'all'", "REMATERIALIZE: 'none' → 'all'"),
    ("Adam.beta2 = 0.99", "Adam.beta2: 0.999 → 0.99"),
    ("SKIP_NONFINITE = True", "SKIP_NONFINITE: False → True"),
    ("EXPLODES_AT = 3.0", "EXPLODES_AT: None → 3.0"),
    ("TrainData.augment = @RandAugment()", "TrainData.augment: None → @RandAugment()"),
    ("TrainData.mix = @Mixup()", "TrainData.mix: None → @Mixup()"),
    (
        "TrainData.value_range = (0.0, 1.0)",
        "TrainData.value_range: (-1.0, 1.0) → (0.0, 1.0)",
    ),
    ("digits/PaddedCrop.flip = True", "digits/PaddedCrop.flip: False → True"),
    ("TRAIN_PATTERN = 'moved/train-*'", "TRAIN_PATTERN: 'train-*' → 'moved/train-*'"),
    ("EVAL_PATTERN = 'other-*'", "EVAL_PATTERN: 'test-*' → 'other-*'"),
    ("CHECKPOINT_EVERY = 7", "CHECKPOINT_EVERY: 400 → 7"),
    ("RunOptions.keep_last = 9", "RunOptions.keep_last: 3 → 9"),
]
FIXED = [
    ("digits/ViTShape.patch = 8", "`digits/ViTShape.patch` was 4 and is now 8"),
    ("digits/ViTShape.width = 32", "`digits/ViTShape.width` was 64 and is now 32"),
    ("digits/ViTShape.heads = 2", "`digits/ViTShape.heads` was 4 and is now 2"),
    ("DEPTH = 2", "`DEPTH` was None and is now 2"),
    ("SHAPE = 'mu/16'", "`SHAPE` was @digits/ViTShape() and is now 'mu/16'"),
    ("HEAD = 'gap'", "`HEAD` was 'map' and is now 'gap'"),
    ("CLASSES = 20", "`CLASSES` was 10 and is now 20"),
    ("IMAGE_SIZE = 32", "`IMAGE_SIZE` was 16 and is now 32"),
    ("vit.qk_norm = True", "`vit.qk_norm` was False and is now True"),
    (
        "Optimizer.rule = @Momentum()",
        "`Optimizer.rule` was @Adam() and is now @Momentum()",
    ),
]
# … and the names that allow them.
EXACT = {
    "SEED = 3": ("`SEED` was 0 and is now 3", "seed"),
    "BATCH_SIZE = 32": ("`BATCH_SIZE` was 64 and is now 32", "batch_size"),
    "SHUFFLE_WINDOW = 64": (
        "`SHUFFLE_WINDOW` was 16384 and is now 64",
        "shuffle_window",
    ),
    "TrainData.block_records = 4": (
        "`TrainData.block_records` was 16 and is now 4",
        "block_records",
    ),
    "TrainData.fraction = 0.5": (
        "`TrainData.fraction` was None and is now 0.5",
        "fraction",
    ),
    "TrainData.num_images = 50": (
        "`TrainData.num_images` was None and is now 50",
        "num_images",
    ),
}


def effective(bindings=""):
    configurables.parse(["quickstart"], DATA)
    gin.add_config_file_search_path(str(gin_files.root()))
    with gin.unlock_config():
        gin.parse_config(bindings)
    return configurables.effective_settings()


@pytest.fixture
def resumed(tmp_path, monkeypatch):
    """Return a function from a binding to the changes of the quickstart's run."""
    monkeypatch.setattr(settings, "saved_steps", lambda folder: [0, 50])
    settings.save_settings(tmp_path, effective())

    def resume(binding, **options):
        gin.clear_config()
        return settings.changes_at_resume(tmp_path, effective(binding), **options)

    return resume


def test_a_run_that_resumes_unchanged_has_no_changes(resumed):
    assert not resumed("")


@pytest.mark.parametrize(("binding", "line"), MAY_CHANGE)
def test_a_change_that_is_possible_is_reported(resumed, binding, line):
    lines = settings.describe_changes(resumed(binding)).splitlines()
    assert lines[0] == "Settings that changed since the run's last start:"
    assert f"  {line}" in lines


@pytest.mark.parametrize(("binding", "problem"), FIXED)
def test_another_model_or_optimizer_is_rejected(resumed, binding, problem):
    with pytest.raises(ValueError, match="take a new --model_dir") as raised:
        resumed(binding, allowed=settings.ALLOWABLE)
    assert problem in str(raised.value)


@pytest.mark.parametrize(
    ("binding", "problem", "allowance"),
    [(binding, *expected) for binding, expected in EXACT.items()],
)
def test_other_batches_are_rejected_unless_allowed(
    resumed, binding, problem, allowance
):
    with pytest.raises(ValueError) as raised:
        resumed(binding)
    assert str(raised.value).startswith(f"{problem}: ")
    assert f"bind RunOptions.allow_changes = ['{allowance}']" in str(raised.value)
    changes = resumed(binding, allowed=[allowance])
    assert [change.setting for change in changes if change.setting in settings.EXACT]


def test_a_change_of_initial_values_is_said_to_have_no_effect(resumed):
    (change,) = resumed("HEAD_BIAS = -3.0")
    assert str(change).endswith("-2.0 → -3.0; has no effect on a run that resumes")


def test_a_length_is_compared_across_schedules(resumed):
    changes = resumed("include 'schedules/linear.gin'\nTOTAL_STEPS = 3000")
    assert ("TOTAL_STEPS", "1200", "3000") in [
        (change.name, change.before, change.now) for change in changes
    ]


def test_settings_of_a_run_without_checkpoints_may_change(tmp_path):
    settings.save_settings(tmp_path, {"vit.head": ("HEAD", "'map'")})
    now = {"vit.head": ("HEAD", "'gap'")}
    assert not settings.changes_at_resume(tmp_path, now)


def test_a_run_whose_settings_were_not_recorded_is_reported(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(settings, "saved_steps", lambda folder: [0])
    assert not settings.changes_at_resume(tmp_path, {})
    assert "has no settings.json" in caplog.text


def test_a_setting_bound_in_another_way_is_no_change(resumed):
    assert not resumed("ReciprocalSqrt.total_steps = 1200")
    assert not resumed("Experiment.batch_size = 64")
