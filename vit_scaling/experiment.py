"""The whole run, top to bottom: train, evaluate, and evaluate as checkpoints appear."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import orbit
import tensorflow as tf
from etils import epath

from vit_scaling.data.pipeline import EvalData, TrainData
from vit_scaling.image_preprocessing import CentralCrop, EvaluationPreprocessing
from vit_scaling.optimization.averaging import averaged_weights
from vit_scaling.optimization.schedule import Schedule
from vit_scaling.optimization.state_size import cost_of, cost_text
from vit_scaling.run_record import RunRecord
from vit_scaling.training import checks, measuring, run, run_files
from vit_scaling.training import strategy as strategies
from vit_scaling.training.agreement import sum_over_processes
from vit_scaling.training.checkpoints import Checkpoints, variables_of
from vit_scaling.training.divergence import LossGuard, LossWatch
from vit_scaling.training.evaluator import Evaluator, InLoopEvaluator
from vit_scaling.training.logs import RunLog, Silence
from vit_scaling.training.losses import LossFunction, sigmoid_cross_entropy
from vit_scaling.training.preemption import Notice
from vit_scaling.training.profiling import Profiler
from vit_scaling.training.state import RunState
from vit_scaling.training.step import make_train_step
from vit_scaling.training.timing import StepTimes
from vit_scaling.training.trainer import Trainer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """What is trained, on what, how: the parts of a run, before any of it is made.

    Attributes:
        make_model: Returns a Keras model from images to logits (batch, classes). Where
            variables are born, as here, the scope is that of the run's strategy.
        make_optimizer: From `learning_rate` (the schedule) to one of our optimizers.
        schedule: Learning rate by step; its `total_steps` is the length of the run.
        train_data: The training images.
        batch_size: Images of one step over all replicas; 4096 in the paper (App. B).
        loss: (logits, labels) to (batch,); sigmoid cross-entropy in the paper (§3.3).
        eval_data: One evaluation set, or several by name.
        eval_batch_size: Images of an evaluation batch; `batch_size` where None.
        evaluators: What else is measured while training, each at its own interval.
        accumulate: Gathers gradients over micro-batches; None takes a batch whole.
        prepare_model: Called on the made model, such as to regularize it.
        load_weights: Called too where a run has no checkpoint: what to start from.
    """

    make_model: Callable[[], keras.Model]
    make_optimizer: Callable[..., keras.optimizers.Optimizer]
    schedule: Schedule
    train_data: TrainData
    batch_size: int
    loss: LossFunction = sigmoid_cross_entropy
    eval_data: EvalData | Mapping[str, EvalData] | None = None
    eval_batch_size: int | None = None
    evaluators: Sequence[InLoopEvaluator] = ()
    accumulate: Callable[..., Any] | None = None
    prepare_model: Callable[[keras.Model], Any] | None = None
    load_weights: Callable[[keras.Model], Any] | None = None

    def made_model(self) -> keras.Model:
        """Return the model, prepared; to be called in the strategy's scope."""
        model = self.make_model()
        if self.prepare_model is not None:
            self.prepare_model(model)
        return model

    def made(
        self, strategy: tf.distribute.Strategy, saved: Checkpoints, notice: Notice
    ) -> tuple[keras.Model, keras.optimizers.Optimizer, tf.Variable]:
        """Return model, built optimizer and step, born on the strategy's devices."""
        begun = notice.agree(len(saved.steps()) if saved.writes else 0)
        with strategy.scope():
            model = self.made_model()
            if self.load_weights is not None and not begun:
                self.load_weights(model)
            optimizer = self.make_optimizer(learning_rate=self.schedule_in_steps())
            optimizer.build(model.trainable_variables)
            return model, optimizer, orbit.utils.create_global_step()

    def schedule_in_steps(self) -> Schedule:
        """Return the schedule with every length in steps."""
        if self.schedule.resolved:
            return self.schedule
        images = self.train_data.num_examples
        return self.schedule.in_steps(batch_size=self.batch_size, train_examples=images)

    def check(
        self, strategy: tf.distribute.Strategy, evaluates: bool, best_metric: str | None
    ) -> None:
        """Refuse what does not fit together, before anything is made."""
        checks.check_batch(self.batch_size, strategy)
        if self.eval_batch_size is not None:
            checks.check_batch(self.eval_batch_size, strategy, name="eval_batch_size")
        others = [one.name for one in self.evaluators]
        known = (self.eval_sets(), others) if evaluates else ((), ())
        checks.check_best_metric(best_metric, *known)
        for one in self.evaluators if evaluates else ():
            getattr(one, "check", lambda: None)()

    def eval_sets(self) -> dict[str, EvalData]:
        """Return the evaluation sets by name; a single one is called "eval"."""
        data = self.eval_data or {}
        return dict(data) if isinstance(data, Mapping) else {"eval": data}

    def batches(self, strategy: tf.distribute.Strategy, seed: int) -> Callable:
        """Return the function from a batch's number to the batches from there on."""
        read, size = self.train_data.dataset, self.batch_size

        def batches_from(number: int) -> Any:
            return strategy.distribute_datasets_from_function(
                lambda context: read(
                    batch_size=size, seed=seed, start_step=number, input_context=context
                )
            )

        return batches_from

    def distributed_eval_sets(self, strategy: tf.distribute.Strategy) -> dict[str, Any]:
        """Return the evaluation sets by name, spread over a strategy's replicas."""
        size = self.eval_batch_size or self.batch_size
        return {
            name: strategy.distribute_datasets_from_function(
                lambda context, e=one: e.dataset(batch_size=size, input_context=context)
            )
            for name, one in self.eval_sets().items()
        }


