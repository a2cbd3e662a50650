"""The whole run, top to bottom: train, evaluate, and evaluate as checkpoints appear."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import orbit
import tensorflow as tf
from etils import epath

from vit_scaling.data.pipeline import EvalData, TrainData
from vit_scaling.data.preprocessing import CentralCrop
from vit_scaling.optimization.averaging import averaged_weights
from vit_scaling.optimization.schedule import Schedule
from vit_scaling.optimization.state_size import cost_of, cost_text
from vit_scaling.training import run, run_files
from vit_scaling.training import strategy as strategies
from vit_scaling.training.checkpoints import Checkpoints, restore_model
from vit_scaling.training.evaluator import Evaluator, InLoopEvaluator
from vit_scaling.training.logs import RunLog, Silence
from vit_scaling.training.losses import LossFunction, sigmoid_cross_entropy
from vit_scaling.training.progress import Progress
from vit_scaling.training.step import make_train_step
from vit_scaling.training.trainer import Trainer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """What is trained, on what, how: the parts of a run, before any of it is made.

    Makers, not made things, where variables are born: they are called in the scope of
    the run's strategy.

    Attributes:
        make_model: Returns a Keras model from images to logits (batch, classes).
        make_optimizer: From `learning_rate` (the schedule) to one of our optimizers.
        schedule: Learning rate by step; its `total_steps` is the length of the run.
        train_data: The training images.
        batch_size: Images of one step over all replicas; 4096 in the paper (App. B).
        loss: (logits, labels) to (batch,); sigmoid cross-entropy in the paper (§3.3).
        eval_data: One evaluation set, or several by name.
        eval_batch_size: Images of an evaluation batch; `batch_size` where None.
        evaluators: What else is measured while training, each at its own interval.
        accumulate: Gathers gradients over micro-batches (`optimization.accumulation`);
            None takes each replica's batch in one piece.
        prepare_model: Called on the made model, to regularize or to load weights.
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

    def made_model(self) -> keras.Model:
        """Return the model, prepared; to be called in the strategy's scope."""
        model = self.make_model()
        if self.prepare_model is not None:
            self.prepare_model(model)
        return model

    def schedule_in_steps(self) -> Schedule:
        """Return the schedule with every length in steps."""
        if self.schedule.resolved:
            return self.schedule
        return self.schedule.in_steps(
            batch_size=self.batch_size, train_examples=self.train_data.num_examples
        )

    def check(
        self, strategy: tf.distribute.Strategy, evaluates: bool, best_metric: str | None
    ) -> None:
        """Refuse what does not fit together, before anything is made."""
        run.check_batch(self.batch_size, strategy)
        if self.eval_batch_size is not None:
            run.check_batch(self.eval_batch_size, strategy, name="eval_batch_size")
        others = [one.name for one in self.evaluators]
        known = (self.eval_sets(), others) if evaluates else ((), ())
        run.check_best_metric(best_metric, *known)

    def eval_sets(self) -> dict[str, EvalData]:
        """Return the evaluation sets by name; a single one is called "eval"."""
        data = self.eval_data or {}
        return dict(data) if isinstance(data, Mapping) else {"eval": data}

    def distributed_eval_sets(self, strategy: tf.distribute.Strategy) -> dict[str, Any]:
        """Return the evaluation sets by name, spread over a strategy's replicas."""
        size = self.eval_batch_size or self.batch_size
        return {
            name: strategy.distribute_datasets_from_function(
                lambda context, one=one: one.dataset(
                    batch_size=size, input_context=context
                )
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
    checkpoint_every_steps: int = 1000,
    eval_every_steps: int | None = None,
    keep_last: int = 3,
    keep_every_steps: int | None = 10_000,
    keep_steps: Sequence[int] = (),
    also_keep: Sequence[int] = (),
    best_metric: str | None = None,
    asynchronous_checkpoints: bool = True,
    texts: Callable[[], Mapping[str, str]] = dict,
) -> dict[str, Any]:
    """Train from the newest checkpoint, or from scratch, to the end of the schedule.

    with strategy's scope: model, optimizer           (variables are born on devices)
    state = newest whole checkpoint, if any
    until the schedule's end: a loop of steps; log; save; evaluate

    Args:
        experiment: What is trained, on what, how.
        model_dir: Folder of checkpoints, logs and the files that tell what the run is.
        strategy: From `training.strategy.make_strategy`.
        seed: Of initial weights, batches, augmentation and masks.
        jit_compile: Whether XLA compiles the step; None: on a single device.
        evaluates: Whether the evaluation sets are evaluated on the way and at the end.
        evaluate_averages: Whether averaged weights are evaluated in place of the last.
        steps_per_loop: Steps run between two looks at the clock; more on TPU.
        checkpoint_every_steps: Steps between checkpoints (1000 in the authors' code).
        eval_every_steps: Steps between evaluations; None: only at the end.
        keep_last: How many of the newest checkpoints stay.
        keep_every_steps: Multiples of this stay as well (10,000 in the authors' code).
        keep_steps: Further steps that are saved and stay, such as branches need.
        also_keep: More of them, from the command line.
        best_metric: "SET/METRIC", such as "eval/top1": its best checkpoint stays too.
        asynchronous_checkpoints: Whether a thread writes checkpoints.
        texts: Called when training starts and again when all was used once; returns
            files for `model_dir`, such as {"config.gin": …}.

    Returns:
        {"step", "loss", …, SET: {"top1", …}}: the last figures.

    Raises:
        ValueError: Something does not fit together; nothing saved is lost.
        NonFiniteError: The loss or a gradient was not finite, and nobody bound a skip.
    """
    experiment.check(strategy, evaluates, best_metric)
    keep_steps = [*keep_steps, *also_keep]
    keras.utils.set_random_seed(seed)
    images = experiment.train_data.num_examples  # Missing files are named at once.
    schedule = experiment.schedule_in_steps()
    total, chief = schedule.total_steps, strategies.is_chief(strategy)
    loops = run.loop_length(
        steps_per_loop,
        total,
        every={
            "checkpoint_every_steps": checkpoint_every_steps,
            "eval_every_steps": eval_every_steps,
        },
        at=keep_steps,
    )
    jit = strategies.compiled_by_xla(strategy, jit_compile)
    log = RunLog(model_dir, writes=chief)
    progress = Progress(
        batch_size=experiment.batch_size,
        total_steps=total,
        cores=strategies.cores(strategy),
        replicas=strategy.num_replicas_in_sync,
    )
    with strategy.scope():
        model = experiment.made_model()
        optimizer = experiment.make_optimizer(learning_rate=schedule)
        optimizer.build(model.trainable_variables)
        global_step = orbit.utils.create_global_step()
    saved = Checkpoints(
        model_dir,
        keep_last=keep_last,
        keep_every_steps=keep_every_steps,
        keep_steps=keep_steps,
        asynchronous=asynchronous_checkpoints,
        writes=chief,
    )
    state = run.RunState(model, optimizer, global_step, saved, progress, seed=seed)
    resumed = state.restore()
    run.check_averages(optimizer, wanted=evaluate_averages)
    averaged = functools.partial(averaged_weights, optimizer, model.trainable_variables)
    log.say(cost_text([cost_of(optimizer, model.trainable_variables)]))
    run.announce(
        log,
        model,
        strategy,
        images=images,
        step=state.step,
        total_steps=total,
        jit_compile=jit,
    )
    if chief:
        run_files.write_run_files(
            model_dir, model, run_facts(experiment, seed), texts()
        )
    with strategy.scope():
        trainer = Trainer(
            make_train_step(
                model,
                optimizer,
                experiment.loss,
                replicas=strategy.num_replicas_in_sync,
                accumulate=experiment.accumulate,
            ),
            optimizer,
            strategy.distribute_datasets_from_function(
                lambda context: experiment.train_data.dataset(
                    batch_size=experiment.batch_size,
                    seed=seed,
                    start_step=state.step,
                    input_context=context,
                )
            ),
            strategy=strategy,
            global_step=global_step,
            progress=progress,
            learning_rate=schedule.at,
            jit_compile=jit,
        )
        evaluator = Evaluator(
            model,
            experiment.loss,
            experiment.distributed_eval_sets(strategy) if evaluates else {},
            strategy=strategy,
            global_step=global_step,
            log=log,
            others=experiment.evaluators if evaluates else (),
            jit_compile=jit,
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
            lambda outputs: run.log_loop(log, state.step, total, outputs),
            lambda outputs: run.save_if_due(
                state, total, checkpoint_every_steps, keep_steps
            ),
        ],
    )
    with contextlib.redirect_stdout(Silence()):  # Orbit's lines; RunLog says it.
        for stop in run.stops(
            state.step, eval_every_steps if evaluates else None, total
        ):
            if state.step < stop:
                controller.train(stop, checkpoint_at_completion=False)
            with averaged() if evaluate_averages else contextlib.nullcontext():
                figures = controller.evaluate()
            run.keep_if_best(state, best_metric, figures)
    saved.wait()
    if chief:
        run_files.write_texts(model_dir, texts())
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
    measure = _make_measure(experiment, model_dir, strategy, jit_compile)
    return measure(averages, step)


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
        strategy: From `training.strategy.make_strategy`.
        averages: Whether averaged weights are evaluated.
        jit_compile: Whether XLA compiles the step; None: on a single device.
        timeout_seconds: How long to wait for a next checkpoint before giving up.

    Returns:
        What `evaluate` returned for the last one.

    Raises:
        TimeoutError: Not one checkpoint appeared in time.
    """
    measure = _make_measure(experiment, model_dir, strategy, jit_compile)
    results: dict[str, Any] = {}
    for step in run.new_checkpoints(
        model_dir,
        timeout_seconds=timeout_seconds,
        last_step=experiment.schedule_in_steps().total_steps,
    ):
        results = measure(averages, step)
    if not results:
        raise TimeoutError(
            f"No checkpoint appeared in `{model_dir}` within {timeout_seconds:g} s."
        )
    return results


def run_facts(experiment: Experiment, seed: int) -> dict[str, Any]:
    """Return what later programs need to know of the run and its data."""
    names = experiment.train_data.source.class_names
    sets = experiment.eval_sets()
    prepared = sets[next(iter(sets))].preprocess if sets else CentralCrop()
    crop = prepared if isinstance(prepared, CentralCrop) else None
    return {
        "loss": experiment.loss.__name__,
        "seed": seed,
        "class_names": list(names) if names is not None else None,
        "value_range": list(experiment.train_data.value_range),
        "preprocess": "central_crop" if crop else "resize",
        "resize": crop.resize_to if crop else None,
    }


def _make_measure(
    experiment: Experiment,
    model_dir: epath.PathLike,
    strategy: tf.distribute.Strategy,
    jit_compile: bool | None,
) -> Callable[[bool, int | None], dict[str, Any]]:
    jit = strategies.compiled_by_xla(strategy, jit_compile)
    with strategy.scope():
        model = experiment.make_model()
        global_step = orbit.utils.create_global_step()
        evaluator = Evaluator(
            model,
            experiment.loss,
            experiment.distributed_eval_sets(strategy),
            strategy=strategy,
            global_step=global_step,
            log=RunLog(model_dir, writes=strategies.is_chief(strategy)),
            others=experiment.evaluators,
            always=True,
            jit_compile=jit,
        )
    controller = orbit.Controller(
        global_step=global_step, evaluator=evaluator, strategy=strategy
    )

    def measure(averages: bool, step: int | None) -> dict[str, Any]:
        done = restore_model(model, model_dir, averages=averages, step=step)
        global_step.assign(done)
        with contextlib.redirect_stdout(Silence()):
            return {"step": done, **controller.evaluate()}

    return measure
