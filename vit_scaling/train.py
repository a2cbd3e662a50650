"""The training binary: flags, then gin files, then the run.

python -m vit_scaling.train --gin_file=experiments/quickstart.gin --model_dir=DIR
"""
# SPDX-License-Identifier: Apache-2.0

import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import app, flags

from vit_scaling.library_messages import (
    hide_first_compilation,
    hide_library_messages,
)

MODES = (
    "train",
    "eval",
    "train_and_eval",
    "continuous_eval",
    "branch_cooldown",
    "check",
)
DISTRIBUTIONS = ("one_device", "mirrored", "multi_worker_mirrored", "tpu")
# Saved with the run, so that `--flagfile` repeats it; the others name files or folders.
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
_MODE = flags.DEFINE_enum(
    "mode",
    "train_and_eval",
    MODES,
    "What to do. check: build and check all that train_and_eval needs, and stop.",
)
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
    "jit_compile", None, "Whether XLA compiles the step; default: on a single GPU."
)
_CHECKPOINT_STEP = flags.DEFINE_integer(
    "checkpoint_step", None, "For --mode=eval: which checkpoint; default: the newest."
)
_REPORT = flags.DEFINE_string(
    "report",
    None,
    "For --mode=eval: HTML page with accuracy by class, confusions, calibration and "
    "the worst mistakes.",
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
    hide_library_messages(max(0, flags.FLAGS.verbosity))
    print("Loading TensorFlow and the configuration.", file=sys.stderr, flush=True)
    # Imported here, so that --help and a misspelt flag respond at once.
    from vit_scaling import configurables, runs
    from vit_scaling.training import strategy as strategies
    from vit_scaling.training.malloc import keep_freed_memory

    keep_freed_memory()
    strategy = strategies.make_strategy(
        _DISTRIBUTION.value,
        tpu=_TPU.value,
        num_virtual_devices=_VIRTUAL.value,
    )
    hide_first_compilation()
    seed = [] if _SEED.value is None else [f"SEED = {_SEED.value}"]
    configurables.parse(_GIN_FILE.value, [*_GIN_PARAM.value, *seed])
    experiment = configurables.Experiment()
    launch: dict[str, Any] = {"model_dir": _MODEL_DIR.value, "strategy": strategy}
    if _MODE.value == "eval":
        configurables.evaluate(
            experiment,
            step=_CHECKPOINT_STEP.value,
            jit_compile=_JIT.value,
            report=_REPORT.value,
            **launch,
        )
        return
    if _MODE.value == "continuous_eval":
        configurables.evaluate_continuously(
            experiment, jit_compile=_JIT.value, **launch
        )
        return
    is_branch = _MODE.value == "branch_cooldown"
    branch_at = _parse_steps(_BRANCH_AT, required=is_branch)
    options = configurables.RunOptions(
        jit_compile=_JIT.value,
        evaluate=_MODE.value != "train",
        branch_at=() if is_branch else branch_at,
        profile_steps=() if is_branch else _parse_steps(_PROFILE_STEPS),
        peak_flops_per_core=_peak_flops_per_core(strategy),
    )
    if _MODE.value == "check":
        runs.check(experiment, options, settings=_settings(), **launch)
    elif is_branch:
        runs.branch_cooldowns(
            experiment,
            options,
            branch_at=branch_at,
            cooldown_steps=_branch_lengths(),
            texts=_run_texts,
            settings=_settings(),
            **launch,
        )
    else:
        runs.train(
            experiment, options, texts=_run_texts, settings=_settings(), **launch
        )


def _run_texts() -> Mapping[str, str]:
    """Return the files that repeat the run, by name."""
    from vit_scaling import gin_files

    return {"config.gin": gin_files.operative_text(), "flags.txt": _flag_text()}


def _settings() -> Mapping[str, tuple[str, str]]:
    """Return what a run that resumes is compared with: gin's settings and flags."""
    from vit_scaling import configurables

    names = [name for name in RUN_FLAGS if name != "seed"]  # SEED is one of gin's.
    return {
        **configurables.effective_settings(),
        **{f"--{name}": (f"--{name}", str(flags.FLAGS[name].value)) for name in names},
    }


def _peak_flops_per_core(strategy: Any) -> float | None:
    """Return a core's operations per second: an accelerator's by name, or measured."""
    from vit_scaling.scaling.planning.devices import peak_flops_of
    from vit_scaling.training import strategy as strategies

    name = strategies.accelerator_name(strategy)
    if name is None:
        return strategies.measure_cpu_flops_per_core()
    return peak_flops_of(name)


def _branch_lengths() -> int | list[int] | None:
    lengths = _parse_steps(_BRANCH_STEPS)
    return lengths if len(lengths) > 1 else next(iter(lengths), None)


def _parse_steps(flag: Any, *, required: bool = False) -> list[int]:
    """Return the steps that a flag lists.

    Raises:
        ValueError: One is not a positive whole number, or a required flag is missing.
    """
    texts = [text.strip() for text in flag.value]
    are_steps = all(text.isdecimal() and int(text) for text in texts)
    if (required and not texts) or not are_steps:
        raise ValueError(
            f"`{flag.name}` must be steps of the run, such as "
            f"--{flag.name}=60000,120000; received {','.join(texts)!r}."
        )
    return [int(text) for text in texts]


def _flag_text() -> str:
    """Return the command-line flags that `--flagfile` needs to repeat the run."""
    present = (flags.FLAGS[name] for name in RUN_FLAGS if flags.FLAGS[name].present)
    lines = [flag.serialize() for flag in present]
    return "".join(f"{line}\n" for line in lines)


def main() -> None:
    """Run the binary; print a user's error in one line and exit with code 1.

    A run that was stopped by SIGTERM has saved, and exits with code 75.
    """
    flags.mark_flag_as_required("model_dir")
    flags.register_validator(
        "gin_file", bool, "must name at least one gin file, such as quickstart"
    )
    for flag in [*flags.FLAGS.get_flags_for_module(__name__), flags.FLAGS["verbosity"]]:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)  # For --help.
    try:
        app.run(_run)
    except Exception as error:
        from vit_scaling.training import preemption

        message = _message(error)
        if isinstance(error, preemption.PreemptedError):
            print(f"vit-scaling train: {message}", file=sys.stderr)
            sys.exit(preemption.EXIT_CODE)
        if message is None or os.environ.get("VIT_SCALING_TRACEBACK"):
            raise
        print(f"vit-scaling train: error: {message}", file=sys.stderr)
        sys.exit(1)


def _message(error: Exception) -> str | None:
    """Return the message of an error that the user can fix, None for any other."""
    # The input pipeline's assertions, such as of a bad record, are inside graph traces.
    asserted = re.search(r"assertion failed: \[(.+)\]", str(error))
    if type(error).__module__.startswith("tensorflow"):
        return asserted[1].replace("\\'", "'") if asserted else None
    if isinstance(error, ImportError):
        return (
            f"{error}. A package that training needs is missing or has an unsuitable "
            "version: vit-scaling doctor names it and the command that installs it."
        )
    # A TypeError: an experiment lacks a part, or a value is of another type.
    if isinstance(error, ValueError | TypeError | OSError | RuntimeError):
        # Gin appends the call site, which belongs in the traceback.
        return str(error).partition("\n  In call to configurable")[0]
    return None


if __name__ == "__main__":
    main()
