"""The fine-tuning experiments carry the paper's values, and train from real weights."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import shutil

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf

from vit_scaling import configurables, runs
from vit_scaling.applications.finetuning import load_for_finetuning
from vit_scaling.assembly import build_run
from vit_scaling.data.preprocessing import InceptionCrop
from vit_scaling.image_preprocessing import CentralCrop, Resize
from vit_scaling.modeling.positions import resample
from vit_scaling.modeling.vit import vit
from vit_scaling.optimization.learning_rate_schedules import Constant, Cosine
from vit_scaling.optimization.momentum import Momentum
from vit_scaling.run_record import load_run_record
from vit_scaling.training.checkpoint_files import checkpoint_folder
from vit_scaling.training.losses import softmax_cross_entropy
from vit_scaling.training.options import RunOptions
from vit_scaling.training.strategy import make_strategy

# Keras turns its variables into arrays in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")
REQUIRED = [
    "TRAIN_PATTERN = 'train-*'", "EVAL_PATTERN = 'test-*'", "CLASSES = 1000",
    "INITIAL_WEIGHTS = 'RUN'", "SHAPE = 'B/16'",
]  # fmt: skip


def parsed(*files, bindings=REQUIRED):
    configurables.parse(files, bindings)
    return configurables.Experiment()


def check_what_all_share(experiment):
    """App. D: SGD with momentum, batch 512, clip 1, no decay; softmax and zero bias."""
    assert experiment.batch_size == 512
    assert experiment.loss.__name__ == softmax_cross_entropy.__name__
    optimizer = experiment.make_optimizer(learning_rate=experiment.schedule)
    assert isinstance(optimizer.rule, Momentum)
    assert (optimizer.rule.momentum, optimizer.clip_norm) == (0.9, 1.0)
    assert not optimizer.weight_decay
    return optimizer


def test_finetuning_is_the_papers():
    experiment = parsed("experiments/finetune.gin")
    optimizer = check_what_all_share(experiment)
    assert optimizer.average_decay is None
    schedule = experiment.schedule
    assert isinstance(schedule, Cosine)
    assert schedule.base_learning_rate == 0.03
    assert (schedule.total_steps, schedule.warmup_steps) == (20_000, 500)
    data = experiment.train_data
    assert data.image_size == experiment.eval_data.image_size == 384
    assert type(data.preprocess).__name__ == InceptionCrop.__name__
    assert type(experiment.eval_data.preprocess).__name__ == CentralCrop.__name__


def test_finetuning_of_g_is_flat_at_518_and_averaged():
    experiment = parsed("experiments/finetune_g14.gin", bindings=REQUIRED[:4])
    assert check_what_all_share(experiment).average_decay == 0.9999
    assert isinstance(experiment.schedule, Constant)
    assert experiment.schedule.at(600) == experiment.schedule.at(20_000) == 0.03
    assert experiment.train_data.image_size == 518


def test_vtab_is_one_light_setting_for_all_tasks():
    experiment = parsed("experiments/finetune_vtab.gin")
    check_what_all_share(experiment)
    schedule = experiment.schedule
    assert isinstance(schedule, Cosine)
    assert schedule.base_learning_rate == 0.01
    assert (schedule.total_steps, schedule.warmup_steps) == (2_500, 200)
    for data in (experiment.train_data, experiment.eval_data):
        assert type(data.preprocess).__name__ == Resize.__name__


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Weights of mu/16 on a grid of 2x2 with 3 classes, drawn at random."""
    model = vit("mu/16", image_size=32, classes=3)
    random = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(random.normal(size=variable.shape) * 0.1)
    path = tmp_path_factory.mktemp("source") / "mu.keras"
    model.save(path)
    return path, {v.path: np.asarray(v.value) for v in model.variables}


