"""Cooldowns branched off a long run: their own folders, the run itself only read."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
from pathlib import Path

import pytest
import tensorflow as tf

from tests.training import small
from vit_scaling import io_files, runs
from vit_scaling.optimization.adam import Adam
from vit_scaling.optimization.learning_rate_schedules import Linear, ReciprocalSqrt
from vit_scaling.optimization.optimizer import Optimizer
from vit_scaling.run_record import load_run_record
from vit_scaling.training.branches import prepare_branch, read_branch_record
from vit_scaling.training.checkpoint_files import (
    CorruptCheckpointError,
    checkpoint_folder,
    read_checkpoint,
    saved_steps,
)
from vit_scaling.training.checkpoints import Checkpoints
from vit_scaling.training.logs import read_metrics
from vit_scaling.training.options import RunOptions
from vit_scaling.training.strategy import make_strategy

SCHEDULE = functools.partial(
    ReciprocalSqrt, 1e-2, warmup_steps=1, cooldown_steps=2, timescale_steps=2
)
OPTIONS = RunOptions(
    seed=5,
    jit_compile=False,
    steps_per_loop=1,
    checkpoint_every_steps=2,
    keep_last=9,
)


def long_run(path):
    experiment = small.experiment(schedule=SCHEDULE(total_steps=8))
    options = dataclasses.replace(OPTIONS, evaluate=False)
    runs.train(experiment, options, model_dir=path, strategy=make_strategy())
    return experiment


def contents(path):
    files = (p for p in path.rglob("*") if p.is_file() and "branch_" not in str(p))
    return {p: p.read_bytes() for p in files}


def bits(path, step):
    values, _ = read_checkpoint(checkpoint_folder(path / "checkpoints", step))
    return {key: value.tobytes() for key, value in values.items()}


def test_a_branch_ends_as_a_run_of_its_own_length_and_the_long_run_stays(tmp_path):
    experiment = long_run(tmp_path / "long")
    before = contents(tmp_path / "long")
    # Step 5 has no checkpoint: the branch first follows the run from step 4.
    results = runs.branch_cooldowns(
        experiment,
        OPTIONS,
        model_dir=tmp_path / "long",
        branch_at=[5],
        cooldown_steps=2,
        strategy=make_strategy(),
    )
    ((folder, figures),) = results.items()
    assert contents(tmp_path / "long") == before
    assert figures["step"] == 7 and figures["eval"]["examples"] == 43
    short = small.experiment(schedule=SCHEDULE(total_steps=7))
    runs.train(short, OPTIONS, model_dir=tmp_path / "short", strategy=make_strategy())
    branch = tmp_path / "long" / folder
    assert bits(branch, 7) == bits(tmp_path / "short", 7)
    rates = [row["learning_rate"] for row in read_metrics(branch, "train")]
    assert rates == [short.schedule.at(step) for step in (4, 5, 6)]
    record = read_branch_record(branch)
    assert record["parent_step"] == 4 and record["start_step"] == 5
    assert record["images_seen_by_parent"] == 4 * 8


def test_each_branch_may_have_a_different_length(tmp_path, monkeypatch):
    experiment = long_run(tmp_path)
    monkeypatch.setattr(
        runs, "train", lambda branch, *_, **__: branch.schedule.total_steps
    )

    def ends(cooldown_steps):
        done = runs.branch_cooldowns(
            experiment,
            model_dir=tmp_path,
            strategy=make_strategy(),
            branch_at=[5, 4],
            cooldown_steps=cooldown_steps,
        )
        return {Path(folder).name: end for folder, end in done.items()}

    assert ends([3, 2]) == {
        "branch_000000006_from_000000004": 6,
        "branch_000000008_from_000000005": 8,
    }
    assert sorted(ends(1).values()) == [5, 6]
    with pytest.raises(ValueError, match="one length for all branches or one for each"):
        ends([3, 2, 1])


def test_branch_of_an_averaged_run_evaluates_averages(tmp_path):
    averaged = functools.partial(Optimizer, Adam(), average_decay=0.5)
    changes = {"make_optimizer": averaged}
    experiment = small.experiment(schedule=SCHEDULE(total_steps=4), **changes)
    options = {"model_dir": tmp_path, "strategy": make_strategy()}
    averaging = dataclasses.replace(OPTIONS, evaluate_averages=True)
    runs.train(experiment, averaging, **options)
    branch = {"branch_at": [2], "cooldown_steps": 1}
    results = runs.branch_cooldowns(experiment, OPTIONS, **options, **branch)
    ((folder, metrics),) = results.items()
    assert load_run_record(folder).evaluates_averages
    values, _ = read_checkpoint(checkpoint_folder(Path(folder) / "checkpoints", 3))
    model = small.linear()
    for variable in model.variables:
        variable.assign(values[f"averages/{variable.path}"])
    loss = evaluated_loss(experiment, model)
    assert metrics["eval"]["loss"] == pytest.approx(loss, rel=1e-5)


def evaluated_loss(experiment, model):
    """Return the mean loss over the evaluation set, batch by batch."""
    losses = [
        experiment.loss(model(batch["images"]), batch["labels"])
        for batch in experiment.eval_data.dataset(batch_size=1)
    ]
    return float(tf.reduce_mean(losses))


def test_a_branch_that_was_prepared_is_found_again(tmp_path):
    long_run(tmp_path)
    first = prepare_branch(tmp_path, 5, 2)
    again = prepare_branch(tmp_path, 5, 2)
    assert first == again == tmp_path / "branch_000000007_from_000000005"
    assert saved_steps(first / "checkpoints") == [4]
    assert read_branch_record(tmp_path) is None  # The long run is no branch.


def test_on_an_object_store_a_branch_is_copied_manifest_last(tmp_path, monkeypatch):
    monkeypatch.setattr(io_files, "is_remote", lambda path: True)
    saved = Checkpoints(tmp_path, asynchronous=False)
    saved.save(4, {"run/global_step": tf.Variable(4)}, {"images_seen": 32})
    target = tmp_path / "branch_000000007_from_000000005" / "checkpoints"
    half = checkpoint_folder(target, 4)  # Of a copy that was cut off.
    half.mkdir(parents=True)
    (half / "half").write_text("half")
    copy, copied = type(saved.directory).copy, []

    def noted(path, *arguments, **options):
        copied.append((path.name, saved_steps(target)))
        return copy(path, *arguments, **options)

    monkeypatch.setattr(type(saved.directory), "copy", noted)
    prepare_branch(tmp_path, 5, 2)
    assert copied[-1] == ("manifest.json", []) and len(copied) == 3
    assert saved_steps(target) == [4] and not (half / "half").exists()
    assert read_checkpoint(half)[1]["step"] == 4


def test_a_branch_needs_a_whole_checkpoint_at_or_below_its_start(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`branch_at` needs a checkpoint.*5"):
        prepare_branch(tmp_path, 5, 2)
    long_run(tmp_path)
    folder = checkpoint_folder(tmp_path / "checkpoints", 4)
    data = next(folder.glob("*.data-*"))
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(CorruptCheckpointError, match="step_000000004"):
        prepare_branch(tmp_path, 5, 2)


@pytest.mark.parametrize(
    ("schedule", "start", "message"),
    [
        (SCHEDULE(total_steps=8), 7, "A branch must start between"),
        (SCHEDULE(total_steps=8), 0, "A branch must start between"),
        (Linear(1e-2, total_steps=8), 4, "cannot branch off Linear"),
    ],
)
def test_a_branch_that_the_schedule_cannot_have_is_rejected_at_once(
    tmp_path, schedule, start, message
):
    with pytest.raises(ValueError, match=message):
        runs.branch_cooldowns(
            small.experiment(schedule=schedule),
            OPTIONS,
            model_dir=tmp_path,
            branch_at=[start],
            cooldown_steps=2,
            strategy=make_strategy(),
        )
    assert not list(tmp_path.iterdir())


def test_a_branch_is_compared_with_its_parent(tmp_path):
    experiment = long_run(tmp_path)
    data = experiment.train_data
    fewer = dataclasses.replace(data, images=data.images[1:], labels=data.labels[1:])
    with pytest.raises(ValueError, match="was 200 images and is now 199 images"):
        runs.branch_cooldowns(
            dataclasses.replace(experiment, train_data=fewer),
            OPTIONS,
            model_dir=tmp_path,
            branch_at=[4],
            strategy=make_strategy(),
        )
