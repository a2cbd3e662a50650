"""The whole run: it learns, resumes bit for bit, stops in time and loses nothing."""
# SPDX-License-Identifier: Apache-2.0

import functools
import json
import pathlib
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf

from tests.training import small
from vit_scaling import runs
from vit_scaling.optimization.adam import Adam
from vit_scaling.optimization.learning_rate_schedules import ReciprocalSqrt
from vit_scaling.optimization.momentum import Momentum
from vit_scaling.optimization.optimizer import Optimizer
from vit_scaling.run_record import load_run_record
from vit_scaling.training import checkpoint_evaluation, run_weights
from vit_scaling.training.checkpoint_files import (
    checkpoint_folder,
    read_checkpoint,
    saved_steps,
)
from vit_scaling.training.divergence import DivergedError, LossGuard, NonFiniteError
from vit_scaling.training.evaluator import InLoopEvaluator
from vit_scaling.training.logs import read_metrics
from vit_scaling.training.losses import sigmoid_cross_entropy, softmax_cross_entropy
from vit_scaling.training.options import RunOptions
from vit_scaling.training.preemption import PreemptedError
from vit_scaling.training.run import Run
from vit_scaling.training.run_files import read_model
from vit_scaling.training.strategy import make_strategy

IMAGES, LABELS = small.digits()
NOISY_VIT = functools.partial(small.shallow_vit, dropout=0.1)
MOMENTUM = functools.partial(Optimizer, Momentum())
AVERAGED = functools.partial(Optimizer, Adam(), clip_norm=1.0, average_decay=0.9)


def train(path, changes=None, strategy=None, *, texts=dict, **options):
    """Train six steps: loops of 2, checkpoints and evaluations every 2."""
    settings = {
        "seed": 5,
        "jit_compile": False,
        "steps_per_loop": 2,
        "checkpoint_every_steps": 2,
        "eval_every_steps": 2,
        "keep_last": 9,
    }
    return runs.train(
        small.experiment(**(changes or {})),
        RunOptions(**{**settings, **options}),
        model_dir=path,
        strategy=strategy or make_strategy(),
        texts=texts,
    )


def saved(path, step=6):
    """Return every bit of a checkpoint, and the images that the run has seen."""
    folder = checkpoint_folder(pathlib.Path(path) / "checkpoints", step)
    values, manifest = read_checkpoint(folder)
    bits = {key: (v.dtype, v.shape, v.tobytes()) for key, v in values.items()}
    return bits, manifest["state"]["images_seen"]


def steps_of(path):
    return saved_steps(pathlib.Path(path) / "checkpoints")


def spoiled_at(number, spoil):
    """Return training data whose batch of that number is spoiled."""

    def change(images, n):
        return tf.cond(tf.equal(n, number), lambda: spoil(images), lambda: images)

    return small.Arrays(IMAGES[:200], LABELS[:200], change)


