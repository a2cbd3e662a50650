"""Assemble the parts of a run: model, optimizer, checkpoints, trainer, evaluator."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import orbit
import tensorflow as tf
from etils import epath

from vit_scaling.class_names import names_of
from vit_scaling.data.epoch_order import ORDER_VERSION
from vit_scaling.experiment import Experiment
from vit_scaling.image_preprocessing import CentralCrop, EvaluationPreprocessing
from vit_scaling.optimization.averaging import averaged_weights
from vit_scaling.run_record import RunRecord, find_run_record, uses_averages
from vit_scaling.training import run_files
from vit_scaling.training import strategy as strategies
from vit_scaling.training.checkpoint_evaluation import CheckpointEvaluation
from vit_scaling.training.checkpoint_variables import GLOBAL_STEP, variables_of
from vit_scaling.training.checkpoints import Checkpoints
from vit_scaling.training.divergence import LossWatch
from vit_scaling.training.evaluator import Evaluator
from vit_scaling.training.logs import RunLog, check_logged_steps_are_saved
from vit_scaling.training.model_flops import training_flops_per_image
from vit_scaling.training.options import RunOptions
from vit_scaling.training.preemption import PreemptionNotice
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
        FileNotFoundError: The run's checkpoints were removed.
    """
    experiment.check(strategy, options)
    names = names_of(experiment.train_data)
    experiment = experiment.with_class_names(names, reference="the training set")
    averages = uses_averages(model_dir, options.evaluate_averages)
    options = dataclasses.replace(options, evaluate_averages=averages)
    keras.utils.set_random_seed(options.seed)
    schedule = experiment.schedule_in_steps()
    options.check_total_steps(schedule.total_steps)
    preemption = preemption or PreemptionNotice(strategies.sum_over_processes(strategy))
    parts = _Assembly(experiment, options, model_dir, strategy)
    checkpoints = parts.build_checkpoints(schedule.total_steps)
    if checkpoints.writes:
        check_logged_steps_are_saved(model_dir)
    saved = len(checkpoints.steps()) if checkpoints.writes else 0
    has_checkpoint = preemption.sum_over_processes(saved) > 0
    parts.log.say("Building the model.")
    with strategy.scope():
        model = experiment.build_model()
        initial_weights = parts.load_initial_weights(model, resumes=has_checkpoint)
        optimizer = experiment.build_optimizer(model, schedule)
        global_step = orbit.utils.create_global_step()
    state = RunState(
        variables_of(model, optimizer, global_step),
        checkpoints,
        parts.build_progress(model, schedule.total_steps),
        LossWatch(options.loss_guard),
        seed=options.seed,
        sum_over_processes=preemption.sum_over_processes,
        pipelines=strategies.count_input_pipelines(strategy),
        allow_changes=options.allow_changes,
        order_version=ORDER_VERSION,
    )
    evaluated_weights: Callable[[], Any] = contextlib.nullcontext
    if options.evaluate_averages:
        _check_averages(optimizer)
        evaluated_weights = functools.partial(
            averaged_weights, optimizer, model.trainable_variables
        )
    return Run(
        options=options,
        model=model,
        trainer=parts.build_trainer(model, optimizer, state),
        evaluator=parts.build_evaluator(model, global_step),
        state=state,
        log=parts.log,
        preemption=preemption,
        batches_from=functools.partial(
            experiment.train_batches, strategy, options.seed
        ),
        evaluated_weights=evaluated_weights,
        initial_weights=initial_weights,
    )


def build_checkpoint_evaluation(
    experiment: Experiment,
    options: RunOptions,
    *,
    model_dir: epath.PathLike,
    strategy: tf.distribute.Strategy,
    averages: bool | None,
) -> CheckpointEvaluation:
    """Assemble the parts of a run that evaluate its checkpoints.

    Args:
        experiment: As it was trained.
        options: Of which only `jit_compile` is used.
        model_dir: Folder of the run.
        strategy: Strategy under which it is evaluated.
        averages: Whether averaged weights are evaluated. None: those that training
            evaluates.
    """
    record = find_run_record(model_dir)
    names = record.class_names if record else ()
    experiment = experiment.with_class_names(names, reference="the run")
    with strategy.scope():
        model = experiment.build_model()
        global_step = orbit.utils.create_global_step()
    parts = _Assembly(experiment, options, model_dir, strategy)
    return CheckpointEvaluation(
        model=model,
        evaluator=parts.build_evaluator(model, global_step, always=True),
        global_step=global_step,
        model_dir=model_dir,
        strategy=strategy,
        averages=averages,
    )


