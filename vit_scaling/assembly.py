"""Assemble the parts of a run: model, optimizer, checkpoints, trainer, evaluator."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import orbit
import tensorflow as tf
from etils import epath

from vit_scaling.experiment import Experiment
from vit_scaling.image_preprocessing import CentralCrop, EvaluationPreprocessing
from vit_scaling.optimization.averaging import averaged_weights
from vit_scaling.run_record import RunRecord
from vit_scaling.training import checks, run_files
from vit_scaling.training import strategy as strategies
from vit_scaling.training.checkpoint_evaluation import CheckpointEvaluation
from vit_scaling.training.checkpoints import GLOBAL_STEP, Checkpoints, variables_of
from vit_scaling.training.divergence import LossWatch
from vit_scaling.training.evaluator import Evaluator
from vit_scaling.training.logs import RunLog
from vit_scaling.training.model_flops import training_flops_per_image
from vit_scaling.training.options import RunOptions
from vit_scaling.training.preemption import PreemptionNotice
from vit_scaling.training.processes import sum_over_processes
from vit_scaling.training.profiling import Profiler
from vit_scaling.training.progress import Progress
from vit_scaling.training.run import Run
from vit_scaling.training.run_state import RunState
from vit_scaling.training.step_times import StepTimes
from vit_scaling.training.trainer import Trainer


def build_run(
    experiment: Experiment,
    options: RunOptions,
    *,
    model_dir: epath.PathLike,
    strategy: tf.distribute.Strategy,
    preemption: PreemptionNotice | None = None,
) -> Run:
    """Assemble a run: model, optimizer, checkpoints, trainer, evaluator.

    Nothing is restored or written before `Run.restore` and `Run.train`.

    Args:
        experiment: What is trained, on which data.
        options: How it is trained, saved and evaluated.
        model_dir: Folder of checkpoints, logs and the files that describe the run.
        strategy: From `training.strategy.make_strategy`.
        preemption: Whether SIGTERM came. None: SIGTERM ends the process.

    Raises:
        ValueError: Settings are inconsistent.
    """
    experiment.check(strategy, options)
    keras.utils.set_random_seed(options.seed)
    schedule = experiment.schedule_in_steps()
    total_steps = schedule.total_steps
    options.check_total_steps(total_steps)
    preemption = preemption or PreemptionNotice(sum_over_processes(strategy))
    is_chief = strategies.is_chief(strategy)
    log = RunLog(model_dir, writes=is_chief)
    checkpoints = _open_checkpoints(options, model_dir, total_steps, writes=is_chief)
    saved = len(checkpoints.steps()) if is_chief else 0
    has_checkpoint = preemption.sum_over_processes(saved) > 0
    with strategy.scope():
        model = experiment.build_model()
        if experiment.load_weights is not None and not has_checkpoint:
            experiment.load_weights(model)
        optimizer = experiment.build_optimizer(model, schedule)
        global_step = orbit.utils.create_global_step()
    state = RunState(
        variables_of(model, optimizer, global_step),
        checkpoints,
        _build_progress(experiment, model, strategy, options, total_steps),
        LossWatch(options.loss_guard),
        seed=options.seed,
        sum_over_processes=preemption.sum_over_processes,
        pipelines=strategies.count_input_pipelines(strategy),
    )
    evaluated_weights: Callable[[], Any] = contextlib.nullcontext
    if options.evaluate_averages:
        checks.check_averages(optimizer)
        evaluated_weights = functools.partial(
            averaged_weights, optimizer, model.trainable_variables
        )
    return Run(
        options=options,
        model=model,
        trainer=_build_trainer(
            experiment,
            options,
            model,
            optimizer,
            state,
            strategy=strategy,
            profiler=Profiler(model_dir, options.profile_steps, enabled=is_chief),
        ),
        evaluator=_build_evaluator(
            experiment, options, model, global_step, log, strategy=strategy
        ),
        state=state,
        log=log,
        preemption=preemption,
        batches_from=functools.partial(
            experiment.train_batches, strategy, options.seed
        ),
        evaluated_weights=evaluated_weights,
    )


def build_checkpoint_evaluation(
    experiment: Experiment,
    options: RunOptions,
    *,
    model_dir: epath.PathLike,
    strategy: tf.distribute.Strategy,
    averages: bool,
) -> CheckpointEvaluation:
    """Assemble the parts of a run that evaluate its checkpoints.

    Args:
        experiment: As it was trained.
        options: Of which only `jit_compile` is used.
        model_dir: Folder of the run.
        strategy: Strategy under which it is evaluated.
        averages: Whether averaged weights are evaluated.
    """
    log = RunLog(model_dir, writes=strategies.is_chief(strategy))
    with strategy.scope():
        model = experiment.build_model()
        global_step = orbit.utils.create_global_step()
    return CheckpointEvaluation(
        model=model,
        evaluator=_build_evaluator(
            experiment,
            options,
            model,
            global_step,
            log,
            strategy=strategy,
            always=True,
        ),
        global_step=global_step,
        model_dir=model_dir,
        strategy=strategy,
        averages=averages,
    )


def make_run_record(
    experiment: Experiment, model: keras.Model, options: RunOptions
) -> RunRecord:
    """Return what later programs need to know of the run and its data."""
    first = next(iter(experiment.eval_sets().values()), None)
    size = (first or experiment.train_data).image_size
    preprocess = first.preprocess if first else CentralCrop()
    recorded: dict[str, Any] = {"preprocess": None}
    if isinstance(preprocess, EvaluationPreprocessing):
        recorded = preprocess.to_record(size)
    height, width = model.inputs[0].shape[1:3]
    return RunRecord(
        class_names=tuple(experiment.train_data.source.class_names or ()),
        image_size=(height, width),
        value_range=experiment.train_data.value_range,
        loss=experiment.loss.__name__,
        seed=options.seed,
        evaluates_averages=options.evaluate_averages,
        train_images=int(experiment.train_data.num_examples),
        parameters=sum(math.prod(v.shape) for v in model.trainable_variables),
        versions=run_files.versions(),
        **recorded,
    )


def _open_checkpoints(
    options: RunOptions, model_dir: epath.PathLike, total_steps: int, *, writes: bool
) -> Checkpoints:
    return Checkpoints(
        model_dir,
        keep_last=options.keep_last,
        keep_every_steps=options.keep_every_steps,
        keep_steps=options.all_keep_steps,
        scheduled=lambda step: options.is_checkpoint_due(step, total_steps),
        asynchronous=options.asynchronous_checkpoints,
        writes=writes,
    )


def _build_progress(
    experiment: Experiment,
    model: keras.Model,
    strategy: tf.distribute.Strategy,
    options: RunOptions,
    total_steps: int,
) -> Progress:
    peak = options.peak_flops_per_core
    return Progress(
        batch_size=experiment.batch_size,
        total_steps=total_steps,
        cores=strategies.count_cores(strategy),
        replicas=strategy.num_replicas_in_sync,
        flops_per_image=None if peak is None else training_flops_per_image(model),
        peak_flops_per_core=peak,
    )


def _build_trainer(
    experiment: Experiment,
    options: RunOptions,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    state: RunState,
    *,
    strategy: tf.distribute.Strategy,
    profiler: Profiler,
) -> Trainer:
    xla = strategies.choose_xla(strategy, options.jit_compile)
    times = StepTimes.for_strategy(strategy)
    with strategy.scope():
        step = experiment.make_step(
            model,
            optimizer,
            replicas=strategy.num_replicas_in_sync,
            compile_gradients=xla.each_replica,
            compile_step=xla.whole_step,
        )
        return Trainer(
            step,
            optimizer,
            strategy=strategy,
            global_step=state.variables[GLOBAL_STEP],
            progress=state.progress,
            learning_rate=experiment.schedule_in_steps().at,
            watch=state.watch,
            times=times,
            profiler=profiler,
        )


def _build_evaluator(
    experiment: Experiment,
    options: RunOptions,
    model: keras.Model,
    global_step: tf.Variable,
    log: RunLog,
    *,
    strategy: tf.distribute.Strategy,
    always: bool = False,
) -> Evaluator:
    with strategy.scope():
        return Evaluator(
            model,
            experiment.loss,
            experiment.eval_batches(strategy) if options.evaluate else {},
            strategy=strategy,
            global_step=global_step,
            log=log,
            others=experiment.evaluators if options.evaluate else (),
            always=always,
            jit_compile=strategies.choose_xla(strategy, options.jit_compile).on,
        )
