"""Train an experiment, evaluate its checkpoints, and branch cooldowns off its run."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import tensorflow as tf
from etils import epath

from vit_scaling.argument_types import NonNegativeInt, PositiveFloat
from vit_scaling.assembly import (
    build_checkpoint_evaluation,
    build_run,
    make_run_record,
)
from vit_scaling.evaluation.error_report import guess_classes, write_report
from vit_scaling.evaluation.fewshot import check_parent_folder
from vit_scaling.experiment import Experiment
from vit_scaling.optimization.state_size import cost_of, cost_text
from vit_scaling.run_check import check_evaluations, describe
from vit_scaling.run_record import find_run_record
from vit_scaling.training import run_files
from vit_scaling.training import strategy as strategies
from vit_scaling.training.branches import prepare_branch
from vit_scaling.training.checkpoint_evaluation import (
    CheckpointEvaluation,
    evaluate_as_they_appear,
)
from vit_scaling.training.evaluator import local_batch
from vit_scaling.training.logs import RunLog
from vit_scaling.training.losses import softmax_cross_entropy
from vit_scaling.training.options import RunOptions
from vit_scaling.training.preemption import PreemptionNotice
from vit_scaling.training.run import Run, describe_run
from vit_scaling.training.run_lock import hold_run_lock
from vit_scaling.training.settings import (
    TRAIN_DATA,
    Settings,
    changes_at_resume,
    describe_changes,
    save_settings,
)

_SAMPLE_IMAGES = 8  # Training images shown in TensorBoard, after augmentation.


def train(
    experiment: Experiment,
    options: RunOptions | None = None,
    *,
    model_dir: epath.PathLike,
    strategy: tf.distribute.Strategy,
    texts: Callable[[], Mapping[str, str]] = dict,
    settings: Settings = MappingProxyType({}),
) -> dict[str, Any]:
    """Train from the newest checkpoint, or from scratch, to the end of the schedule.

    Args:
        experiment: What is trained, on which data.
        options: How it is trained, saved and evaluated. None: the defaults.
        model_dir: Folder of checkpoints, logs and the files that describe the run.
        strategy: From `training.strategy.make_strategy`.
        texts: Called at start and end; returns files to write to `model_dir`, such as
            {"config.gin": …}.
        settings: What the run is compared with when it resumes, such as
            `configurables.effective_settings()`; the training data, and the versions of
            packages, are always compared.

    Returns:
        {"step", "traced", SET: {"top1", …}}: the metrics of the last evaluation.

    Raises:
        ValueError: Settings are inconsistent, or differ from those of the run that
            is resumed and may not; nothing that was saved is lost.
        DivergedError: The loss diverged (NonFiniteError: it is not finite).
        PreemptedError: SIGTERM came; the run is saved and can be started again.
        RunLockedError: Another process trains in `model_dir`.
        OSError: A checkpoint or the log could not be written; earlier ones exist.
    """
    options = options or RunOptions()
    is_chief = strategies.is_chief(strategy)
    lock = hold_run_lock(model_dir) if is_chief else contextlib.nullcontext()
    preemption = PreemptionNotice(strategies.sum_over_processes(strategy))
    log = RunLog(model_dir, writes=is_chief)
    with lock as held, preemption.catch_sigterm():
        log.say("Reading the lists of images.")
        settings = {**settings, **_data_and_versions(experiment)}
        changes = changes_at_resume(model_dir, settings, options.allow_changes)
        if changes:
            log.say(describe_changes(changes))
        run = build_run(
            experiment,
            options,
            model_dir=model_dir,
            strategy=strategy,
            preemption=preemption,
        )
        if held is not None:
            run.check_lock = held.check
        log.say("Checking evaluations and restoring the newest checkpoint, if any.")
        check_evaluations(run, experiment)
        run.restore()
        _announce(run, experiment)
        log.say("Writing the files that describe the run, and the first checkpoint.")
        if is_chief:
            record = make_run_record(
                experiment, run.model, run.options, run.initial_weights
            )
            if changes:
                run_files.number_config(model_dir)
                rows = [[change.name, change.before, change.now] for change in changes]
                run.log.record("settings", run.step, {"changes": rows})
            run_files.write_run_files(model_dir, run.model, record, texts())
            save_settings(model_dir, settings)
            _write_tensorboard(
                run, experiment, texts(), settings, changed=bool(changes)
            )
        if not run.resumed:
            run.state.save(wait=True)  # A run that cannot save stops before it trains.
        with contextlib.closing(run.trainer.profiler):
            metrics = run.train()
        run.state.checkpoints.wait()
        if is_chief:
            run_files.write_texts(model_dir, texts())
        run.state.wait_for_all_processes()
    return {"step": run.step, "traced": run.trainer.traces(), **metrics}


def check(
    experiment: Experiment,
    options: RunOptions | None = None,
    *,
    model_dir: epath.PathLike,
    strategy: tf.distribute.Strategy,
    settings: Settings = MappingProxyType({}),
) -> None:
    """Build and check a run as `train` does before its first step; print a summary.

    Nothing is written. The arguments are those of `train`.

    Raises:
        ValueError: Settings are inconsistent, or differ from those of the run that
            would be resumed and may not.
        FileNotFoundError: The files of a set are missing.
    """
    options = options or RunOptions()
    settings = {**settings, **_data_and_versions(experiment)}
    changes = changes_at_resume(model_dir, settings, options.allow_changes)
    run = build_run(experiment, options, model_dir=model_dir, strategy=strategy)
    changes = [change for change in changes if change.name != "--mode"]
    if changes:
        run.log.say(describe_changes(changes))
    run.log.say(describe(run, experiment))
    _announce(run, experiment)
    run.log.say("The run can start: its sets, evaluators and settings fit together.")


def evaluate(
    experiment: Experiment,
    *,
    model_dir: epath.PathLike,
    strategy: tf.distribute.Strategy,
    averages: bool | None = None,
    step: NonNegativeInt | None = None,
    jit_compile: bool | None = None,
    report: str | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint on every evaluation set.

    Args:
        experiment: As it was trained; its `eval_data` and `evaluators` are evaluated.
        model_dir: Folder of the run.
        strategy: From `training.strategy.make_strategy`; need not be the run's.
        averages: Whether averaged weights are evaluated. None: those that training
            evaluates.
        step: Which checkpoint. None takes the newest complete one.
        jit_compile: Whether XLA compiles the step. None: on a single GPU only.
        report: File for an HTML page with accuracy by class, confusions, calibration
            and the worst mistakes (`evaluation.error_report`). None: no page.

    Returns:
        {"step", SET: {"top1", "top5", "loss", "examples"}}; accuracies in [0, 1].

    Raises:
        FileNotFoundError: The run has no checkpoint (of that step), or the report's
            folder does not exist.
        ValueError: The checkpoint is of another model, or a report is asked of several
            workers.
    """
    if report is not None:
        _check_report(report, strategy)
    options = RunOptions(jit_compile=jit_compile)
    evaluation = build_checkpoint_evaluation(
        experiment, options, model_dir=model_dir, strategy=strategy, averages=averages
    )
    metrics = evaluation.evaluate(step)
    if report is not None:
        _write_error_report(report, experiment, evaluation, metrics["step"])
    return metrics