def failing_at(number):
    def fail(images):
        with tf.control_dependencies([tf.debugging.Assert(False, ["unplugged"])]):
            return tf.identity(images)

    return spoiled_at(number, fail)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run of a linear model, with averages: folder and results."""
    path = tmp_path_factory.mktemp("finished")
    changes = {"make_optimizer": AVERAGED}
    texts = iter([{"config.gin": text} for text in ("first", "board", "last")])
    return path, train(path, changes, texts=lambda: next(texts))


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """An uninterrupted run of a ViT with dropout."""
    path = tmp_path_factory.mktemp("noisy")
    train(path, {"make_model": NOISY_VIT})
    return path


# What a run leaves.


def test_a_run_leaves_checkpoints_figures_and_what_rebuilds_it(finished):
    path, results = finished
    assert results["step"] == 6 and results["traced"] == 1
    assert steps_of(path) == [0, 2, 4, 6]
    assert [row["step"] for row in read_metrics(path, "train")] == [2, 4, 6]
    evaluations = read_metrics(path, "eval")
    assert [row["step"] for row in evaluations] == [2, 4, 6]
    assert evaluations[-1]["top1"] == pytest.approx(results["eval"]["top1"])
    assert results["eval"]["examples"] == 43
    record = load_run_record(path)
    assert record.seed == 5 and record.loss == "sigmoid_cross_entropy"
    assert record.class_names == tuple("0123456789")
    assert record.image_size == (8, 8)
    assert record.train_images == small.experiment().train_data.num_examples
    assert read_model(path).count_params() == record.parameters == 1930
    assert (path / "config.gin").read_text() == "last"


def test_train_figures_are_complete(finished):
    row = read_metrics(finished[0], "train")[-1]
    schedule = small.experiment().schedule
    assert row["learning_rate"] == schedule.at(5)
    assert row["images_seen"] == 6 * 8 and row["eta_seconds"] == 0
    names = ("loss", "gradient_norm", "update_norm", "parameter_norm", "core_hours")
    assert all(row[name] > 0 for name in names)


def test_a_run_learns_the_digits(tmp_path):
    longer = ReciprocalSqrt(
        1e-2, total_steps=80, warmup_steps=10, cooldown_steps=20, timescale_steps=20
    )
    results = train(
        tmp_path,
        {"schedule": longer, "batch_size": 64},
        steps_per_loop=40,
        checkpoint_every_steps=80,
        eval_every_steps=None,
    )
    assert results["eval"]["top1"] > 0.8  # A linear model; chance is 0.1.


def test_a_finished_run_only_evaluates_again(finished, tmp_path):
    path, results = finished
    copy = shutil.copytree(path, tmp_path / "copy")
    again = train(copy, {"make_optimizer": AVERAGED})
    assert again["eval"] == results["eval"] and again["traced"] == 0
    assert saved(copy) == saved(path)


# The same run again.


def test_the_same_seed_gives_the_same_weights_bit_for_bit(noisy, tmp_path):
    train(tmp_path, {"make_model": NOISY_VIT}, evaluate=False)
    assert saved(tmp_path) == saved(noisy)


def test_another_seed_gives_other_weights(finished, tmp_path):
    train(tmp_path, {"make_optimizer": AVERAGED}, seed=6, evaluate=False)
    there, here = saved(finished[0])[0], saved(tmp_path)[0]
    assert there["model/head/kernel"] != here["model/head/kernel"]


def test_an_interrupted_run_ends_in_the_weights_of_an_uninterrupted_one(
    noisy, tmp_path
):
    changes = {"make_model": NOISY_VIT}
    with pytest.raises(tf.errors.InvalidArgumentError, match="unplugged"):
        train(tmp_path, {**changes, "train_data": failing_at(3)})
    assert steps_of(tmp_path)[-1] == 2
    results = train(tmp_path, changes)
    assert saved(tmp_path) == saved(noisy) and results["step"] == 6
    for kind in ("train", "eval"):
        there, here = read_metrics(noisy, kind), read_metrics(tmp_path, kind)
        figures = [
            [(row["step"], row["loss"]) for row in rows] for rows in (there, here)
        ]
        assert figures[0] == figures[1]


def test_a_damaged_newest_checkpoint_costs_its_steps_and_nothing_else(
    finished, tmp_path, caplog
):
    copy = shutil.copytree(finished[0], tmp_path / "copy")
    data = next((copy / "checkpoints" / "step_000000006").glob("*.data-*"))
    data.write_bytes(data.read_bytes()[:-1])
    train(copy, {"make_optimizer": AVERAGED})
    assert "step_000000006" in caplog.text
    assert saved(copy) == saved(finished[0])
    assert (copy / "checkpoints" / "damaged_000000006").is_dir()


def test_a_run_whose_checkpoints_were_removed_does_not_start_again(finished, tmp_path):
    copy = shutil.copytree(finished[0], tmp_path / "copy")
    shutil.rmtree(copy / "checkpoints")
    before = sorted(path.name for path in copy.iterdir())
    message = (
        r"metrics\.jsonl` ends at step 6, but .*checkpoints` has no checkpoint.*new"
    )
    with pytest.raises(FileNotFoundError, match=message):
        train(copy, {"make_optimizer": AVERAGED})
    assert sorted(path.name for path in copy.iterdir()) == before


def test_images_and_core_hours_continue_counting_over_a_restart(tmp_path):
    with pytest.raises(tf.errors.InvalidArgumentError):
        train(tmp_path, {"train_data": failing_at(5)}, evaluate=False)
    before = read_metrics(tmp_path, "train")[-1]
    train(tmp_path, evaluate=False)
    after = read_metrics(tmp_path, "train")[-1]
    assert before["images_seen"] == 32 and after["images_seen"] == 48
    assert after["core_hours"] > before["core_hours"] > 0


def test_two_replicas_train_to_the_weights_of_one(tmp_path):
    changes = {"make_model": small.shallow_vit, "make_optimizer": MOMENTUM}
    for name, strategy in (("one", make_strategy()), ("two", small.mirrored(2))):
        train(tmp_path / name, changes, strategy, evaluate=False)
    folders = [
        checkpoint_folder(tmp_path / name / "checkpoints", 6) for name in ("one", "two")
    ]
    (one, _), (two, _) = (read_checkpoint(f, prefixes=["model/"]) for f in folders)
    flat, other = (
        np.concatenate([values[key].ravel() for key in sorted(one)]).astype(np.float64)
        for values in (one, two)
    )
    start, _ = read_checkpoint(
        checkpoint_folder(tmp_path / "one" / "checkpoints", 0), prefixes=["model/"]
    )
    first = np.concatenate([start[key].ravel() for key in sorted(one)])
    assert np.linalg.norm(flat - first) > 1e-3 * np.linalg.norm(flat)  # It moved.
    assert np.linalg.norm(flat - other) < 1e-6 * np.linalg.norm(flat)


def test_xla_trains_to_the_same_weights_within_rounding(tmp_path):
    changes = {"make_optimizer": MOMENTUM}
    train(tmp_path / "graph", changes, evaluate=False)
    results = train(tmp_path / "xla", changes, evaluate=False, jit_compile=True)
    assert results["traced"] == 1
    values = [
        read_checkpoint(checkpoint_folder(tmp_path / n / "checkpoints", 6))[0]
        for n in ("graph", "xla")
    ]
    kernel, other = (one["model/head/kernel"] for one in values)
    np.testing.assert_allclose(kernel, other, rtol=1e-4, atol=1e-6)


# Evaluation of what was saved.


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_checkpoint_evaluates_to_the_figures_of_training(
    finished, tmp_path, replicas
):
    path = shutil.copytree(finished[0], tmp_path / "copy")
    strategy = make_strategy() if replicas == 1 else small.mirrored(replicas)
    there = {row["step"]: row for row in read_metrics(path, "eval")}
    for step in (None, 4):
        found = runs.evaluate(
            small.experiment(make_optimizer=AVERAGED),
            model_dir=path,
            strategy=strategy,
            step=step,
            jit_compile=False,
        )
        assert found["step"] == (step or 6)
        for name, value in found["eval"].items():
            expected = there[found["step"]][name]
            assert value == pytest.approx(expected, rel=1e-6), name


@pytest.mark.parametrize("loss", [softmax_cross_entropy, sigmoid_cross_entropy])
def test_a_report_has_the_probabilities_of_the_runs_loss(
    finished, tmp_path, monkeypatch, loss
):
    found = []

    def keep(path, sets, **options):
        found.extend(guesses for guesses, _ in sets.values())

    monkeypatch.setattr(runs, "write_report", keep)

    @functools.wraps(loss)  # As gin does.
    def wrapped(logits, labels):
        return loss(logits, labels)

    path = shutil.copytree(finished[0], tmp_path / "copy")
    experiment = small.experiment(make_optimizer=AVERAGED, loss=wrapped)
    runs.evaluate(
        experiment,
        model_dir=path,
        strategy=make_strategy(),
        report=str(tmp_path / "page.html"),
    )
    model = read_model(path)
    run_weights.restore_model(model, path)
    logits = model.predict(IMAGES[200:243], verbose=0).astype(np.float64)
    exponents = np.exp(logits)
    probability = exponents / (1 + exponents)
    if loss is softmax_cross_entropy:
        probability = exponents / exponents.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[0].confidence, probability.max(1), rtol=1e-5)


def test_averages_are_evaluated_on_request_and_training_continues_with_its_own(
    finished, tmp_path
):
    changes = {"make_optimizer": AVERAGED}
    results = train(tmp_path, changes, evaluate_averages=True)
    assert saved(tmp_path) == saved(finished[0])
    assert results["eval"]["loss"] != finished[1]["eval"]["loss"]
    trained = read_metrics(tmp_path, "eval")
    for averages in (True, None, False):
        found = runs.evaluate(
            small.experiment(**changes),
            model_dir=tmp_path,
            strategy=make_strategy(),
            averages=averages,
            jit_compile=False,
        )
        expected = finished[1] if averages is False else results
        assert found["eval"] == pytest.approx(expected["eval"], rel=1e-6)
    # Figures of the weights that training did not evaluate hide none of its own.
    after = read_metrics(tmp_path, "eval")
    losses = [[row["loss"] for row in rows] for rows in (trained, after)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    (last,) = read_metrics(tmp_path, "eval_last")
    assert last["step"] == 6 and last["loss"] == pytest.approx(
        finished[1]["eval"]["loss"], rel=1e-6
    )


def test_a_run_that_was_never_saved_cannot_be_evaluated(tmp_path):
    with pytest.raises(FileNotFoundError, match="`model_dir` must hold a trained run"):
        runs.evaluate(small.experiment(), model_dir=tmp_path, strategy=make_strategy())


class NextCheckpoint(InLoopEvaluator):
    """Puts the run's next checkpoint in place when the last one has been measured."""

    name, interval_steps = "next", 1

    def __init__(self, source, target, steps):
        self.source, self.target, self.steps = source, target, list(steps)

    def evaluate(self, model, strategy):
        if self.steps:
            name = f"checkpoints/step_{self.steps.pop(0):09d}"
            shutil.copytree(self.source / name, self.target / name)
        return {}