def small(source, digit_records, *files, more=()):
    """An experiment with smoke.gin over it: 3 steps of 64 pixels on the digits."""
    bindings = [
        f"TRAIN_PATTERN = '{digit_records}/train-*'",
        f"EVAL_PATTERN = '{digit_records}/test-*'",
        f"INITIAL_WEIGHTS = '{source[0]}'", "SHAPE = 'mu/16'", "SHUFFLE_WINDOW = 64",
        *more,
    ]  # fmt: skip
    # As smoke.gin, whose cooldown these schedules do not read.
    bindings += ["IMAGE_SIZE = 64", "CLASSES = 10", "BATCH_SIZE = 4",
                 "TOTAL_STEPS = 3", "WARMUP_STEPS = 1", "EVAL_EVERY = None",
                 ]  # fmt: skip
    return parsed(*files, bindings=bindings)


def test_model_starts_from_the_source_with_a_new_classifier(
    source, digit_records, tmp_path
):
    _, taken = source
    experiment = small(source, digit_records, "experiments/finetune.gin")
    run = build_run(
        experiment, RunOptions(), model_dir=tmp_path / "new", strategy=make_strategy()
    )
    model = run.model
    held = {v.path: np.asarray(v.value) for v in model.variables}
    positions = "position_embedding/embedding"
    np.testing.assert_array_equal(held[positions], resample(taken[positions], (4, 4)))
    assert not held["head/kernel"].any() and not held["head/bias"].any()
    others = set(held) - {positions, "head/kernel", "head/bias"}
    assert others == set(taken) - {positions, "head/kernel", "head/bias"}
    for path in others:
        np.testing.assert_array_equal(held[path], taken[path])


@pytest.mark.parametrize(
    "name",
    [
        "finetune",
        # About 15 s each, for what the first has shown.
        pytest.param("finetune_vtab", marks=pytest.mark.slow),
        pytest.param("finetune_g14", marks=pytest.mark.slow),
    ],
)
def test_each_experiment_trains_three_steps(
    name, source, digit_records, tmp_path, capsys
):
    experiment = small(
        source, digit_records, f"experiments/{name}.gin", "data/held_out.gin",
        more=["TRAIN_FRACTION = 0.9", "EVAL_BATCH_SIZE = 64"],
    )  # fmt: skip
    sets = experiment.eval_sets()
    whole = sets["eval"].source.index().num_records
    assert sets["eval"].num_examples == whole
    options = configurables.RunOptions(jit_compile=False)
    results = runs.train(
        experiment, options, model_dir=tmp_path, strategy=make_strategy()
    )
    assert results["step"] == 3 and np.isfinite(results["held_out"]["loss"])
    assert results["held_out"]["examples"] == sets["held_out"].num_examples
    assert results["eval"]["examples"] == whole
    start = load_run_record(tmp_path).initial_weights
    assert start["source"] == str(source[0])
    assert start["initialised"] == ["head/kernel", "head/bias"]
    assert start["resampled"] == ["position_embedding/embedding"]
    said = capsys.readouterr().err
    assert "1 resampled to another grid: position_embedding/embedding" in said
    assert "2 with initial values: head/kernel, head/bias" in said


def test_head_that_the_source_lacks_needs_consent(source, digit_records, tmp_path):
    start = {"model_dir": tmp_path, "strategy": make_strategy()}
    name, more = "experiments/finetune.gin", ["HEAD = 'token'"]
    options = RunOptions(jit_compile=False, evaluate=False, steps_per_loop=1)
    with pytest.raises(ValueError, match=r"has no 'class_token/token', which the mod"):
        runs.train(small(source, digit_records, name, more=more), options, **start)
    assert not any(path.is_dir() for path in tmp_path.iterdir())  # No checkpoint.
    gin.clear_config()
    more += ["load_for_finetuning.allow_initialised = 'class_token/.*'"]
    runs.train(small(source, digit_records, name, more=more), options, **start)
    record = load_run_record(tmp_path).initial_weights
    assert record["initialised"] == ["class_token/token", "head/kernel", "head/bias"]
    assert {path.split("/")[0] for path in record["left"]} == {"map_head", "head"}