def evaluate_continuously(
    experiment: Experiment,
    *,
    model_dir: epath.PathLike,
    strategy: tf.distribute.Strategy,
    averages: bool | None = None,
    jit_compile: bool | None = None,
    timeout_seconds: PositiveFloat = 3600.0,
) -> dict[str, Any]:
    """Evaluate checkpoints as another process writes them, until the run's last.

    Args:
        experiment: As it is trained.
        model_dir: Folder of the run.
        strategy: From `training.strategy.make_strategy`, of a single process.
        averages: Whether averaged weights are evaluated. None: those that training
            evaluates.
        jit_compile: Whether XLA compiles the step. None: on a single GPU only.
        timeout_seconds: How long to wait for the next checkpoint before giving up.

    Returns:
        The metrics of the last checkpoint, as `evaluate` returns them.

    Raises:
        TimeoutError: Not one checkpoint appeared in time.
        ValueError: The strategy has several workers.
    """
    if strategies.has_several_processes(strategy):
        raise ValueError(
            "`continuous_eval` needs one process, since workers would see checkpoints "
            "at different times; received several workers. Run it with --distribution="
            "one_device or mirrored."
        )
    options = RunOptions(jit_compile=jit_compile)
    evaluation = build_checkpoint_evaluation(
        experiment, options, model_dir=model_dir, strategy=strategy, averages=averages
    )
    return evaluate_as_they_appear(
        evaluation.evaluate,
        model_dir,
        timeout_seconds=timeout_seconds,
        last_step=experiment.schedule_in_steps().total_steps,
    )