def continuously(path, **options):
    evaluators = options.pop("evaluators", ())
    return runs.evaluate_continuously(
        small.experiment(make_optimizer=AVERAGED, evaluators=evaluators),
        model_dir=path,
        strategy=make_strategy(),
        jit_compile=False,
        **options,
    )


def test_continuous_evaluation_meets_each_new_checkpoint_until_the_last(
    finished, tmp_path
):
    path, results = finished
    mover = NextCheckpoint(path, tmp_path, [2, 4, 6])
    mover.evaluate(None, None)
    found = continuously(tmp_path, evaluators=[mover], timeout_seconds=600.0)
    assert found["step"] == 6
    assert found["eval"] == pytest.approx(results["eval"], rel=1e-6)
    there, here = read_metrics(path, "eval"), read_metrics(tmp_path, "eval")
    assert [row["step"] for row in here] == [2, 4, 6]
    assert [row["top1"] for row in here] == [row["top1"] for row in there]


def test_continuous_evaluation_leaves_a_damaged_checkpoint_out(
    finished, tmp_path, caplog
):
    path, results = finished
    mover = NextCheckpoint(path, tmp_path, [2, 4, 6])
    mover.evaluate(None, None)
    mover.evaluate(None, None)
    (tmp_path / "checkpoints" / "step_000000004" / "manifest.json").write_text("{")

    class Later:
        """Puts the last one in place once the damaged one has been met."""

        def __init__(self):
            self.looks = 0

        def __call__(self, seconds):
            self.looks += 1
            if self.looks == 1:
                mover.evaluate(None, None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            checkpoint_evaluation.evaluate_as_they_appear,
            "__kwdefaults__",
            {
                **checkpoint_evaluation.evaluate_as_they_appear.__kwdefaults__,
                "sleep": Later(),
            },
        )
        found = continuously(tmp_path, timeout_seconds=600.0)
    assert found["step"] == 6 and found["eval"] == pytest.approx(results["eval"])
    assert "Step 4 is not evaluated" in caplog.text
    assert [row["step"] for row in read_metrics(tmp_path, "eval")] == [6]


