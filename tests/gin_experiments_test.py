"""Every experiment has the paper's values and trains three small steps."""
# SPDX-License-Identifier: Apache-2.0

import csv
import gc
import math
import re
from pathlib import Path

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf

from vit_scaling import configurables, gin_files, runs
from vit_scaling.data.preprocessing import InceptionCrop
from vit_scaling.image_preprocessing import CentralCrop
from vit_scaling.optimization.adafactor import Adafactor
from vit_scaling.optimization.learning_rate_schedules import ReciprocalSqrt
from vit_scaling.training.losses import sigmoid_cross_entropy
from vit_scaling.training.strategy import make_strategy

ROOT = Path(__file__).resolve().parents[1]
with (ROOT / "tests" / "paper" / "table2.csv").open() as _file:
    TABLE_2 = {row["name"]: row for row in csv.DictReader(_file)}
PATTERNS = ["TRAIN_PATTERN = 'train-*'", "EVAL_PATTERN = 'test-*'"]
SMOKE_DEPTH = {"L/16": 2, "g/14": 2, "G/14": 2}
# 10 to 20 s each, for what a sister shape has shown: by `-m slow`.
LARGE = ("S/32", "B/32", "S/16", "B/28", "B/16", "g/14", "G/14")
# What runtime/smoke.gin says.
IMAGE_SIZE, CLASSES, BATCH_SIZE, STEPS = 64, 10, 4, 3


def file_of(shape):
    """Return the name of a shape's experiment: vit_b16, vit_lower_s28."""
    variant, patch = shape.split("/")
    lower = "lower_" if variant in ("s", "g") else ""
    return f"experiments/vit_{lower}{variant.lower()}{patch}.gin"


