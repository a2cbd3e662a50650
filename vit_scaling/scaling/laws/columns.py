"""Find which column of a table holds what, by name or as the user says."""
# SPDX-License-Identifier: Apache-2.0

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

from vit_scaling.naming import did_you_mean, unknown_name_message
from vit_scaling.scaling.laws.compute_units import find_unit

# What a run is judged by, the first one found is taken.
TARGET_FIELDS = ("error", "loss", "accuracy", "perplexity")

# fmt: off
# Field: names of columns that are taken for it, as `normalize` writes them, the most
# specific first. A column of compute may also have the name of any known unit.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "model": ("model", "arch", "architecture", "network", "net", "model_name"),
    "compute": ("compute", "core_days", "flops", "c"),
    "compute_unit": ("compute_unit", "unit"),
    "size": ("parameters", "params", "n_parameters", "num_parameters", "n_params",
             "num_params", "nparams", "parameter_count", "param_count",
             "model_parameters", "model_params", "total_parameters", "total_params",
             "non_embedding_parameters", "non_embedding_params", "model_size", "size",
             "n"),
    "examples": ("images_seen", "samples_seen", "examples_seen", "seen_examples",
                 "tokens_seen", "seen_tokens", "training_tokens", "train_tokens",
                 "n_tokens", "num_tokens", "tokens", "examples", "samples", "images",
                 "train_images_seen", "d"),
    "data_size": ("data_size", "dataset_size", "train_images", "unique_examples",
                  "unique_images", "unique_samples", "unique_tokens"),
    "error": ("error", "err", "error_rate", "top1_error", "top_1_error", "error_pct",
              "error_percent", "test_error", "val_error"),
    "loss": ("loss", "val_loss", "validation_loss", "test_loss", "eval_loss",
             "final_loss", "nll", "cross_entropy", "log_loss", "log_perplexity"),
    "accuracy": ("accuracy", "acc", "acc1", "top1", "top_1", "top1_accuracy",
                 "top_1_accuracy", "test_accuracy", "val_accuracy", "accuracy_pct"),
    "perplexity": ("perplexity", "ppl", "val_perplexity", "test_perplexity"),
    "target": ("target",),
    "metric": ("metric", "downstream_dataset", "downstream", "task", "evaluation"),
    "seed": ("seed", "random_seed", "repetition"),
    "weight": ("weight",),
    "run": ("training_run", "run", "run_id", "run_name"),
    "source": ("source",),
}
# fmt: on


class ColumnNames(TypedDict, total=False):
    """Names of a table's columns; those left out are found by `SYNONYMS`.

    Keys:
        compute: Training compute.
        error: Error rate, as a fraction or in percent.
        accuracy: Accuracy; the error is one minus it.
        loss: A loss, any number of 0 or more.
        perplexity: The loss is its logarithm.
        model: Name of the model.
        size: Number of the model's parameters, N.
        examples: Examples or tokens seen in training, D.
        data_size: Number of different training examples or tokens.
        metric: Name of the evaluation.
        compute_unit: Unit of each row's compute.
        seed: Distinguishes repetitions.
        weight: Weight in the fit.
        run: Training run of which the row is a checkpoint.
        source: Origin of the row.
    """

    compute: str
    error: str
    accuracy: str
    loss: str
    perplexity: str
    model: str
    size: str
    examples: str
    data_size: str
    metric: str
    compute_unit: str
    seed: str
    weight: str
    run: str
    source: str


def normalize(name: str) -> str:
    """Return a column's name in lower case with underscores: "Model Size" and others.

    Example:
        >>> normalize("Model Size"), normalize("eval/top1")
        ('model_size', 'eval_top1')
    """
    return re.sub(r"[^a-z0-9]+", "_", str(name).lower()).strip("_")


def is_target(name: str) -> bool:
    """Return whether a column of this name holds an error, a loss or an accuracy."""
    return any(normalize(name) in SYNONYMS[field] for field in TARGET_FIELDS)


def find_columns(
    header: Sequence[str], given: Mapping[str, object], source: str
) -> dict[str, str]:
    """Return {field: column} of a table.

    Args:
        header: The table's columns.
        given: The columns that the user names, by field.
        source: The table's name, for messages.

    Raises:
        ValueError: A named column does not exist, several targets are named, or no
            column holds a target.
    """
    check_fields(given)
    names = {field: find_column(header, str(name), field, source)
             for field, name in given.items()}  # fmt: skip
    targets = [field for field in TARGET_FIELDS if field in names]
    if len(targets) > 1:
        raise ValueError(
            f"Name one column to fit; received {' and '.join(targets)}. Leave out all "
            "but one."
        )
    taken = set(names.values())
    free = [name for name in header if name not in taken]
    for field in SYNONYMS:
        is_other_target = field in TARGET_FIELDS and (
            targets or any(target in names for target in TARGET_FIELDS)
        )
        if field not in names and not is_other_target:
            name = _find_by_synonym(free, field)
            if name is not None:
                names[field] = name
    if not any(field in names for field in TARGET_FIELDS):
        raise ValueError(
            f"{source} has no column 'error' for error.{did_you_mean('error', header)} "
            f"Its columns are {', '.join(header)}: choose one with --error_column, "
            "--loss_column, --accuracy_column or --perplexity_column."
        )
    return names


def check_fields(given: Iterable[str]) -> None:
    """Raise ValueError unless every name is a key of `ColumnNames`."""
    for field in given:
        if field not in ColumnNames.__annotations__:
            raise ValueError(
                unknown_name_message(
                    "field of runs", field, ColumnNames.__annotations__
                )
            )


def _find_by_synonym(header: Sequence[str], field: str) -> str | None:
    by_name: dict[str, str] = {}
    for name in header:
        by_name.setdefault(normalize(name), name)
    for synonym in SYNONYMS[field]:
        if synonym in by_name:
            return by_name[synonym]
    if field == "compute":
        return next((name for name in header if find_unit(str(name))), None)
    return None


def find_column(header: Sequence[str], name: str, field: str, source: str) -> str:
    """Return the column that `name` names; in conditions its beginning will do.

    Raises:
        ValueError: No column is called so, or several begin so.
    """
    if name in header:
        return name
    wanted = normalize(name)
    same = [column for column in header if normalize(column) == wanted]
    is_field = field in SYNONYMS
    begins = same or [c for c in header if normalize(c).startswith(wanted)]
    if wanted and len(same if is_field else begins) == 1:
        return begins[0]
    flag = f"--{field}_column" if is_field else f"--{field}"
    ambiguous = f" Several begin so: {', '.join(begins)}." if len(begins) > 1 else ""
    raise ValueError(
        f"{source} has no column {name!r} for {field}.{ambiguous}"
        f"{did_you_mean(name, header)} Its columns are {', '.join(header)}: choose one "
        f"with {flag}."
    )