def test_preempted_run_resumes_when_its_source_is_gone(source, digit_records, tmp_path):
    start = {"model_dir": tmp_path, "strategy": make_strategy()}
    name = "experiments/finetune.gin"
    experiment = small(source, digit_records, name)
    options = configurables.RunOptions(jit_compile=False, evaluate=False)
    runs.train(experiment, options, **start)
    shutil.rmtree(checkpoint_folder(tmp_path / "checkpoints", 3))  # Preempted before.
    load = functools.partial(load_for_finetuning, source=str(tmp_path / "gone.keras"))
    gone = dataclasses.replace(experiment, load_weights=load)
    assert runs.train(gone, options, **start)["step"] == 3
    assert load_run_record(tmp_path).initial_weights["source"] == str(source[0])
    with pytest.raises(FileNotFoundError, match=r"gone\.keras"):
        runs.train(gone, options, **{**start, "model_dir": tmp_path / "new"})


def test_held_out_part_and_training_part_are_the_training_set(source, digit_records):
    experiment = small(
        source, digit_records, "experiments/finetune.gin", "data/held_out.gin"
    )
    held = experiment.eval_sets()["held_out"]
    chosen = set(experiment.train_data.selected.record_numbers())
    left = set(held.selected.record_numbers())
    assert len(chosen) == experiment.train_data.num_examples
    assert not chosen & left
    assert chosen | left == set(range(held.source.index().num_records))
    assert 0 < len(left) < 0.05 * len(chosen)  # 2 %, in expectation.
    batch = next(iter(held.dataset(batch_size=len(left))))
    assert tf.reduce_sum(batch["mask"]) == len(left)
    keras.backend.clear_session()


def preset(name, *bindings):
    files = ("experiments/finetune.gin", f"finetuning/{name}.gin")
    return parsed(*files, bindings=[*REQUIRED, *bindings])


def test_head_only_trains_the_classifier_alone():
    experiment = preset("head_only", "DEPTH = 1", "IMAGE_SIZE = 32")
    trained = experiment.build_model().trainable_variables
    assert [v.path for v in trained] == ["head/kernel", "head/bias"]


def test_lora_of_b16_trains_three_percent():
    experiment = preset("lora", "IMAGE_SIZE = 32")
    model = experiment.build_model()
    count = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    # 12 blocks: q, k, v, out of 768 x 768, MLP of 768 x 3072; 1,000 classes.
    assert count == 12 * 8 * (4 * 1536 + 2 * (768 + 3072)) + 769_000


def test_layerwise_decay_preset_is_of_the_shape_s_depth():
    experiment = preset("layerwise_decay", "LAYERWISE_DECAY = 0.5")
    optimizer = experiment.make_optimizer(learning_rate=experiment.schedule)
    rules = dict(optimizer.learning_rate_multipliers)
    assert rules["(.*/)?block_11/.*"] == 0.5 and rules["(.*/)?block_00/.*"] == 0.5**12


def test_mixup_and_label_smoothing_presets_reach_data_and_loss():
    files = ["experiments/finetune.gin"]
    files += [f"finetuning/{name}.gin" for name in ("mixup", "label_smoothing")]
    experiment = parsed(*files, bindings=[*REQUIRED, "LABEL_SMOOTHING = 0.3"])
    assert experiment.train_data.mix.alpha == 0.2
    logits, labels = tf.constant([[2.0, 0.0]]), tf.constant([[1.0, 0.0]])
    log = -np.log(np.exp([2.0, 0.0]) / (np.exp(2.0) + 1))
    expected = 0.85 * log[0] + 0.15 * log[1]
    assert float(experiment.loss(logits, labels)[0]) == pytest.approx(
        expected, rel=1e-5
    )