def branch_cooldowns(
    experiment: Experiment,
    options: RunOptions | None = None,
    *,
    model_dir: epath.PathLike,
    strategy: tf.distribute.Strategy,
    branch_at: Sequence[int],
    cooldown_steps: int | Sequence[int] | None = None,
    texts: Callable[[], Mapping[str, str]] = dict,
    settings: Settings = MappingProxyType({}),
) -> dict[str, dict[str, Any]]:
    """Turn a long run into finished models at several durations (§3.5).

    Each branch follows the run from its last checkpoint before `start` to `start`,
    cools down to zero, is evaluated, and stays in a separate folder with a record of
    its parent. The run itself is only read. Branches that were killed continue.

    Args:
        experiment: As the run was trained.
        options: How the branches are trained. None: the defaults.
        model_dir: Folder of the run.
        strategy: From `training.strategy.make_strategy`.
        branch_at: Steps at which the cooldowns begin.
        cooldown_steps: Length of the cooldowns, one for all or one for each. None: that
            of the run's schedule.
        texts: As `train` takes it.
        settings: As `train` takes it; a branch is compared with its parent.

    Returns:
        {branch's folder: the result of `train`}.

    Raises:
        ValueError: A branch starts in the warm-up or the cooldown of the run, the
            schedule's decay depends on the total, or the numbers of starts and of
            lengths differ.
        FileNotFoundError: No checkpoint at or before a start is left.
    """
    schedule = experiment.schedule_in_steps()
    lengths = cooldown_steps or schedule.cooldown_steps
    if isinstance(lengths, int):
        lengths = [lengths] * len(branch_at)
    if len(lengths) != len(branch_at):
        raise ValueError(
            "`cooldown_steps` must be one length for all branches or one for each of "
            f"{list(branch_at)}; received {list(lengths)}."
        )
    pairs = sorted(zip(branch_at, lengths, strict=True))
    schedules = [schedule.branch(start, length) for start, length in pairs]
    folders = [prepare_branch(model_dir, start, length) for start, length in pairs]
    return {
        str(folder): train(
            dataclasses.replace(experiment, schedule=branch_schedule),
            options,
            model_dir=folder,
            strategy=strategy,
            texts=texts,
            settings=settings,
        )
        for folder, branch_schedule in zip(folders, schedules, strict=True)
    }


def _check_report(report: str, strategy: tf.distribute.Strategy) -> None:
    """Raise, before anything is evaluated, if a report cannot be written."""
    check_parent_folder(report)
    if strategies.has_several_processes(strategy):
        raise ValueError(
            "`report` needs one process, which sees all images; received several "
            "workers. Evaluate with --distribution=one_device or mirrored."
        )


def _write_error_report(
    path: str, experiment: Experiment, evaluation: CheckpointEvaluation, step: int
) -> None:
    """Write the page on an evaluated checkpoint's mistakes."""
    model, batch_size = evaluation.model, experiment.batch_size
    record = find_run_record(evaluation.model_dir)
    names = record.class_names if record else ()
    names = names or tuple(map(str, range(model.output_shape[-1])))
    images = experiment.with_class_names(names, reference="the run").eval_sets()
    guesses = {
        name: guess_classes(
            functools.partial(model, training=False),
            data,
            names,
            strategy=evaluation.strategy,
            batch_size=experiment.eval_batch_size or batch_size,
            # Gin wraps the function, so that `is` would not find it.
            softmax=experiment.loss.__name__ == softmax_cross_entropy.__name__,
        )
        for name, data in images.items()
    }
    write_report(
        path,
        {name: (guesses[name], data) for name, data in images.items()},
        title=f"{os.fspath(evaluation.model_dir)}, step {step:,}",
        value_range=experiment.train_data.value_range,
        batch_size=batch_size,
    )


def _data_and_versions(experiment: Experiment) -> Settings:
    """Return the facts of a run that no setting names, in the form of settings."""
    data = "the training data", experiment.train_data.describe()
    versions = run_files.versions().items()
    return {
        TRAIN_DATA: data,
        **{
            f"versions/{name}": (f"version of {name}", value)
            for name, value in versions
        },
    }


def _write_tensorboard(
    run: Run,
    experiment: Experiment,
    texts: Mapping[str, str],
    settings: Settings,
    *,
    changed: bool,
) -> None:
    """Mark a restart in TensorBoard's files, or write what a new run starts with."""
    board = run.log.tensorboard
    if run.resumed:
        board.restart(run.step, evaluates=run.is_evaluation_due())
        if not changed:
            return
    # The set that the trainer reads: building it again would take seconds.
    batch = local_batch(next(iter(run.trainer.train_dataset)), run.trainer.strategy)
    low, high = (np.asarray(v, np.float32) for v in experiment.train_data.value_range)
    images = (batch["images"][:_SAMPLE_IMAGES] - low) / (high - low)
    board.write_start(run.step, texts, settings, images)


def _announce(run: Run, experiment: Experiment) -> None:
    """Print the cost of the optimizer's state, and what is trained from which step."""
    variables = run.model.trainable_variables
    run.log.say(cost_text([cost_of(run.trainer.optimizer, variables)]))
    for line in run.trainer.optimizer.describe_rules(variables):
        run.log.say(line)
    if run.options.evaluate_averages:
        run.log.say("Averaged weights are evaluated, not the last ones.")
    xla = strategies.choose_xla(run.trainer.strategy, run.options.jit_compile).on
    images = experiment.train_data.num_examples
    run.log.say(describe_run(run, images=images, xla=xla))