def test_continuous_evaluation_gives_up_when_none_comes(finished, tmp_path):
    mover = NextCheckpoint(finished[0], tmp_path, [4])
    mover.evaluate(None, None)
    assert continuously(tmp_path, timeout_seconds=0.01)["step"] == 4
    with pytest.raises(TimeoutError, match="No checkpoint appeared"):
        continuously(tmp_path / "empty", timeout_seconds=0.01)


# What stays and what else is measured.


def test_single_steps_and_the_best_stay(tmp_path):
    train(
        tmp_path,
        keep_last=1,
        keep_steps=[1],
        branch_at=[3],
        best_metric="eval/loss",
        keep_every_steps=None,
    )
    losses = {row["step"]: row["loss"] for row in read_metrics(tmp_path, "eval")}
    best = min(losses, key=losses.get)
    assert set(steps_of(tmp_path)) == {1, 3, best, 6}
    record = json.loads((tmp_path / "checkpoints" / "best.json").read_text())
    assert record["step"] == best and record["value"] == pytest.approx(losses[best])


def test_several_sets_are_evaluated_by_name(tmp_path):
    sets = {
        "val": small.EvalArrays(IMAGES[200:210], LABELS[200:210]),
        "test": small.EvalArrays(IMAGES[300:325], LABELS[300:325]),
    }
    results = train(tmp_path, {"eval_data": sets}, best_metric="val/top1")
    assert results["val"]["examples"] == 10 and results["test"]["examples"] == 25


