"""The training binary: flags, then gin files, then the run.

python -m vit_scaling.train --gin_file=experiments/quickstart.gin --model_dir=DIR
"""
# SPDX-License-Identifier: Apache-2.0

import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags, logging

MODES = ("train", "eval", "train_and_eval", "continuous_eval", "branch_cooldown")
DISTRIBUTIONS = ("one_device", "mirrored", "multi_worker_mirrored", "tpu")
# Saved with the run, so that `--flagfile` repeats it; the others name files or places.
RUN_FLAGS = (
    "mode",
    "distribution",
    "tpu",
    "num_virtual_devices",
    "seed",
    "jit_compile",
)

_GIN_FILE = flags.DEFINE_multi_string(
    "gin_file",
    [],
    "Gin file, by path or by its name in the package's gin folder; repeat for several: "
    "a later one wins.",
)
_GIN_PARAM = flags.DEFINE_multi_string(
    "gin_param", [], "Gin binding such as 'TOTAL_STEPS = 1000'; repeat for several."
)
_MODEL_DIR = flags.DEFINE_string(
    "model_dir", None, "Folder of the run: checkpoints, logs, configuration."
)
_MODE = flags.DEFINE_enum("mode", "train_and_eval", MODES, "What to do.")
_DISTRIBUTION = flags.DEFINE_enum(
    "distribution", "one_device", DISTRIBUTIONS, "Over which devices a step is spread."
)
_TPU = flags.DEFINE_string(
    "tpu", None, "Name or address of the TPU; 'local' on its VM."
)
_VIRTUAL = flags.DEFINE_integer(
    "num_virtual_devices",
    0,
    "Logical devices to split the CPU into, for trying replicas on a laptop.",
    lower_bound=0,
)
_SEED = flags.DEFINE_integer(
    "seed", None, "Seed of weights, batches, augmentation, masks; default: SEED in gin."
)
_JIT = flags.DEFINE_bool(
    "jit_compile", None, "Whether XLA compiles the step; default: on a single device."
)
_CHECKPOINT_STEP = flags.DEFINE_integer(
    "checkpoint_step", None, "For --mode=eval: which checkpoint; default: the newest."
)
_PROFILE_STEPS = flags.DEFINE_list(
    "profile_steps",
    [],
    "Two steps a,b: the steps after a, to b, are profiled for TensorBoard.",
)
_BRANCH_AT = flags.DEFINE_list(
    "branch_at",
    [],
    "Steps at which cooldowns begin, such as 60000,120000. With --mode=branch_cooldown "
    "they are branched off the run in --model_dir; when training, the checkpoints that "
    "they need are kept.",
)
_BRANCH_STEPS = flags.DEFINE_list(
    "branch_cooldown_steps",
    [],
    "Length of the branches' cooldowns, one for all or one for each; default: that of "
    "the schedule.",
)


def _run(_: Sequence[str]) -> None:
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Orbit logs each loop; RunLog says it.
    # Imported here, so that --help and a mistyped flag answer at once.
    from vit_scaling import configurables
    from vit_scaling.training import strategy as strategies
    from vit_scaling.training.allocation import keep_freed_memory
    from vit_scaling.training.branches import branch_cooldowns

    keep_freed_memory()
    strategy = strategies.make_strategy(
        _DISTRIBUTION.value,
        tpu=_TPU.value,
        num_virtual_devices=_VIRTUAL.value,
    )
    seed = [] if _SEED.value is None else [f"SEED = {_SEED.value}"]
    configurables.parse(_GIN_FILE.value, [*_GIN_PARAM.value, *seed])
    launch: dict[str, Any] = {
        "model_dir": _MODEL_DIR.value,
        "strategy": strategy,
        "jit_compile": _JIT.value,
    }
    experiment = configurables.Experiment()
    if _MODE.value == "eval":
        configurables.evaluate(experiment, step=_CHECKPOINT_STEP.value, **launch)
        return
    if _MODE.value == "continuous_eval":
        configurables.evaluate_continuously(experiment, **launch)
        return
    launch["peak_flops_per_core"] = _peak_flops_per_core(strategy)
    if _MODE.value == "branch_cooldown":
        branch_cooldowns(
            experiment,
            branch_at=_steps(_BRANCH_AT),
            cooldown_steps=_branch_lengths(),
            train_branch=configurables.train,
            texts=_texts,
            **launch,
        )
    else:
        configurables.train(
            experiment,
            evaluates=_MODE.value == "train_and_eval",
            also_keep=_steps(_BRANCH_AT, required=False),
            profile_steps=_steps(_PROFILE_STEPS, required=False),
            texts=_texts,
            **launch,
        )