def parameters_of(shape, *, image_size, classes, depth=None):
    """Count the weights of a ViT with a MAP head from its row of Table 2."""
    row = TABLE_2[shape]
    width, mlp = int(row["width"]), int(row["mlp_width"])
    depth, patch = depth or int(row["depth"]), int(shape.split("/")[1])
    patches = (image_size // patch) ** 2
    attention = 4 * (width * width + width)  # Query, key, value, out.
    norm, dense = 2 * width, width * mlp + mlp + mlp * width + width
    embedding = patch * patch * 3 * width + width + patches * width
    map_head = width + attention + norm + dense  # The first term is the probe.
    classifier = width * classes + classes
    blocks = depth * (attention + dense + 2 * norm)
    return embedding + blocks + norm + map_head + classifier


def test_there_is_an_experiment_for_each_shape_of_table_2_and_no_other():
    files = {
        path.relative_to(gin_files.root()).as_posix()
        for path in (gin_files.root() / "experiments").glob("vit_*.gin")
    }
    assert files == {file_of(shape) for shape in TABLE_2}


@pytest.mark.parametrize("shape", TABLE_2)
def test_the_formula_of_this_test_gives_the_counts_of_the_paper(shape):
    expected = int(TABLE_2[shape]["parameters_with_map_head"])
    classifier = int(TABLE_2[shape]["width"]) * 10 + 10
    counted = parameters_of(shape, image_size=224, classes=10)
    assert counted - classifier == expected


# Appendix B and C, and Table 4 for g and G.
BATCHES = {"g/14": 16_384, "G/14": 32_768}
BILLION_IMAGES = {"g/14": 16.384, "G/14": 20.48}
DURATIONS = {20_000, 30_000, 60_000, 120_000, 400_000, 1_200_000, 2_000_000, 4_000_000}


def bound(name):
    return gin.query_parameter(f"{name}/gin.macro.value")


@pytest.mark.parametrize("shape", TABLE_2)
def test_an_experiment_has_the_values_of_the_paper(shape):
    configurables.parse([file_of(shape)], PATTERNS)
    experiment = configurables.Experiment()
    assert experiment.batch_size == BATCHES.get(shape, 4096)
    assert experiment.loss.__name__ == sigmoid_cross_entropy.__name__

    schedule = experiment.schedule
    assert isinstance(schedule, ReciprocalSqrt)
    assert schedule.base_learning_rate == 8e-4
    assert schedule.warmup_steps == schedule.timescale_steps == 10_000
    assert schedule.cooldown_steps == 50_000
    images = schedule.total_steps * experiment.batch_size
    if shape in BILLION_IMAGES:
        assert images == BILLION_IMAGES[shape] * 1e9
    else:
        assert schedule.total_steps in DURATIONS

    optimizer = experiment.make_optimizer(learning_rate=schedule)
    rule = optimizer.rule
    assert isinstance(rule, Adafactor)
    assert rule.momentum == 0.9 and rule.momentum_dtype == "bfloat16"
    assert rule.beta2_cap == 0.999 and optimizer.clip_norm == 1.0
    strengths = {
        path: next(s for rule, s in optimizer.weight_decay if re.fullmatch(rule, path))
        for path in ("head/kernel", "block_00/mlp/dense_0/kernel")
    }
    assert [*strengths.values()] == [3.0, 0.03]

    data = experiment.train_data
    assert (data.image_size, data.classes) == (224, 29_593)
    assert type(data.preprocess).__name__ == InceptionCrop.__name__
    assert data.preprocess.flip and tuple(data.preprocess.area) == (0.05, 1.0)
    assert data.augment is None and data.mix is None
    assert data.value_range == (-1.0, 1.0)
    assert type(experiment.eval_data.preprocess).__name__ == CentralCrop.__name__
    assert experiment.eval_data.image_size == 224

    assert bound("SHAPE") == shape and bound("DEPTH") is None
    assert bound("HEAD") == "map" and bound("HEAD_BIAS") == -10.0
    assert bound("DTYPE") == "mixed_bfloat16"
    assert bound("CHECKPOINT_EVERY") == bound("EVAL_EVERY") == 1000
    assert bound("KEEP_EVERY") == 10_000 and bound("STEPS_PER_LOOP") == 50


def test_smoke_lowers_only_what_it_may():
    text = (gin_files.root() / "runtime" / "smoke.gin").read_text()
    names = {line.split(" = ")[0] for line in text.splitlines() if " = " in line[:40]}
    names = {name for name in names if not name.startswith("#")}
    sizes = {"BATCH_SIZE", "IMAGE_SIZE", "CLASSES"}
    lengths = {"TOTAL_STEPS", "WARMUP_STEPS", "COOLDOWN_STEPS", "STEPS_PER_LOOP"}
    assert names <= sizes | lengths | {"EVAL_EVERY", "vit.crop_to_patches"}


def smoke(shape, records):
    """Parse a shape's experiment with smoke.gin laid over it, on the digits."""
    depth = SMOKE_DEPTH.get(shape)
    bindings = [
        f"TRAIN_PATTERN = '{records}/train-*'",
        f"EVAL_PATTERN = '{records}/test-*'",
        "DTYPE = 'float32'",  # Matrix products in bfloat16 are slow on a processor.
        "SHUFFLE_WINDOW = 64",
        *([f"DEPTH = {depth}"] if depth else []),
    ]
    configurables.parse([file_of(shape), "runtime/smoke.gin"], bindings)
    return configurables.Experiment()


@pytest.fixture
def nothing_left():
    """Free a large model before the next one is made."""
    yield
    keras.backend.clear_session()
    gc.collect()


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(shape, marks=[pytest.mark.slow] if shape in LARGE else [])
        for shape in TABLE_2
    ],
)
def test_each_experiment_trains_three_steps(shape, digit_records):
    experiment = smoke(shape, digit_records)
    schedule = experiment.schedule_in_steps()
    assert schedule.total_steps == STEPS
    model = experiment.build_model()
    expected = parameters_of(
        shape,
        image_size=IMAGE_SIZE,
        classes=CLASSES,
        depth=SMOKE_DEPTH.get(shape),
    )
    assert model.count_params() == expected

    optimizer = experiment.make_optimizer(learning_rate=schedule)
    optimizer.build(model.trainable_variables)
    step = experiment.make_step(model, optimizer)
    batches = experiment.train_data.dataset(batch_size=experiment.batch_size, seed=0)
    batches = list(batches.take(STEPS))
    losses = [float(step(batch)["loss"]) for batch in batches]
    assert len(losses) == STEPS and np.isfinite(losses).all()
    # All logits are -10 at first: a label costs 10 nats, nine others next to nothing.
    assert losses[0] == pytest.approx(10 + 10 * math.log1p(math.exp(-10)), rel=1e-6)
    norms = {name: float(v.numpy()) for name, v in optimizer.diagnostics.items()}
    assert norms["update_norm"] > 0 and norms["nonfinite_steps"] == 0
    assert np.abs(model.get_layer("head").kernel.numpy()).max() > 0
    assert float(step(batches[0])["loss"]) < losses[0]  # The same images as at first.


@pytest.mark.usefixtures("nothing_left")
def test_an_experiment_runs_as_the_binary_runs_it(digit_records, tmp_path):
    experiment = smoke("s/28", digit_records)
    options = configurables.RunOptions(jit_compile=False, evaluate=False)
    results = runs.train(
        experiment, options, model_dir=tmp_path, strategy=make_strategy()
    )
    assert results == {"step": STEPS, "traced": 1}
    assert (tmp_path / "checkpoints" / "step_000000003").is_dir()


def test_the_quickstart_fits_the_digits():
    configurables.parse(["quickstart"], PATTERNS)
    experiment = configurables.Experiment()
    assert experiment.train_data.classes == experiment.eval_data.classes == 10
    assert not experiment.train_data.preprocess.flip  # A mirrored 2 is no 2.
    model = experiment.build_model()
    size = experiment.train_data.image_size
    assert model.input_shape == (None, size, size, 3)
    bias = model.get_layer("head").bias.numpy()
    np.testing.assert_allclose(tf.sigmoid(bias), 0.1, atol=0.05)  # One class in ten.


@pytest.mark.parametrize("path", sorted(gin_files.root().rglob("*.gin")), ids=str)
def test_gin_files_say_what_they_are_and_stay_short(path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ") and len(lines) <= 60
    assert all(len(line) <= 120 for line in lines)