def test_the_model_is_prepared_and_micro_batches_give_the_same_run(tmp_path):
    prepared = []
    changes = {
        "make_optimizer": MOMENTUM,
        "prepare_model": lambda model: prepared.append(model.name),
    }
    train(tmp_path / "whole", changes, evaluate=False)
    train(tmp_path / "pieces", {**changes, "micro_batches": 4}, evaluate=False)
    assert prepared == ["linear", "linear"]
    one, two = (
        read_checkpoint(checkpoint_folder(tmp_path / n / "checkpoints", 6))[0]
        for n in ("whole", "pieces")
    )
    np.testing.assert_allclose(
        one["model/head/kernel"], two["model/head/kernel"], rtol=1e-4, atol=1e-6
    )


def test_weights_to_start_from_are_loaded_once_and_regularizers_come_always(tmp_path):
    calls = []
    changes = {
        "prepare_model": lambda model: calls.append("prepared"),
        "load_weights": lambda model, **data: calls.append("loaded"),
    }
    train(tmp_path, changes, evaluate=False)
    assert calls == ["prepared", "loaded"]
    train(tmp_path, changes, evaluate=False)
    assert calls == ["prepared", "loaded", "prepared"]


def test_other_evaluators_are_checked_before_anything_is_made(tmp_path):
    class TooFewImages(InLoopEvaluator):
        name, interval_steps = "few", 1

        def check(self):
            raise ValueError("too few images")

    changes = {"evaluators": [TooFewImages()], "make_model": None}
    with pytest.raises(ValueError, match="too few images"):
        train(tmp_path, changes)
    assert not (tmp_path / "checkpoints").exists()


# What stops a run, and what it leaves then.


def test_a_step_that_is_not_finite_stops_the_run_and_nothing_of_it_is_saved(
    finished, tmp_path
):
    data = spoiled_at(3, lambda images: images * np.float32("inf"))
    changes = {"make_optimizer": AVERAGED, "train_data": data}
    with pytest.raises(NonFiniteError, match="`skip_nonfinite = True`"):
        train(tmp_path, changes)
    assert steps_of(tmp_path) == [0, 2]
    assert saved(tmp_path, 2) == saved(finished[0], 2)