def _texts() -> Mapping[str, str]:
    from vit_scaling import gin_files

    return {"config.gin": gin_files.operative_text(), "flags.txt": _flag_text()}


def _peak_flops_per_core(strategy: Any) -> float | None:
    """Return what a core can do: of an accelerator by its name, else measured."""
    from vit_scaling.scaling.planning.devices import peak_flops_of
    from vit_scaling.training import strategy as strategies

    name = strategies.accelerator(strategy)
    if name is None:
        return strategies.processor_peak_flops_per_core()
    return peak_flops_of(name)


def _branch_lengths() -> int | list[int] | None:
    lengths = _steps(_BRANCH_STEPS, required=False)
    return lengths if len(lengths) > 1 else next(iter(lengths), None)


def _steps(flag: Any, *, required: bool = True) -> list[int]:
    """Return the steps that a flag lists.

    Raises:
        ValueError: One is no positive whole number, or none is given though required.
    """
    given = [text.strip() for text in flag.value]
    whole = all(text.isdecimal() and int(text) for text in given)
    if (required and not given) or not whole:
        raise ValueError(
            f"`{flag.name}` must be steps of the run, such as "
            f"--{flag.name}=60000,120000; received {','.join(given)!r}."
        )
    return [int(text) for text in given]


def _flag_text() -> str:
    """Return the flags that say how the run was launched, as a flag file."""
    given = (flags.FLAGS[name] for name in RUN_FLAGS if flags.FLAGS[name].present)
    lines = [flag.serialize() for flag in given]
    return "".join(f"{line}\n" for line in lines)


def main() -> None:
    """Run the binary; what cannot be run is said in one line, with exit code 1.

    A run that SIGTERM ended has saved, and leaves with exit code 75.
    """
    flags.mark_flag_as_required("model_dir")
    flags.register_validator(
        "gin_file", bool, "must name at least one gin file, such as quickstart"
    )
    logging.use_absl_handler()
    try:
        app.run(_run)
    except Exception as error:
        from vit_scaling.training import preemption

        message = _message(error)
        if isinstance(error, preemption.PreemptedError):
            print(f"vit-scaling-train: {message}", file=sys.stderr)
            sys.exit(preemption.EXIT_CODE)
        if message is None or os.environ.get("VIT_SCALING_TRACEBACK"):
            raise
        print(f"vit-scaling-train: error: {message}", file=sys.stderr)
        sys.exit(1)


def _message(error: Exception) -> str | None:
    """Return what to say of an error that the user can mend, None for any other."""
    # What the input pipeline asserts, such as a bad record, comes amid graph traces.
    asserted = re.search(r"assertion failed: \[(.+)\]", str(error))
    if type(error).__module__.startswith("tensorflow"):
        return asserted[1].replace("\\'", "'") if asserted else None
    if isinstance(error, ImportError):
        return (
            f"{error}. Something that training needs is missing or does not go with "
            "the rest: vit-scaling-doctor tells what, and what installs it."
        )
    # A TypeError: an experiment lacks a part, or a value is of another type.
    if isinstance(error, ValueError | TypeError | OSError | RuntimeError):
        # Gin appends where it was called from: the traceback's business.
        return str(error).partition("\n  In call to configurable")[0]
    return None


if __name__ == "__main__":
    main()
