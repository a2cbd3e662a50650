"""The settings of a run: recorded, compared when it resumes, sorted by what may change.

`settings.json` holds every setting that a run reads, defaults included. A setting is
keyed by what it configures, such as "train/TFRecords.pattern". A macro such as
TOTAL_STEPS is the name that a message shows; what may happen to it follows from the
settings that it is bound to.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from absl import logging
from etils import epath

from vit_scaling import io_files
from vit_scaling.training.checkpoint_files import saved_steps
from vit_scaling.training.checkpoints import FOLDER

SETTINGS_FILE = "settings.json"
TRAIN_DATA = "train_data"  # Key of the training images: their number and fingerprint.

# By key: the name to show and the value as text.
Settings = Mapping[str, tuple[str, str]]

# The weights, or the state of the optimizer, would be those of another model.
FIXED = frozenset(
    {
        "Adafactor.min_size_to_factor",
        "Experiment.make_model",
        "Experiment.make_optimizer",
        "Optimizer.rule",
        "ViTShape.depth",
        "ViTShape.heads",
        "ViTShape.mlp_width",
        "ViTShape.patch",
        "ViTShape.width",
        "as_shape.depth",
        "as_shape.shape",
        "keras_backbone.classes",
        "keras_backbone.head",
        "keras_backbone.heads",
        "keras_backbone.image_size",
        "keras_backbone.mlp_width",
        "keras_backbone.name",
        "keras_backbone.scaling",
        "vit.approximate_gelu",
        "vit.channels",
        "vit.classes",
        "vit.crop_to_patches",
        "vit.head",
        "vit.image_size",
        "vit.layer_scale",
        "vit.name",
        "vit.norm_after_pooling",
        "vit.norm_before_blocks",
        "vit.norm_epsilon",
        "vit.position",
        "vit.qk_norm",
        "vit.register_tokens",
        "vit.representation_width",
        "vit.shape",
    }
)
# The run would not continue with the batches and masks that come next. Each may change
# if `RunOptions.allow_changes` has the name on the right.
EXACT = {
    "Experiment.batch_size": "batch_size",
    "RunOptions.seed": "seed",
    "TrainData.block_records": "block_records",
    "TrainData.fraction": "fraction",
    "TrainData.num_images": "num_images",
    "TrainData.shuffle_window": "shuffle_window",
    "keras_backbone.seed": "seed",
    "vit.seed": "seed",
    TRAIN_DATA: "train_data",
}
ALLOWABLE = tuple(sorted(set(EXACT.values())))
# Settings of the initial weights, which a run that resumes does not use.
INITIAL = frozenset(
    {
        "Experiment.load_weights",
        "keras_backbone.head_bias",
        "keras_backbone.weights",
        "load_for_finetuning.averages",
        "load_for_finetuning.classifier",
        "load_for_finetuning.head",
        "load_for_finetuning.heads",
        "load_for_finetuning.ignore",
        "load_for_finetuning.source",
        "load_for_finetuning.source_image_size",
        "vit.head_bias",
    }
)
# All others may change, and the change is printed and recorded.


@dataclasses.dataclass(frozen=True)
class Change:
    """A setting whose value differs from that of the run's last start.

    Attributes:
        key: What the setting configures.
        name: The macro or binding to show.
        before: Value at the last start, as text.
        now: Present value.
    """

    key: str
    name: str
    before: str
    now: str

    @property
    def setting(self) -> str:
        """The key without gin's scopes, as in `FIXED`, `EXACT` and `INITIAL`."""
        return self.key.rpartition("/")[2]

    def __str__(self) -> str:
        note = "; has no effect on a run that resumes" * (self.setting in INITIAL)
        return f"{self.name}: {self.before} → {self.now}{note}"


def changes_at_resume(
    model_dir: epath.PathLike, now: Settings, allowed: Collection[str] = ()
) -> list[Change]:
    """Return the changes since a run's last start, none if it has no checkpoint yet.

    Args:
        model_dir: The run's folder.
        now: Present settings.
        allowed: Names of `ALLOWABLE` that may change.

    Raises:
        ValueError: A setting changed with which the run cannot resume.
    """
    if not saved_steps(epath.Path(model_dir) / FOLDER):
        return []
    before = read_settings(model_dir)
    if before is None:
        logging.warning(
            "`%s` has no %s, so changes of settings are not found.",
            model_dir,
            SETTINGS_FILE,
        )
        return []
    changes = find_changes(before, now)
    _check_changes(changes, allowed)
    return changes


def save_settings(model_dir: epath.PathLike, settings: Settings) -> None:
    """Write `settings.json` atomically.

    Raises:
        OSError: The file could not be written; an earlier one is unchanged.
    """
    io_files.write_json(epath.Path(model_dir) / SETTINGS_FILE, settings)


def read_settings(model_dir: epath.PathLike) -> dict[str, tuple[str, str]] | None:
    """Return the settings of a run's last start; None if they were not recorded."""
    path = epath.Path(model_dir) / SETTINGS_FILE
    if not path.exists():
        return None
    return {
        key: (name, value) for key, (name, value) in io_files.read_json(path).items()
    }


def find_changes(before: Settings, now: Settings) -> list[Change]:
    """Return the settings whose values differ, each name once.

    A setting that only one side reads is left out: another one, such as
    `Experiment.schedule`, refers to what it configures. Macros are compared by name as
    well, so that TOTAL_STEPS is compared across schedules.
    """
    names = {name: value for name, value in before.values()}
    pairs = [(key, *now[key], before[key][1]) for key in now if key in before]
    pairs += [
        (key, name, value, names[name])
        for key, (name, value) in now.items()
        if key not in before and name in names
    ]
    changes: dict[str, Change] = {}
    for key, name, value, earlier in sorted(
        pairs, key=lambda pair: _strictness(pair[0])
    ):
        if value != earlier and name not in changes:
            changes[name] = Change(key, name, earlier, value)
    return list(changes.values())


def _check_changes(changes: Sequence[Change], allowed: Collection[str]) -> None:
    """Raise if a setting of `FIXED` changed, or one of `EXACT` that is not allowed."""
    fixed = [change for change in changes if change.setting in FIXED]
    if fixed:
        raise ValueError(
            f"{_listed(fixed)}: the weights of a run cannot become those of another "
            f"model. Go back to the earlier value{'s' * (len(fixed) > 1)}, or take a "
            "new --model_dir."
        )
    exact = [
        change
        for change in changes
        if change.setting in EXACT and EXACT[change.setting] not in allowed
    ]
    if exact:
        names = sorted({EXACT[change.setting] for change in exact})
        raise ValueError(
            f"{_listed(exact)}: the run would not continue with the images that come "
            f"next. Go back to the earlier value{'s' * (len(exact) > 1)}, take a new "
            f"--model_dir, or bind RunOptions.allow_changes = {names}."
        )


def describe_changes(changes: Sequence[Change]) -> str:
    """Return lines for people, one for each change."""
    return "\n".join(
        [
            "Settings that changed since the run's last start:",
            *(f"  {c}" for c in changes),
        ]
    )


def _strictness(key: str) -> int:
    setting = key.rpartition("/")[2]
    return 0 if setting in FIXED else 1 if setting in EXACT else 2


def _listed(changes: Sequence[Change]) -> str:
    return ", ".join(
        f"`{change.name}` was {change.before} and is now {change.now}"
        for change in changes[:5]
    )