def test_a_step_that_is_not_finite_is_left_out_where_the_options_say_so(tmp_path):
    data = spoiled_at(3, lambda images: images * np.float32("inf"))
    skipping = functools.partial(AVERAGED, skip_nonfinite=True)
    train(tmp_path, {"make_optimizer": skipping, "train_data": data})
    assert [row["nonfinite_steps"] for row in read_metrics(tmp_path, "train")] == [
        0,
        1,
        1,
    ]
    values, _ = read_checkpoint(checkpoint_folder(tmp_path / "checkpoints", 6))
    assert all(np.isfinite(v.astype(np.float32)).all() for v in values.values())


def test_a_run_of_which_no_step_is_finite_stops_though_such_are_left_out(tmp_path):
    data = small.Arrays(IMAGES[:200] * np.float32("nan"), LABELS[:200])
    lost = {"make_optimizer": functools.partial(Optimizer, Adam(), skip_nonfinite=True)}
    with pytest.raises(NonFiniteError, match=r"the last 2 loops, up to 4, had"):
        train(
            tmp_path,
            {**lost, "train_data": data},
            loss_guard=LossGuard(max_lost_loops=2),
            evaluate=False,
        )


GUARD = LossGuard(roll_back=True, max_roll_backs=2)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_run_goes_back_and_leaves_the_bad_batches_out_where_the_options_say_so(
    tmp_path, replicas
):
    changes = {"make_model": NOISY_VIT, "schedule": longer(8)}
    strategy = make_strategy() if replicas == 1 else small.mirrored(replicas)
    options = {"loss_guard": GUARD, "strategy": strategy, "evaluate": False}
    spoiled = spoiled_at(3, lambda images: images * np.float32("inf"))
    results = train(tmp_path / "bad", {**changes, "train_data": spoiled}, **options)
    assert results["step"] == 8 and results["traced"] == 1
    (event,) = read_metrics(tmp_path / "bad", "roll_back")
    assert (event["step"], event["from_step"], event["left_out_batches"]) == (2, 4, 2)

    # The same as a run whose data never had batches 2 and 3.
    without = small.Arrays(IMAGES[:200], LABELS[:200], numbers=skipping(2, 2))
    train(tmp_path / "good", {**changes, "train_data": without}, **options)
    assert saved(tmp_path / "bad", 8) == saved(tmp_path / "good", 8)


def longer(steps):
    return ReciprocalSqrt(
        1e-2,
        total_steps=steps,
        warmup_steps=2,
        cooldown_steps=2,
        timescale_steps=2,
    )


def skipping(first, count):
    return lambda n: tf.where(n >= first, n + count, n)


def test_a_killed_run_goes_back_again_to_the_same_weights(tmp_path):
    spoiled = spoiled_at(3, lambda images: images * np.float32("inf"))
    changes = {"train_data": spoiled, "schedule": longer(8)}
    options = {"loss_guard": GUARD, "evaluate": False}
    train(tmp_path / "whole", changes, **options)
    for step in (2, 6):  # Before and after the roll-back.
        copy = tmp_path / f"from_{step}"
        shutil.copytree(tmp_path / "whole", copy)
        for later in steps_of(copy):
            if later > step:
                shutil.rmtree(checkpoint_folder(copy / "checkpoints", later))
        train(copy, changes, **options)
        assert saved(copy, 8) == saved(tmp_path / "whole", 8)