def train(
    experiment: Experiment,
    *,
    model_dir: epath.PathLike,
    strategy: tf.distribute.Strategy,
    seed: int = 0,
    jit_compile: bool | None = None,
    evaluates: bool = True,
    evaluate_averages: bool = False,
    steps_per_loop: int = 100,
    checkpoint_every_steps: int | None = 1000,
    eval_every_steps: int | None = None,
    keep_last: int | None = 3,
    keep_every_steps: int | None = 10_000,
    keep_steps: Sequence[int] = (),
    also_keep: Sequence[int] = (),
    best_metric: str | None = None,
    asynchronous_checkpoints: bool = True,
    loss_guard: LossGuard | None = None,
    profile_steps: Sequence[int] = (),
    peak_flops_per_core: float | None = None,
    texts: Callable[[], Mapping[str, str]] = dict,
) -> dict[str, Any]:
    """Train from the newest checkpoint, or from scratch, to the end of the schedule.

    with strategy's scope: model, optimizer           (variables are born on devices)
    state = newest whole checkpoint, if any
    until the schedule's end: a loop; log; save; leave if asked to; evaluate; the same

    Args:
        experiment: What is trained, on what, how.
        model_dir: Folder of checkpoints, logs and the files that tell what the run is.
        strategy: From `training.strategy.make_strategy`.
        seed: Of initial weights, batches, augmentation and masks.
        jit_compile: Whether XLA compiles the step; None: on a single device.
        evaluates: Whether the evaluation sets are evaluated on the way and at the end.
        evaluate_averages: Whether averaged weights are evaluated in place of the last.
        steps_per_loop: Steps run between two looks at the clock; more on TPU.
        checkpoint_every_steps: 1000 in the authors' code; None: only at start and end.
        eval_every_steps: Steps between evaluations; None: only at the end.
        keep_last: How many of the newest checkpoints stay; None: all.
        keep_every_steps: Multiples of this stay as well (10,000 in the authors' code).
        keep_steps: Further steps that are saved and stay, such as branches need.
        also_keep: More of them, from the command line.
        best_metric: "SET/METRIC", such as "eval/top1": its best checkpoint stays too.
        asynchronous_checkpoints: Whether a thread writes checkpoints.
        loss_guard: When a loss has gone wrong, and what then; None: `LossGuard()`.
        profile_steps: Two steps: those after the first, to the second, are profiled.
        peak_flops_per_core: What a core can do in a second; None: no share is given.
        texts: Called at start and end; returns files, such as {"config.gin": …}.

    Returns:
        {"step", "loss", …, SET: {"top1", …}}: the last figures.

    Raises:
        ValueError: Something does not fit together; nothing saved is lost.
        DivergedError: A loss went wrong for good (NonFiniteError: is not finite).
        PreemptedError: SIGTERM came; the run is saved and can be started again.
        OSError: A checkpoint or the log could not be written; those before are there.
    """
    notice = Notice(sum_over_processes(strategy))
    with notice.watched():
        experiment.check(strategy, evaluates, best_metric)
        keras.utils.set_random_seed(seed)
        images = experiment.train_data.num_examples  # Missing files are named at once.
        schedule, chief = experiment.schedule_in_steps(), strategies.is_chief(strategy)
        total, keep_steps = schedule.total_steps, [*keep_steps, *also_keep]
        checks.check_steps(total, checkpoint_every_steps, keep_every_steps, also_keep)
        due = run.due(total, checkpoint_every_steps, keep_steps)
        watch, times = LossWatch(loss_guard or LossGuard()), StepTimes.under(strategy)
        jit = strategies.xla_of(strategy, jit_compile)
        profiler = Profiler(model_dir, profile_steps, total, on=chief)
        loops = run.loop_length(
            steps_per_loop,
            total,
            every={
                "checkpoint_every_steps": checkpoint_every_steps,
                "eval_every_steps": eval_every_steps,
            },
            at=[*keep_steps, *profiler.steps],
        )
        saved = Checkpoints(
            model_dir,
            keep_last=keep_last,
            keep_every_steps=keep_every_steps,
            keep_steps=keep_steps,
            scheduled=due,
            asynchronous=asynchronous_checkpoints,
            writes=chief,
        )
        model, optimizer, global_step = experiment.made(strategy, saved, notice)
        progress = run.progress_of(
            model, strategy, experiment.batch_size, total, peak_flops_per_core
        )
        state = RunState(
            variables_of(model, optimizer, global_step),
            saved,
            progress,
            watch,
            seed=seed,
            agree=notice.agree,
            pipelines=strategies.input_pipelines(strategy),
        )
        log = RunLog(model_dir, writes=chief)
        resumed, batches = state.restore(), experiment.batches(strategy, seed)
        checks.check_averages(optimizer, wanted=evaluate_averages)
        averaged = functools.partial(
            averaged_weights, optimizer, model.trainable_variables
        )
        log.say(cost_text([cost_of(optimizer, model.trainable_variables)]))
        run.announce(log, model, strategy, state.step, total, images=images, xla=jit.on)
        if chief:
            run_files.write_run_files(
                model_dir,
                model,
                make_run_record(
                    experiment,
                    model,
                    seed=seed,
                    evaluates_averages=evaluate_averages,
                ),
                texts(),
            )
        with strategy.scope():
            trainer = Trainer(
                make_train_step(
                    model,
                    optimizer,
                    experiment.loss,
                    replicas=strategy.num_replicas_in_sync,
                    accumulate=experiment.accumulate,
                    jit_compile=jit.each_replica,
                ),
                optimizer,
                batches(state.batch),
                strategy=strategy,
                global_step=global_step,
                progress=progress,
                learning_rate=schedule.at,
                watch=watch,
                times=times,
                profiler=profiler,
                jit_compile=jit.whole_step,
            )
            evaluator = Evaluator(
                model,
                experiment.loss,
                experiment.distributed_eval_sets(strategy) if evaluates else {},
                strategy=strategy,
                global_step=global_step,
                log=log,
                others=experiment.evaluators if evaluates else (),
                jit_compile=jit.on,
            )
        if not resumed and chief:
            state.save(wait=True)  # A run that cannot save says so before it trains.
        controller = orbit.Controller(
            global_step=global_step,
            trainer=trainer,
            evaluator=evaluator,
            strategy=strategy,
            steps_per_loop=loops,
            train_actions=[
                lambda outputs: run.log_loop(log, state.step, total, outputs, times),
                lambda outputs: state.save() if due(state.step) else None,
                lambda outputs: run.stop_if_asked(notice, state),
            ],
        )
        eval_every = eval_every_steps if evaluates else None
        stops = run.stops(lambda: state.step, eval_every, total, resumed=resumed)
        with contextlib.redirect_stdout(Silence()), profiler:  # RunLog, not Orbit.
            figures = run.evaluated_at(
                run.trained_to(stops, controller, state, log=log, batches=batches),
                controller.evaluate,
                state,
                weights=averaged if evaluate_averages else contextlib.nullcontext,
                best_metric=best_metric,
                notice=notice,
            )
        state.checkpoints.wait()
        if chief:
            run_files.write_texts(model_dir, texts())
        state.agree(0)  # Who leaves before the chief has saved could take it along.
        return {"step": total, "traced": trainer.traced(), **figures}