def make_run_record(
    experiment: Experiment,
    model: keras.Model,
    options: RunOptions,
    initial_weights: Mapping[str, Any] | None = None,
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
        class_names=names_of(experiment.train_data),
        image_size=(height, width),
        value_range=experiment.train_data.value_range,
        loss=experiment.loss.__name__,
        seed=options.seed,
        evaluates_averages=bool(options.evaluate_averages),
        initial_weights=initial_weights,
        train_images=int(experiment.train_data.num_examples),
        parameters=sum(math.prod(v.shape) for v in model.trainable_variables),
        versions=run_files.versions(),
        **recorded,
    )


@dataclasses.dataclass(frozen=True)
class _Assembly:
    """The settings of a run, from which its parts are built."""

    experiment: Experiment
    options: RunOptions
    model_dir: epath.PathLike
    strategy: tf.distribute.Strategy

    @functools.cached_property
    def log(self) -> RunLog:
        return RunLog(self.model_dir, writes=strategies.is_chief(self.strategy))

    def load_initial_weights(
        self, model: keras.Model, *, resumes: bool
    ) -> Mapping[str, Any] | None:
        """Load the weights that a new run starts from; return the record of them."""
        if resumes:
            record = find_run_record(self.model_dir)
            return None if record is None else record.initial_weights
        load = self.experiment.load_weights
        data = self.experiment.train_data
        if load is not None:
            self.log.say("Loading the initial weights.")
        report = None if load is None else load(model, target=data)
        if report is None:
            return None
        self.log.say(str(report))
        return report.as_dict()

    def build_checkpoints(self, total_steps: int) -> Checkpoints:
        options = self.options
        return Checkpoints(
            self.model_dir,
            keep_last=options.keep_last,
            keep_every_steps=options.keep_every_steps,
            keep_steps=options.all_keep_steps,
            scheduled=lambda step: options.is_checkpoint_due(step, total_steps),
            asynchronous=options.asynchronous_checkpoints,
            writes=strategies.is_chief(self.strategy),
        )

    def build_progress(self, model: keras.Model, total_steps: int) -> Progress:
        peak = self.options.peak_flops_per_core
        return Progress(
            batch_size=self.experiment.batch_size,
            total_steps=total_steps,
            cores=strategies.count_cores(self.strategy),
            replicas=self.strategy.num_replicas_in_sync,
            flops_per_image=None if peak is None else training_flops_per_image(model),
            peak_flops_per_core=peak,
        )

    def build_trainer(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        state: RunState,
    ) -> Trainer:
        options, strategy = self.options, self.strategy
        xla = strategies.choose_xla(strategy, options.jit_compile)
        times = StepTimes.for_strategy(strategy)
        is_chief = strategies.is_chief(strategy)
        with strategy.scope():
            step = self.experiment.make_step(
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
                learning_rate=self.experiment.schedule_in_steps().at,
                watch=state.watch,
                times=times,
                profiler=Profiler(
                    self.model_dir, options.profile_steps, enabled=is_chief
                ),
            )

    def build_evaluator(
        self, model: keras.Model, global_step: tf.Variable, *, always: bool = False
    ) -> Evaluator:
        experiment, options, strategy = self.experiment, self.options, self.strategy
        with strategy.scope():
            return Evaluator(
                model,
                experiment.loss,
                experiment.eval_batches(strategy) if options.evaluate else {},
                strategy=strategy,
                global_step=global_step,
                log=self.log,
                others=experiment.evaluators if options.evaluate else (),
                always=always,
                jit_compile=strategies.choose_xla(strategy, options.jit_compile).on,
            )


def _check_averages(optimizer: keras.optimizers.Optimizer) -> None:
    if getattr(optimizer, "average_decay", None) is None:
        raise ValueError(
            "`evaluate_averages` needs averaged weights; bind the optimizer's "
            "`average_decay` (0.9999 for ViT-G's fine-tuning)."
        )