def test_a_run_that_was_asked_to_end_goes_back_to_the_same_weights(
    tmp_path, monkeypatch
):
    """What SIGTERM saved in between does not change where a roll-back goes."""
    spoiled = spoiled_at(5, lambda images: images * np.float32("inf"))
    changes = {"train_data": spoiled, "schedule": longer(8)}
    options = {"loss_guard": GUARD, "evaluate": False, "checkpoint_every_steps": 4}
    options["steps_per_loop"] = 1
    train(tmp_path / "whole", changes, **options)

    def end_at_5(run, outputs):
        if run.step == 5:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Run, "log_loop", end_at_5)
        with pytest.raises(PreemptedError, match="saved at step 5"):
            train(tmp_path / "ended", changes, **options)
    assert 5 in steps_of(tmp_path / "ended")
    train(tmp_path / "ended", changes, **options)
    (event,) = read_metrics(tmp_path / "ended", "roll_back")
    assert (event["step"], event["from_step"]) == (4, 6)
    assert saved(tmp_path / "ended", 8) == saved(tmp_path / "whole", 8)


def test_a_run_that_goes_back_too_often_stops(tmp_path):
    always = small.Arrays(IMAGES[:200] * np.float32("nan"), LABELS[:200])
    with pytest.raises(NonFiniteError):
        train(tmp_path / "stop", {"train_data": always})
    with pytest.raises(DivergedError, match="rolled back 2 times already"):
        train(tmp_path / "back", {"train_data": always}, loss_guard=GUARD)
    assert len(read_metrics(tmp_path / "back", "diverged")) == 1  # All at step 2.
    assert steps_of(tmp_path / "back") == [0]


def test_sigterm_saves_at_the_end_of_the_loop_and_the_run_ends_as_uninterrupted(
    noisy, tmp_path
):
    read = []

    def terminate(number):
        read.append(int(number))
        if number == 3 and read.count(0) == 2:  # First, samples are read and shown.
            signal.raise_signal(signal.SIGTERM)
        return np.float32(0)

    def during(images, number):
        zero = tf.py_function(terminate, [number], tf.float32)
        return images + tf.ensure_shape(zero, [])

    changes = {"make_model": NOISY_VIT}
    data = small.Arrays(IMAGES[:200], LABELS[:200], during)
    with pytest.raises(PreemptedError, match="saved at step"):
        train(tmp_path, {**changes, "train_data": data}, checkpoint_every_steps=6)
    (reached,) = [step for step in steps_of(tmp_path) if step]
    assert reached in (2, 4)  # The pipeline reads ahead.
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    train(tmp_path, changes)
    assert saved(tmp_path) == saved(noisy)