def evaluate(
    experiment: Experiment,
    *,
    model_dir: epath.PathLike,
    strategy: tf.distribute.Strategy,
    averages: bool = False,
    step: int | None = None,
    jit_compile: bool | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint on every evaluation set.

    Args:
        experiment: As it was trained; its `eval_data` and `evaluators` are measured.
        model_dir: Folder of the run.
        strategy: From `training.strategy.make_strategy`; any, not just the run's own.
        averages: Whether averaged weights are evaluated.
        step: Which checkpoint; None takes the newest that is whole.
        jit_compile: Whether XLA compiles the step; None: on a single device.

    Returns:
        {"step", SET: {"top1", "top5", "loss", "examples"}}; accuracies in [0, 1].

    Raises:
        FileNotFoundError: The run has no checkpoint (of that step).
        ValueError: The checkpoint is of another model.
    """
    return measuring.make_measure(
        experiment, model_dir, strategy, averages=averages, jit_compile=jit_compile
    )(step)


def evaluate_continuously(
    experiment: Experiment,
    *,
    model_dir: epath.PathLike,
    strategy: tf.distribute.Strategy,
    averages: bool = False,
    jit_compile: bool | None = None,
    timeout_seconds: float = 3600.0,
) -> dict[str, Any]:
    """Evaluate checkpoints as another process writes them, until the run's last.

    Args:
        experiment: As it is trained.
        model_dir: Folder of the run.
        strategy: From `training.strategy.make_strategy`, of a single process.
        averages: Whether averaged weights are evaluated.
        jit_compile: Whether XLA compiles the step; None: on a single device.
        timeout_seconds: How long to wait for a next checkpoint before giving up.

    Returns:
        What `evaluate` returned for the last one.

    Raises:
        TimeoutError: Not one checkpoint appeared in time.
        ValueError: Several workers were to do it.
    """
    checks.check_single_process(strategy)
    measure = measuring.make_measure(
        experiment, model_dir, strategy, averages=averages, jit_compile=jit_compile
    )
    last = experiment.schedule_in_steps().total_steps
    return measuring.measure_as_they_appear(measure, model_dir, timeout_seconds, last)


def make_run_record(
    experiment: Experiment,
    model: keras.Model,
    *,
    seed: int,
    evaluates_averages: bool = False,
) -> RunRecord:
    """Return what later programs need to know of the run and its data.

    Args:
        experiment: What is trained.
        model: Its built model.
        seed: Seed of the run.
        evaluates_averages: Whether training evaluates averaged weights.
    """
    first = next(iter(experiment.eval_sets().values()), None)
    size = (first or experiment.train_data).image_size
    preprocess = first.preprocess if first else CentralCrop()
    known = isinstance(preprocess, EvaluationPreprocessing)
    recorded = preprocess.to_record(size) if known else {"preprocess": None}
    height, width = model.inputs[0].shape[1:3]
    return RunRecord(
        class_names=tuple(experiment.train_data.source.class_names or ()),
        image_size=(height, width),
        value_range=experiment.train_data.value_range,
        loss=experiment.loss.__name__,
        seed=seed,
        evaluates_averages=evaluates_averages,
        train_images=int(experiment.train_data.num_examples),
        parameters=sum(math.prod(v.shape) for v in model.trainable_variables),
        versions=run_files.versions(),
        **recorded,
    )