@pytest.fixture
def survives_sigterm():
    """Keep the process of the tests alive where a run does not watch for SIGTERM."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    yield
    signal.signal(signal.SIGTERM, before)


class Terminating(InLoopEvaluator):
    """An evaluator in whose first turn SIGTERM comes."""

    name, interval_steps = "other", 2

    def __init__(self):
        self.turns = 0

    def evaluate(self, model, strategy):
        self.turns += 1
        if self.turns == 1:
            signal.raise_signal(signal.SIGTERM)
        return {"turns": float(self.turns)}


def test_sigterm_while_evaluating_ends_the_run_before_another_loop(
    finished, tmp_path, survives_sigterm
):
    changes = {"make_optimizer": AVERAGED, "evaluators": [Terminating()]}
    options = {"evaluate_averages": True, "checkpoint_every_steps": 6}
    with pytest.raises(PreemptedError, match="saved at step 2"):
        train(tmp_path, changes, **options)
    assert steps_of(tmp_path) == [0, 2]
    assert saved(tmp_path, 2) == saved(finished[0], 2)  # Not the averages.
    train(tmp_path, changes, **options)
    assert saved(tmp_path) == saved(finished[0])


def test_sigterm_while_the_run_is_made_ends_it_before_its_first_loop(
    tmp_path, survives_sigterm
):
    def make_model():
        signal.raise_signal(signal.SIGTERM)
        return small.linear()

    with pytest.raises(PreemptedError, match="saved at step 0"):
        train(tmp_path, {"make_model": make_model})
    assert steps_of(tmp_path) == [0] and not read_metrics(tmp_path, "train")


def test_sigterm_in_the_last_evaluation_lets_the_run_end(tmp_path, survives_sigterm):
    changes = {"evaluators": [Terminating()]}
    assert train(tmp_path, changes, eval_every_steps=None)["other"] == {"turns": 1}


def test_another_batch_size_does_not_continue_with_a_run(tmp_path):
    train(tmp_path, evaluate=False, checkpoint_every_steps=6)
    with pytest.raises(ValueError, match="`batch_size` must be the one that the run"):
        train(tmp_path, {"batch_size": 16}, evaluate=False)
    assert steps_of(tmp_path) == [0, 6]


def test_without_an_interval_a_run_is_saved_at_start_and_end(tmp_path):
    train(tmp_path, evaluate=False, checkpoint_every_steps=None, keep_last=None)
    assert steps_of(tmp_path) == [0, 6]


def test_chosen_steps_are_profiled(tmp_path):
    train(tmp_path, evaluate=False, profile_steps=[3, 5])
    assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))
    assert [row["step"] for row in read_metrics(tmp_path, "train")] == [2, 3, 4, 5, 6]


def test_the_share_of_the_peak_is_reported_where_a_peak_is_known(tmp_path):
    train(tmp_path, evaluate=False, peak_flops_per_core=1e9)
    row = read_metrics(tmp_path, "train")[-1]
    operations = 3 * 2 * 192 * 10  # The linear model's, per image.
    expected = row["images_per_second_per_core"] * operations / 1e9
    assert row["share_of_peak"] == pytest.approx(expected, rel=1e-6)


def test_a_folder_of_another_model_is_rejected_and_stays_as_it_is(finished, tmp_path):
    copy = shutil.copytree(finished[0], tmp_path / "copy")
    files = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    with pytest.raises(
        ValueError, match="`model_dir` holds another model or optimizer"
    ):
        train(copy, {"make_model": small.small_vit})
    with pytest.raises(
        ValueError, match="`model_dir` holds another model or optimizer"
    ):
        train(copy, {"make_optimizer": MOMENTUM})
    with pytest.raises(ValueError, match=r"`seed` must be.*--seed=5"):
        train(copy, {"make_optimizer": AVERAGED}, seed=7)
    assert files == {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}


def unmade():
    raise AssertionError("no model should be made")


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"batch_size": 9}, {}, r"`batch_size` must be a multiple of the 2"),
        ({"batch_size": 0}, {}, "`batch_size` must be an integer of at least 1"),
        ({"eval_batch_size": 7}, {}, "`eval_batch_size` must be a multiple"),
        ({}, {"best_metric": "eval/top3"}, "`best_metric` must be eval/top1"),
        (
            {},
            {"steps_per_loop": 0},
            "`steps_per_loop` must be an integer of at least 1",
        ),
        ({}, {"branch_at": [7]}, "`branch_at` must be steps of the run"),
        ({}, {"profile_steps": [6, 9]}, "`profile_steps` must begin before"),
    ],
)
def test_what_does_not_fit_together_is_reported_before_a_model_is_made(
    tmp_path, changes, options, message
):
    changes = {"make_model": unmade, **changes}
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "run", changes, small.mirrored(2), **options)
    assert not (tmp_path / "run").exists()


def test_averages_that_the_optimizer_does_not_keep_are_reported_before_the_first_step(
    tmp_path,
):
    with pytest.raises(ValueError, match="`average_decay`"):
        train(tmp_path, evaluate_averages=True)
    assert not read_metrics(tmp_path, "train")


def test_a_run_that_cannot_be_saved_does_not_begin(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="could not be written"):
        train(tmp_path)
    assert not read_metrics(tmp_path, "train")


def test_several_workers_cannot_follow_checkpoints(tmp_path, monkeypatch):
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    monkeypatch.setattr(strategy.extended, "_num_workers", 2)
    with pytest.raises(ValueError, match="`continuous_eval` needs one process"):
        runs.evaluate_continuously(
            small.experiment(), model_dir=tmp_path, strategy=strategy
        )
